"""Verification and reset by mail, plans, administrators, disabled accounts."""

from alembic import op

from ff_cloud.kit.tenancy import system_table

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    op.execute("set local lock_timeout = '3s'")
    op.execute("""
        create table plans (
            name text primary key check (name ~ '^[a-z][a-z0-9-]{0,39}$'),
            workspaces_max integer not null check (workspaces_max >= 0),
            running_vms_max integer not null check (running_vms_max >= 0),
            vm_cpus double precision not null check (vm_cpus > 0),
            vm_memory_bytes bigint not null check (vm_memory_bytes >= 268435456),
            vm_disk_bytes bigint not null check (vm_disk_bytes > 0)
        )
    """)
    op.execute("""
        comment on table plans is
        'What an account may use. cpus, memory and disk are of one VM. Change a row and it counts for the next request.'
    """)
    op.execute("""
        insert into plans (name, workspaces_max, running_vms_max, vm_cpus, vm_memory_bytes, vm_disk_bytes) values
        ('free', 10, 5, 2, 4294967296, 21474836480),
        ('pro', 50, 25, 4, 8589934592, 53687091200),
        ('team', 200, 100, 8, 17179869184, 107374182400)
    """)
    op.execute("""
        alter table users
            add column is_admin boolean not null default false,
            add column disabled_at timestamptz,
            add column closing_at timestamptz,
            add column email_verified_at timestamptz
    """)
    # Forced row-level security would hide all rows from the owner, too.
    op.execute("alter table users no force row level security")
    # Accounts of before had no limit but a setting of the server; they get the plan that comes closest to it.
    op.execute("update users set plan = 'pro' where plan = 'standard'")
    op.execute("alter table users add constraint users_plan foreign key (plan) references plans (name) on update cascade")
    # A server that has accounts but no administrator gets the one who came first, as a fresh one does.
    op.execute("update users set is_admin = true where id = (select id from users order by created_at, id limit 1)")
    op.execute("alter table users force row level security")
    # Only now, because the foreign key is checked with the rights of the owner.
    system_table(op, "plans")
    # What a plan gives is no secret.
    op.execute("create policy everybody on plans for select to ff_app using (true)")
    op.execute("grant select on plans to ff_app")

    op.execute("""
        create table mail_links (
            sha256 bytea primary key check (length(sha256) = 32),
            user_id uuid not null references users (id) on delete cascade,
            purpose text not null check (purpose in ('verify', 'reset', 'change')),
            email text not null check (length(email) <= 254),
            created_at timestamptz not null,
            expires_at timestamptz not null
        )
    """)
    op.execute("create index mail_links_of_user on mail_links (user_id, purpose)")
    op.execute("create index mail_links_age on mail_links (expires_at)")
    system_table(op, "mail_links")

    op.execute("""
        create table outbox (
            id uuid primary key,
            user_id uuid references users (id) on delete cascade,
            recipient text not null check (length(recipient) <= 254),
            content_sealed text not null check (length(content_sealed) <= 20000),
            attempts integer not null default 0,
            error text check (length(error) <= 200),
            run_at timestamptz not null,
            expires_at timestamptz not null,
            created_at timestamptz not null
        )
    """)
    op.execute("comment on column outbox.content_sealed is 'subject and text; sealed, because a link in it opens the account'")
    op.execute("create index outbox_due on outbox (run_at)")
    op.execute("create index outbox_of_user on outbox (user_id)")
    system_table(op, "outbox")


def downgrade() -> None:
    op.execute("drop table outbox")
    op.execute("drop table mail_links")
    op.execute("alter table users drop constraint users_plan")
    op.execute("""
        alter table users drop column is_admin, drop column disabled_at, drop column closing_at, drop column email_verified_at
    """)
    op.execute("alter table users no force row level security")
    op.execute("update users set plan = 'standard'")
    op.execute("alter table users force row level security")
    op.execute("drop table plans")
