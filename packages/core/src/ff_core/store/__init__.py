"""The state of one host in SQLite: the door to the database, its migrations, and the journal."""
