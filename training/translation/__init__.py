"""From English rows to Russian ones."""
