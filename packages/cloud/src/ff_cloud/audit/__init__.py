"""The audit log: every security event, readable by the user it concerns, append-only."""
