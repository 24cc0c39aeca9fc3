"""Handoffs: who holds a workspace that lives on a desktop, what moves it, and the pieces of bundles on their way."""

from alembic import op

from ff_cloud.kit.tenancy import tenant_table

revision = "0012"
down_revision = "0011"


def upgrade() -> None:
    op.execute("set local lock_timeout = '3s'")
    op.execute("""
        alter table workspaces
            add column desktop_id uuid,
            add column desktop_name text check (length(desktop_name) <= 100),
            add column kept_until timestamptz,
            add column moving uuid,
            add column handoff_id uuid
    """)
    op.execute("comment on column workspaces.desktop_id is 'While it lives on a desktop: which one holds it'")
    op.execute("comment on column workspaces.kept_until is 'While it lives on a desktop: so long its frozen copy here is kept'")
    op.execute("comment on column workspaces.moving is 'The handoff that has it; also one that is over, until that is undone'")
    op.execute("comment on column workspaces.handoff_id is 'The last handoff that was committed to here or given up; VMs are told'")
    op.execute("create index workspaces_kept on workspaces (kept_until) where kept_until is not null")
    op.execute("create index workspaces_moving on workspaces (id) where moving is not null")
    op.execute("create index workspaces_elsewhere on workspaces (id) where location = 'DESKTOP'")

    # Made by desktops, so an id is unique among its user's only.
    op.execute("""
        create table handoffs (
            id uuid not null,
            user_id uuid not null references users (id) on delete cascade,
            workspace_id uuid not null,
            direction text not null check (direction in ('SEND', 'PULL')),
            status text not null check (status in
                ('UPLOADING', 'RESTORING', 'EXPORTING', 'READY', 'COMMITTED', 'ABORTED', 'FAILED', 'EXPIRED')),
            desktop_id uuid not null,
            desktop_name text not null check (length(desktop_name) <= 100),
            epoch bigint not null,
            wanted jsonb not null,
            made_workspace boolean not null,
            received_bytes bigint not null default 0 check (received_bytes >= 0),
            bundle jsonb,
            contents jsonb,
            arrived jsonb,
            receipt jsonb,
            error_code text,
            error_message text,
            operation_id uuid,
            expires_at timestamptz not null,
            created_at timestamptz not null,
            updated_at timestamptz not null,
            primary key (user_id, id),
            check (status <> 'READY' or bundle is not null),
            check (status <> 'COMMITTED' or receipt is not null)
        )
    """)
    op.execute("comment on column handoffs.wanted is 'The request that began it: a repeated one is the same'")
    op.execute("comment on column handoffs.made_workspace is 'The row of the workspace goes when this comes to nothing'")
    op.execute("comment on column handoffs.received_bytes is 'Of the bundle, in pieces without a gap'")
    op.execute("create index handoffs_page on handoffs (user_id, created_at desc, id desc)")
    op.execute("""
        create unique index handoffs_one_open on handoffs (workspace_id)
        where status in ('UPLOADING', 'RESTORING', 'EXPORTING', 'READY')
    """)
    op.execute("create index handoffs_ended on handoffs (updated_at)")
    tenant_table(op, "handoffs")

    op.execute("""
        create table handoff_pieces (
            user_id uuid not null,
            handoff_id uuid not null,
            "offset" bigint not null check ("offset" >= 0),
            bytes bigint not null check (bytes > 0),
            sha256 text not null,
            key text not null unique check (length(key) <= 500),
            primary key (user_id, handoff_id, "offset"),
            foreign key (user_id, handoff_id) references handoffs (user_id, id) on delete cascade
        )
    """)
    tenant_table(op, "handoff_pieces", app="select, insert, delete")


def downgrade() -> None:
    op.execute("drop table handoff_pieces")
    op.execute("drop table handoffs")
    op.execute("drop index workspaces_elsewhere")
    op.execute("""
        alter table workspaces
            drop column desktop_id, drop column desktop_name, drop column kept_until, drop column moving, drop column handoff_id
    """)
