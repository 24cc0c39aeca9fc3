"""GitHub identities, authorization codes, device logins, browser sessions."""

from alembic import op

from ff_cloud.kit.tenancy import system_table, tenant_table

revision = "0006"
down_revision = "0005"


def upgrade() -> None:
    op.execute("set local lock_timeout = '3s'")
    op.execute("""
        create table identities (
            provider text not null check (provider = 'github'),
            subject text not null check (length(subject) between 1 and 40),
            user_id uuid not null references users (id) on delete cascade,
            login text not null check (length(login) <= 100),
            created_at timestamptz not null,
            last_used_at timestamptz not null,
            primary key (provider, subject),
            unique (user_id, provider)
        )
    """)
    tenant_table(op, "identities", app="select, delete")

    op.execute("""
        create table github_states (
            sha256 bytea primary key check (length(sha256) = 32),
            browser_sha256 bytea not null check (length(browser_sha256) = 32),
            user_id uuid references users (id) on delete cascade,
            next text not null check (length(next) <= 4096),
            expires_at timestamptz not null
        )
    """)
    op.execute("create index github_states_age on github_states (expires_at)")
    system_table(op, "github_states")

    op.execute("""
        create table browser_sessions (
            sha256 bytea primary key check (length(sha256) = 32),
            user_id uuid not null references users (id) on delete cascade,
            authenticated_at timestamptz not null,
            expires_at timestamptz not null
        )
    """)
    op.execute("create index browser_sessions_age on browser_sessions (expires_at)")
    op.execute("create index browser_sessions_of_user on browser_sessions (user_id)")
    system_table(op, "browser_sessions")

    op.execute("""
        create table authorization_codes (
            sha256 bytea primary key check (length(sha256) = 32),
            user_id uuid not null references users (id) on delete cascade,
            client_id text not null check (length(client_id) <= 40),
            device text not null check (length(device) <= 100),
            redirect_uri text not null check (length(redirect_uri) <= 100),
            code_challenge text not null check (length(code_challenge) = 43),
            scopes text[],
            expires_at timestamptz not null,
            used_at timestamptz,
            session_id uuid
        )
    """)
    op.execute("create index authorization_codes_age on authorization_codes (expires_at)")
    op.execute("create index authorization_codes_of_user on authorization_codes (user_id)")
    system_table(op, "authorization_codes")

    op.execute("""
        create table device_logins (
            device_sha256 bytea primary key check (length(device_sha256) = 32),
            user_sha256 bytea not null unique check (length(user_sha256) = 32),
            client_id text not null check (length(client_id) <= 40),
            device text not null check (length(device) <= 100),
            place text not null check (length(place) <= 100),
            scopes text[],
            status text not null default 'pending' check (status in ('pending', 'approved', 'denied', 'consumed')),
            user_id uuid references users (id) on delete cascade,
            interval_s integer not null,
            last_poll_at timestamptz,
            created_at timestamptz not null,
            expires_at timestamptz not null,
            check (status not in ('approved', 'consumed') or user_id is not null)
        )
    """)
    op.execute("create index device_logins_age on device_logins (expires_at)")
    op.execute("create index device_logins_of_user on device_logins (user_id)")
    system_table(op, "device_logins")


def downgrade() -> None:
    for name in ("device_logins", "authorization_codes", "browser_sessions", "github_states", "identities"):
        op.execute(f"drop table {name}")
