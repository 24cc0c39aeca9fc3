"""Logging in with GitHub: the OAuth client, and which GitHub account belongs to which of ours."""
