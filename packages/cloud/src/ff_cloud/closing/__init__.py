"""The end of an account, with everything that belongs to it: containers, volumes, rows."""
