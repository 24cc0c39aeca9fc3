"""What we are measured against. Each peer is a context that yields one round: from asking for a place to its first output."""
