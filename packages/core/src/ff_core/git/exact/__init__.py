"""The exact state of one repository with its working tree: read without changing anything, and made again elsewhere."""
