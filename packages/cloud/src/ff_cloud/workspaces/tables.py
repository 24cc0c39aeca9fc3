"""Workspaces in PostgreSQL."""

from sqlalchemy import BigInteger, Column, DateTime, Table, Text, Uuid

from ff_cloud.kit.tables import metadata

workspaces = Table(
    "workspaces",
    metadata,
    Column("id", Uuid, primary_key=True),
    Column("user_id", Uuid, nullable=False),
    Column("name", Text, nullable=False),
    Column("status", Text, nullable=False),
    Column("location", Text, nullable=False),
    Column("epoch", BigInteger, nullable=False),
    Column("desktop_id", Uuid),
    Column("desktop_name", Text),
    Column("kept_until", DateTime(timezone=True)),
    Column("moving", Uuid),
    Column("handoff_id", Uuid),
    Column("repo_url", Text),
    Column("repo_token_sealed", Text),
    Column("branch", Text),
    Column("github_issue_url", Text),
    Column("pr_url", Text),
    Column("desired", Text, nullable=False),
    Column("error_code", Text),
    Column("error_message", Text),
    Column("operation_id", Uuid),
    Column("deadline_at", DateTime(timezone=True)),
    Column("last_seq", BigInteger, nullable=False, server_default="0"),
    Column("last_active_at", DateTime(timezone=True), nullable=False),
    Column("last_saved_at", DateTime(timezone=True)),
    Column("last_checkpoint", BigInteger, nullable=False, server_default="0"),
    Column("turn_ended_at", DateTime(timezone=True)),
    Column("created_at", DateTime(timezone=True), nullable=False),
    Column("updated_at", DateTime(timezone=True), nullable=False),
)
