"""Sessions in PostgreSQL: what the control plane must know to find them and to show them when their VM rests."""

from sqlalchemy import Column, DateTime, Table, Text, Uuid

from ff_cloud.kit.tables import metadata

sessions = Table(
    "sessions",
    metadata,
    Column("user_id", Uuid, primary_key=True),
    Column("id", Uuid, primary_key=True),  # chosen by the user: unique among his own only
    Column("workspace_id", Uuid, nullable=False),
    Column("name", Text, nullable=False),
    Column("model", Text),
    Column("permissions", Text, nullable=False),
    Column("status", Text, nullable=False),
    Column("created_at", DateTime(timezone=True), nullable=False),
    Column("updated_at", DateTime(timezone=True), nullable=False),
)
