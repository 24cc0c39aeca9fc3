"""What is stored of each workspace outside of its VM: numbered, never an older over a newer, never half."""
