"""Letters to users: written into an outbox in the transaction that needs them, sent by the worker."""
