"""Accounts, passwords, sessions, API keys, limits on guessing, and answers to repeated requests."""

from alembic import op

from ff_cloud.kit.tenancy import system_table, tenant_table

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    op.execute("set local lock_timeout = '3s'")
    op.execute("""
        create table users (
            id uuid primary key,
            email text not null check (length(email) <= 254),
            name text not null check (length(name) between 1 and 254),
            plan text not null,
            created_at timestamptz not null
        )
    """)
    op.execute("create unique index users_email on users (lower(email))")
    # Here the tenant's column is the primary key, so tenant_table does not fit.
    system_table(op, "users")
    op.execute("""
        create policy tenant on users for select to ff_app
        using (id = nullif(current_setting('app.user_id', true), '')::uuid)
    """)
    op.execute("grant select on users to ff_app")

    op.execute("""
        create table auth_passwords (
            user_id uuid primary key references users (id) on delete cascade,
            hash text not null,
            changed_at timestamptz not null
        )
    """)
    system_table(op, "auth_passwords")

    op.execute("""
        create table auth_sessions (
            id uuid primary key,
            user_id uuid not null references users (id) on delete cascade,
            user_agent text not null check (length(user_agent) <= 200),
            created_at timestamptz not null,
            expires_at timestamptz not null,
            last_used_at timestamptz not null,
            revoked_at timestamptz
        )
    """)
    op.execute("create index auth_sessions_of_user on auth_sessions (user_id, id)")
    tenant_table(op, "auth_sessions", app="select, update")

    op.execute("""
        create table api_keys (
            id uuid primary key,
            user_id uuid not null references users (id) on delete cascade,
            name text not null check (length(name) between 1 and 100),
            prefix text not null unique,
            sha256 bytea not null check (length(sha256) = 32),
            scopes text[] not null check (cardinality(scopes) > 0),
            created_at timestamptz not null,
            expires_at timestamptz not null,
            last_used_at timestamptz,
            revoked_at timestamptz
        )
    """)
    op.execute("create index api_keys_of_user on api_keys (user_id, id)")
    tenant_table(op, "api_keys", app="select, insert, update")

    op.execute("create unlogged table rate_limits (key text primary key, tat timestamptz not null)")
    op.execute("create index rate_limits_tat on rate_limits (tat)")
    system_table(op, "rate_limits")

    op.execute("""
        create table idempotency_keys (
            user_id uuid not null references users (id) on delete cascade,
            key text not null check (length(key) between 1 and 200),
            fingerprint text not null,
            status smallint,
            body jsonb,
            created_at timestamptz not null default now(),
            primary key (user_id, key)
        )
    """)
    op.execute("create index idempotency_keys_age on idempotency_keys (created_at)")
    tenant_table(op, "idempotency_keys", app="select, insert, update")


def downgrade() -> None:
    for name in ("idempotency_keys", "rate_limits", "api_keys", "auth_sessions", "auth_passwords", "users"):
        op.execute(f"drop table {name}")
