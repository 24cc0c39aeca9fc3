"""Links that were mailed. Only hashes of their tokens are here, and a row goes when its link is used."""

from sqlalchemy import Column, DateTime, LargeBinary, Table, Text, Uuid

from ff_cloud.kit.tables import metadata

mail_links = Table(
    "mail_links",
    metadata,
    Column("sha256", LargeBinary, primary_key=True),
    Column("user_id", Uuid, nullable=False),
    Column("purpose", Text, nullable=False),
    Column("email", Text, nullable=False),
    Column("created_at", DateTime(timezone=True), nullable=False),
    Column("expires_at", DateTime(timezone=True), nullable=False),
)
"""``email`` is the address the link went to: what opening it proves."""
