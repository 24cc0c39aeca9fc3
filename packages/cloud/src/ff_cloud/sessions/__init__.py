"""Sessions, prompts, interrupts and answers: forwarded to the workspace's daemon, which owns them."""
