"""Sealed credentials, and which versions of the derived key-encryption key there are."""

from sqlalchemy import Column, DateTime, Integer, Table, Text, Uuid

from ff_cloud.kit.tables import metadata

credentials = Table(
    "credentials",
    metadata,
    Column("user_id", Uuid, primary_key=True),
    Column("kind", Text, primary_key=True),
    Column("sealed", Text, nullable=False),
    Column("data_key_sealed", Text, nullable=False),
    Column("key_id", Text, nullable=False),
    Column("hint", Text, nullable=False),
    Column("set_at", DateTime(timezone=True), nullable=False),
    Column("last_used_at", DateTime(timezone=True)),
)
"""``sealed`` is under a data key of its own, which is under the key-encryption key ``key_id``."""

credential_key_versions = Table(
    "credential_key_versions",
    metadata,
    Column("version", Integer, primary_key=True),
    Column("made_at", DateTime(timezone=True), nullable=False),
)
"""Versions of the derived key after the first. The keys themselves are nowhere; see ``keyring``."""
