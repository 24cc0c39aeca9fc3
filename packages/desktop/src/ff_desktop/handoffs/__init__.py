"""Moving workspaces between this machine and the server: the desktop's side of DESIGN.md section 11, inside ``ff serve``."""
