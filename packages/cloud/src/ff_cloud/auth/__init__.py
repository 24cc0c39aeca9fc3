"""Who is who: passwords, access tokens, sessions, API keys, and limits on guessing."""
