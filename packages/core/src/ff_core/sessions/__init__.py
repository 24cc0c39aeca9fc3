"""Conversations with an agent: durable prompt queue, permissions, one runner per live session. Knows no particular agent."""
