"""Checkpoints in PostgreSQL; the migration explains them."""

from sqlalchemy import TIMESTAMP, BigInteger, Boolean, Column, Integer, Table, Text, Uuid

from ff_cloud.kit.tables import metadata

_MOMENT = TIMESTAMP(timezone=True)

checkpoints = Table(
    "checkpoints",
    metadata,
    Column("workspace_id", Uuid, primary_key=True),
    Column("number", BigInteger, primary_key=True),
    Column("user_id", Uuid, nullable=False),
    Column("vm_id", Uuid, nullable=False),
    Column("vm_generation", Integer, nullable=False),
    Column("state", Text, nullable=False),
    Column("reason", Text, nullable=False),
    Column("key", Text, nullable=False),
    Column("base_number", BigInteger),
    Column("bytes", BigInteger),
    Column("sha256", Text),
    Column("tree_sha256", Text),
    Column("tree_bytes", BigInteger),
    Column("content_bytes", BigInteger),
    Column("entries", BigInteger),
    Column("journal_seq", BigInteger),
    Column("settled", Boolean),
    Column("left_out_count", Integer),
    Column("began_at", _MOMENT, nullable=False),
    Column("created_at", _MOMENT),
)
