"""A workspace as a bundle and back: fingerprint, pack, unpack (DESIGN.md section 11)."""
