"""What administrators of a server see and do."""
