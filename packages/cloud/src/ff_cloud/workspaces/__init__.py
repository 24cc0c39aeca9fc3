"""The tenant's workspaces and their life."""
