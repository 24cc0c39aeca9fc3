"""The ff command: drives workspaces in Factory Factory Cloud (and, soon, on this machine)."""
