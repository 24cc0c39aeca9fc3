"""Tables of the room ``github``. No token of GitHub is kept."""

from sqlalchemy import Column, DateTime, LargeBinary, Table, Text, Uuid

from ff_cloud.kit.tables import metadata

identities = Table(
    "identities",
    metadata,
    Column("provider", Text, primary_key=True),
    Column("subject", Text, primary_key=True),
    Column("user_id", Uuid, nullable=False),
    Column("login", Text, nullable=False),
    Column("created_at", DateTime(timezone=True), nullable=False),
    Column("last_used_at", DateTime(timezone=True), nullable=False),
)
"""``subject`` is GitHub's number of the account. Names and addresses there can pass to somebody else, numbers can't."""

states = Table(
    "github_states",
    metadata,
    Column("sha256", LargeBinary, primary_key=True),
    Column("browser_sha256", LargeBinary, nullable=False),
    Column("user_id", Uuid),
    Column("next", Text, nullable=False),
    Column("expires_at", DateTime(timezone=True), nullable=False),
)
"""Logins that were begun. ``user_id``: whose account is being linked; null for a login."""
