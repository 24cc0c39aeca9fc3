"""A workspace as an archive and back: what changed since the last one, verified to the last byte, never half."""
