"""Repositories of a desktop's user, and the workspaces in worktrees of them (DOMAIN.md section 6)."""
