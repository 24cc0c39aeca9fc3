"""Secrets of third parties: encrypted at rest, opened by the gateway only."""
