"""What the ratchet remembers of a workspace (DOMAIN.md section 3), and when one of its fixers is at work."""
