"""VMs in PostgreSQL. While warm a VM has no user; then only the system role sees it."""

from sqlalchemy import Column, DateTime, Integer, Table, Text, Uuid

from ff_cloud.kit.tables import metadata

vms = Table(
    "vms",
    metadata,
    Column("id", Uuid, primary_key=True),
    Column("user_id", Uuid),
    Column("workspace_id", Uuid, unique=True),
    Column("status", Text, nullable=False),
    Column("generation", Integer, nullable=False),
    Column("container_id", Text),
    Column("address", Text),
    Column("port", Integer),
    Column("health_failures", Integer, nullable=False),
    Column("last_health_check", DateTime(timezone=True)),
    Column("copier", Text),
    Column("copier_lease_until", DateTime(timezone=True)),
    Column("created_at", DateTime(timezone=True), nullable=False),
    Column("claimed_at", DateTime(timezone=True)),
)
