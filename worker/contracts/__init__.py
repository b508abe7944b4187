"""What travels on the topics: the shapes that producers and consumers rely on."""
