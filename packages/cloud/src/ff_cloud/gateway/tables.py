"""What was used, one row per request to the model."""

from sqlalchemy import BigInteger, Column, DateTime, Table, Text, Uuid

from ff_cloud.kit.tables import metadata

usage = Table(
    "usage",
    metadata,
    Column("id", Uuid, primary_key=True),
    Column("user_id", Uuid, nullable=False),
    Column("workspace_id", Uuid, nullable=False),
    Column("at", DateTime(timezone=True), nullable=False),
    Column("model", Text, nullable=False),
    Column("agent_session", Text),
    Column("input_tokens", BigInteger, nullable=False),
    Column("output_tokens", BigInteger, nullable=False),
    Column("cache_read_tokens", BigInteger, nullable=False),
    Column("cache_write_tokens", BigInteger, nullable=False),
    Column("cost_micro_usd", BigInteger),
)
"""``agent_session`` is the agent's own name of the conversation, as it said it in ``x-claude-code-session-id``."""
