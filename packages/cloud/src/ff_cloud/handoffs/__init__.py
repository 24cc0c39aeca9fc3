"""Moving workspaces between desktops and this server: which one has it is decided here, in one transaction a move."""
