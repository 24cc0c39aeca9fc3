"""Logging programs in: by a browser on the same machine (code + PKCE), or from another device; and pages where people agree."""
