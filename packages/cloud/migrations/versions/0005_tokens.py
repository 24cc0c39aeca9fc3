"""Signing keys and refresh families."""

from alembic import op

from ff_cloud.kit.tenancy import system_table

revision = "0005"
down_revision = "0004"


def upgrade() -> None:
    op.execute("set local lock_timeout = '3s'")
    op.execute("""
        create table signing_keys (
            kid text primary key,
            public text not null,
            private text not null,
            created_at timestamptz not null,
            retires_at timestamptz
        )
    """)
    op.execute("comment on column signing_keys.private is 'sealed; see ff_cloud.kit.crypto'")
    # One key signs. Whoever inserts a second one at the same time loses, which is how replicas agree.
    op.execute("create unique index signing_keys_current on signing_keys ((true)) where retires_at is null")
    system_table(op, "signing_keys")

    op.execute("""
        alter table auth_sessions
            add column client_id text not null default 'api' check (length(client_id) between 1 and 40),
            add column place text not null default '' check (length(place) <= 64),
            add column scopes text[],
            add column revoked_reason text
    """)

    op.execute("""
        create table refresh_tokens (
            sha256 bytea primary key check (length(sha256) = 32),
            session_id uuid not null references auth_sessions (id) on delete cascade,
            created_at timestamptz not null,
            used_at timestamptz,
            replaced_by bytea
        )
    """)
    op.execute("create index refresh_tokens_of_session on refresh_tokens (session_id)")
    op.execute("create index refresh_tokens_age on refresh_tokens (created_at)")
    system_table(op, "refresh_tokens")


def downgrade() -> None:
    op.execute("drop table refresh_tokens")
    op.execute("alter table auth_sessions drop column client_id, drop column place, drop column scopes, drop column revoked_reason")
    op.execute("drop table signing_keys")
