"""Handoffs and the pieces of their bundles in PostgreSQL; the migration explains them."""

from sqlalchemy import TIMESTAMP, BigInteger, Boolean, Column, Table, Text, Uuid
from sqlalchemy.dialects.postgresql import JSONB

from ff_cloud.kit.tables import metadata

_MOMENT = TIMESTAMP(timezone=True)

handoffs = Table(
    "handoffs",
    metadata,
    Column("id", Uuid, primary_key=True),
    Column("user_id", Uuid, primary_key=True),
    Column("workspace_id", Uuid, nullable=False),
    Column("direction", Text, nullable=False),
    Column("status", Text, nullable=False),
    Column("desktop_id", Uuid, nullable=False),
    Column("desktop_name", Text, nullable=False),
    Column("epoch", BigInteger, nullable=False),
    Column("wanted", JSONB, nullable=False),
    Column("made_workspace", Boolean, nullable=False),
    Column("received_bytes", BigInteger, nullable=False, server_default="0"),
    Column("bundle", JSONB(none_as_null=True)),
    Column("contents", JSONB(none_as_null=True)),
    Column("arrived", JSONB(none_as_null=True)),
    Column("receipt", JSONB(none_as_null=True)),
    Column("error_code", Text),
    Column("error_message", Text),
    Column("operation_id", Uuid),
    Column("expires_at", _MOMENT, nullable=False),
    Column("created_at", _MOMENT, nullable=False),
    Column("updated_at", _MOMENT, nullable=False),
)

handoff_pieces = Table(
    "handoff_pieces",
    metadata,
    Column("user_id", Uuid, primary_key=True),
    Column("handoff_id", Uuid, primary_key=True),
    Column("offset", BigInteger, primary_key=True),
    Column("bytes", BigInteger, nullable=False),
    Column("sha256", Text, nullable=False),
    Column("key", Text, nullable=False),
)
