"""Tables of the room ``authorization``. Of every secret only the SHA-256 is in them; each has 256 bits but the user code."""

from sqlalchemy import ARRAY, Column, DateTime, Integer, LargeBinary, Table, Text, Uuid

from ff_cloud.kit.tables import metadata

browser_sessions = Table(
    "browser_sessions",
    metadata,
    Column("sha256", LargeBinary, primary_key=True),
    Column("user_id", Uuid, nullable=False),
    Column("authenticated_at", DateTime(timezone=True), nullable=False),
    Column("expires_at", DateTime(timezone=True), nullable=False),
)

codes = Table(
    "authorization_codes",
    metadata,
    Column("sha256", LargeBinary, primary_key=True),
    Column("user_id", Uuid, nullable=False),
    Column("client_id", Text, nullable=False),
    Column("device", Text, nullable=False),
    Column("redirect_uri", Text, nullable=False),
    Column("code_challenge", Text, nullable=False),
    Column("scopes", ARRAY(Text)),
    Column("expires_at", DateTime(timezone=True), nullable=False),
    Column("used_at", DateTime(timezone=True)),
    Column("session_id", Uuid),
)
"""``session_id`` is what the code bought, so that its second use can end that."""

device_logins = Table(
    "device_logins",
    metadata,
    Column("device_sha256", LargeBinary, primary_key=True),
    Column("user_sha256", LargeBinary, nullable=False),
    Column("client_id", Text, nullable=False),
    Column("device", Text, nullable=False),
    Column("place", Text, nullable=False),
    Column("scopes", ARRAY(Text)),
    Column("status", Text, nullable=False),
    Column("user_id", Uuid),
    Column("interval_s", Integer, nullable=False),
    Column("last_poll_at", DateTime(timezone=True)),
    Column("created_at", DateTime(timezone=True), nullable=False),
    Column("expires_at", DateTime(timezone=True), nullable=False),
)
"""A user code has 34.5 bits: its hash hides it from a reader of logs, not from one who tries them all. It lives ten minutes."""
