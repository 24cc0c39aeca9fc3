"""The only code that runs git: repositories by URL, clones, status."""
