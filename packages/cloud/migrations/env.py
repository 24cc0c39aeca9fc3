"""Alembic runs this inside of ``ff_cloud.kit.migrate``, which holds the lock and has become the owner."""

from alembic import context

connection = context.config.attributes.get("connection")
if connection is None:
    message = "Run `ff-cloud migrate`: it takes the lock and the owner's role."
    raise SystemExit(message)
context.configure(connection=connection, target_metadata=None, transaction_per_migration=True)
with context.begin_transaction():
    context.run_migrations()
connection.commit()
