"""From files to prepared, split, multi-hot rows."""
