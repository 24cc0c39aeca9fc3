"""VMs, workspaces, sessions and the copy of the journals."""

from alembic import op

from ff_cloud.kit.tenancy import tenant_table

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    op.execute("set local lock_timeout = '3s'")
    op.execute("""
        create table workspaces (
            id uuid primary key,
            user_id uuid not null references users (id) on delete cascade,
            name text not null check (length(name) between 1 and 100),
            status text not null,
            location text not null check (location in ('DESKTOP', 'CLOUD')),
            epoch bigint not null,
            repo_url text,
            repo_token_sealed text,
            branch text,
            github_issue_url text,
            pr_url text,
            desired text not null check (desired in ('PRESENT', 'GONE')),
            error_code text,
            error_message text,
            operation_id uuid,
            deadline_at timestamptz,
            last_seq bigint not null default 0,
            last_active_at timestamptz not null,
            created_at timestamptz not null,
            updated_at timestamptz not null,
            unique (user_id, name),
            unique (user_id, id)
        )
    """)
    op.execute("create index workspaces_page on workspaces (user_id, id desc)")
    op.execute("create index workspaces_unsettled on workspaces (id) where status not in ('READY', 'FAILED') or desired = 'GONE'")
    tenant_table(op, "workspaces")

    op.execute("""
        create table vms (
            id uuid primary key,
            user_id uuid,
            workspace_id uuid unique,
            status text not null,
            generation integer not null,
            container_id text,
            address text,
            port integer,
            health_failures integer not null,
            last_health_check timestamptz,
            copier text,
            copier_lease_until timestamptz,
            created_at timestamptz not null,
            claimed_at timestamptz,
            check ((user_id is null) = (workspace_id is null)),
            foreign key (user_id, workspace_id) references workspaces (user_id, id)
        )
    """)
    op.execute("create index vms_running on vms (id) where status = 'RUNNING'")
    tenant_table(op, "vms", app="select, insert")

    op.execute("""
        create table sessions (
            id uuid not null,
            user_id uuid not null,
            workspace_id uuid not null,
            name text not null,
            model text,
            permissions text not null,
            status text not null,
            created_at timestamptz not null,
            updated_at timestamptz not null,
            primary key (user_id, id),
            foreign key (user_id, workspace_id) references workspaces (user_id, id) on delete cascade
        )
    """)
    op.execute("create index sessions_of_workspace on sessions (user_id, workspace_id, id)")
    tenant_table(op, "sessions", app="select, insert, update")

    op.execute("""
        create table events (
            workspace_id uuid not null,
            seq bigint not null check (seq > 0),
            user_id uuid not null,
            at timestamptz not null,
            session_id uuid,
            body jsonb not null,
            primary key (workspace_id, seq),
            foreign key (user_id, workspace_id) references workspaces (user_id, id) on delete cascade
        )
    """)
    tenant_table(op, "events", app="select")


def downgrade() -> None:
    for name in ("events", "sessions", "vms", "workspaces"):
        op.execute(f"drop table {name}")
