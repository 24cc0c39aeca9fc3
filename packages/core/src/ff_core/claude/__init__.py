"""The only room that knows Claude: how its CLI is started, what its words mean, how it ends."""
