"""What those who run the server ask it: whether it lives, whether it can do its work, and its numbers."""
