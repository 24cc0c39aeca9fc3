"""The table of accounts. Passwords are elsewhere (room ``auth``), so that no list of users can carry them along."""

from sqlalchemy import Column, DateTime, Table, Text, Uuid

from ff_cloud.kit.tables import metadata

users = Table(
    "users",
    metadata,
    Column("id", Uuid, primary_key=True),
    Column("email", Text, nullable=False),
    Column("name", Text, nullable=False),
    Column("plan", Text, nullable=False),
    Column("created_at", DateTime(timezone=True), nullable=False),
)
