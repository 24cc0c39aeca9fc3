"""The outbox. A letter may hold a link that opens an account, so its text rests sealed; a row goes when it is sent or too old."""

from sqlalchemy import Column, DateTime, Integer, Table, Text, Uuid

from ff_cloud.kit.tables import metadata

outbox = Table(
    "outbox",
    metadata,
    Column("id", Uuid, primary_key=True),
    Column("user_id", Uuid),
    Column("recipient", Text, nullable=False),
    Column("content_sealed", Text, nullable=False),
    Column("attempts", Integer, nullable=False, server_default="0"),
    Column("error", Text),
    Column("run_at", DateTime(timezone=True), nullable=False),
    Column("expires_at", DateTime(timezone=True), nullable=False),
    Column("created_at", DateTime(timezone=True), nullable=False),
)
