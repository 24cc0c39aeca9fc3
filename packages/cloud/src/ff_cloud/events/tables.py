"""The copy of the journals. Append-only for everybody; rows go only with their workspace."""

from sqlalchemy import BigInteger, Column, DateTime, Table, Uuid
from sqlalchemy.dialects.postgresql import JSONB

from ff_cloud.kit.tables import metadata

events = Table(
    "events",
    metadata,
    Column("workspace_id", Uuid, primary_key=True),
    Column("seq", BigInteger, primary_key=True),
    Column("user_id", Uuid, nullable=False),
    Column("at", DateTime(timezone=True), nullable=False),
    Column("session_id", Uuid),
    Column("body", JSONB, nullable=False),
)
