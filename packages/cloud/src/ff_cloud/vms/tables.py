"""VMs in PostgreSQL. While warm a VM has no user; then the system role sees it, and a user only to claim it (migration 0009)."""

from sqlalchemy import BigInteger, Boolean, Column, DateTime, Double, Integer, Table, Text, Uuid
from sqlalchemy.dialects.postgresql import JSONB

from ff_cloud.kit.tables import metadata

_MOMENT = DateTime(timezone=True)

vms = Table(
    "vms",
    metadata,
    Column("id", Uuid, primary_key=True),
    Column("user_id", Uuid),
    Column("workspace_id", Uuid, unique=True),
    Column("status", Text, nullable=False),
    Column("desired", Text, nullable=False, server_default="RUNNING"),
    Column("generation", Integer, nullable=False),
    Column("image", Text),
    Column("refused_image", Text),
    Column("runtime", Text),
    Column("memory_bytes", BigInteger),
    Column("cpus", Double),
    Column("pids", Integer),
    Column("disk_bytes", BigInteger),
    Column("container_id", Text),
    Column("address", Text),
    Column("port", Integer),
    Column("health_failures", Integer, nullable=False),
    Column("last_health_check", _MOMENT),
    Column("copier", Text),
    Column("copier_lease_until", _MOMENT),
    Column("created_at", _MOMENT, nullable=False),
    Column("admitted_at", _MOMENT),
    Column("warm_at", _MOMENT),
    Column("claimed_at", _MOMENT),
    Column("active_at", _MOMENT, nullable=False),
    Column("suspended_at", _MOMENT),
    Column("deadline_at", _MOMENT),
)

pool_demand = Table(
    "pool_demand",
    metadata,
    Column("minute", _MOMENT, primary_key=True),
    Column("hits", Integer, nullable=False),
    Column("misses", Integer, nullable=False),
)

fleet = Table(
    "fleet",
    metadata,
    Column("one", Boolean, primary_key=True),
    Column("draining", Boolean, nullable=False),
    Column("refusing", Text),
    Column("capacity", JSONB, nullable=False),
    Column("measured_at", _MOMENT),
)

CHANNEL = "vms"
"""The notifications of ``vms``: ``<status> <workspace id, or ->`` whenever status or desired state changes."""
