"""Third-party credentials and usage."""

from alembic import op

from ff_cloud.kit.tenancy import system_table, tenant_table

revision = "0007"
down_revision = "0006"


def upgrade() -> None:
    op.execute("set local lock_timeout = '3s'")
    op.execute("""
        create table credentials (
            user_id uuid not null references users (id) on delete cascade,
            kind text not null check (length(kind) <= 100),
            sealed text not null check (length(sealed) <= 10000),
            data_key_sealed text not null check (length(data_key_sealed) <= 1000),
            key_id text not null check (length(key_id) <= 100),
            hint text not null check (length(hint) <= 4),
            set_at timestamptz not null,
            last_used_at timestamptz,
            primary key (user_id, kind)
        )
    """)
    op.execute("create index credentials_key on credentials (key_id)")
    tenant_table(op, "credentials")

    op.execute("create table credential_key_versions (version integer primary key check (version > 1), made_at timestamptz not null)")
    system_table(op, "credential_key_versions")

    # workspace_id refers to nothing: what was used stays counted when the workspace goes.
    op.execute("""
        create table usage (
            id uuid primary key,
            user_id uuid not null references users (id) on delete cascade,
            workspace_id uuid not null,
            at timestamptz not null,
            model text not null check (length(model) <= 200),
            agent_session text check (length(agent_session) <= 100),
            input_tokens bigint not null check (input_tokens >= 0),
            output_tokens bigint not null check (output_tokens >= 0),
            cache_read_tokens bigint not null check (cache_read_tokens >= 0),
            cache_write_tokens bigint not null check (cache_write_tokens >= 0),
            cost_micro_usd bigint check (cost_micro_usd >= 0)
        )
    """)
    op.execute("create index usage_of_user on usage (user_id, at)")
    tenant_table(op, "usage", app="select")


def downgrade() -> None:
    for name in ("usage", "credential_key_versions", "credentials"):
        op.execute(f"drop table {name}")
