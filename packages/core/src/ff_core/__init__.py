"""Runs AI coding-agent workspaces on one host: SQLite state, git, Claude sessions, journal, and the daemon inside every VM."""
