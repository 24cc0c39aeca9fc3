"""The table ``operations``; its columns are explained in the migration and in :class:`ff_cloud.operations.model.Operation`."""

from sqlalchemy import TIMESTAMP, BigInteger, Boolean, Column, Integer, Table, Text, Uuid
from sqlalchemy.dialects.postgresql import JSONB

from ff_cloud.kit.tables import metadata

_MOMENT = TIMESTAMP(timezone=True)

operations = Table(
    "operations",
    metadata,
    Column("id", Uuid, primary_key=True),
    Column("user_id", Uuid),
    Column("kind", Text, nullable=False),
    Column("key", Text, nullable=False),
    Column("input", JSONB, nullable=False),
    Column("state", JSONB, nullable=False),
    Column("step", Integer, nullable=False),
    Column("step_name", Text),
    Column("direction", Text, nullable=False),
    Column("status", Text, nullable=False),
    Column("cancellable", Boolean, nullable=False),
    Column("cancel_requested", Boolean, nullable=False),
    Column("attempts", Integer, nullable=False),
    Column("run_at", _MOMENT, nullable=False),
    Column("lease_until", _MOMENT),
    Column("fence", BigInteger, nullable=False),
    Column("worker", Text),
    Column("error_code", Text),
    Column("error_message", Text),
    Column("created_at", _MOMENT, nullable=False),
    Column("updated_at", _MOMENT, nullable=False),
    Column("finished_at", _MOMENT),
    Column("request_id", Text),
)

CHANNEL = "operations"
"""The notifications of this table: ``<event> <id>`` with the events ``queued``, ``cancel`` and ``moved``."""
