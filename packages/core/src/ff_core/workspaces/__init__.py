"""The workspace: its life as a table, its row, its checkout."""
