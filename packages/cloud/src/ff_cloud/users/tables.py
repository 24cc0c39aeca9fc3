"""The tables of accounts and plans. Passwords are elsewhere (room ``auth``), so that no list of users can carry them along."""

from sqlalchemy import BigInteger, Boolean, Column, DateTime, Double, Integer, Table, Text, Uuid

from ff_cloud.kit.tables import metadata

users = Table(
    "users",
    metadata,
    Column("id", Uuid, primary_key=True),
    Column("email", Text, nullable=False),
    Column("name", Text, nullable=False),
    Column("plan", Text, nullable=False),
    Column("is_admin", Boolean, nullable=False, server_default="false"),
    Column("disabled_at", DateTime(timezone=True)),
    Column("closing_at", DateTime(timezone=True)),
    Column("email_verified_at", DateTime(timezone=True)),
    Column("created_at", DateTime(timezone=True), nullable=False),
)

plans = Table(
    "plans",
    metadata,
    Column("name", Text, primary_key=True),
    Column("workspaces_max", Integer, nullable=False),
    Column("running_vms_max", Integer, nullable=False),
    Column("vm_cpus", Double, nullable=False),
    Column("vm_memory_bytes", BigInteger, nullable=False),
    Column("vm_disk_bytes", BigInteger, nullable=False),
    Column("vm_runtime", Text),
)
"""What an account may use; ``vm_…`` are of one VM."""
