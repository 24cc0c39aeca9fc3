"""Operations: durable acts of many steps, with lease, fence and progress."""

from alembic import op

from ff_cloud.kit.tenancy import tenant_table

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute("set local lock_timeout = '3s'")
    op.execute("""
        create table operations (
            id uuid primary key,
            user_id uuid,                                 -- null: the server's own, no user sees it
            kind text not null,
            key text not null,                            -- what it acts on, such as a workspace's id
            input jsonb not null default '{}',
            state jsonb not null default '{}',            -- what its steps found out
            step integer not null default 0,              -- steps done and not undone
            step_name text,                               -- the one it is at, for display
            direction text not null default 'forward' check (direction in ('forward', 'backward')),
            status text not null default 'queued' check (status in ('queued', 'running', 'done', 'undone', 'stuck')),
            cancellable boolean not null default true,
            cancel_requested boolean not null default false,
            attempts integer not null default 0,          -- of the present step
            run_at timestamptz not null default clock_timestamp(),
            lease_until timestamptz,
            fence bigint not null default 0,
            worker text,
            error_code text,
            error_message text,
            created_at timestamptz not null default clock_timestamp(),
            updated_at timestamptz not null default clock_timestamp(),
            finished_at timestamptz
        )
    """)
    # One sequence for all, so that the next operation on a thing has a higher fence than the last one.
    op.execute("create sequence operations_fence")
    op.execute("grant usage on sequence operations_fence to ff_system")
    # One active operation per thing: the lock of a workspace.
    op.execute("create unique index operations_active on operations (key) where status in ('queued', 'running')")
    op.execute("create index operations_due on operations (run_at) where status in ('queued', 'running')")
    op.execute("create index operations_finished on operations (finished_at) where finished_at is not null")
    op.execute("create index operations_of_key on operations (key, created_at)")
    # A user's request may order and cancel operations; how they go on is the worker's alone.
    tenant_table(op, "operations", app="select")
    op.execute("grant insert (id, user_id, kind, key, input, cancellable) on operations to ff_app")
    op.execute("grant update (cancel_requested, run_at, updated_at) on operations to ff_app")
    op.execute("""
        create function operations_notify() returns trigger language plpgsql set search_path = pg_catalog as $$
        begin
            perform pg_notify('operations', case
                when new.status = 'queued' then 'queued '
                when new.cancel_requested and not old.cancel_requested then 'cancel '
                else 'moved ' end || new.id);
            return null;
        end $$
    """)
    op.execute("create trigger operations_inserted after insert on operations for each row "
               "execute function operations_notify()")
    # Renewed leases are no news.
    op.execute("""
        create trigger operations_updated after update on operations for each row
        when ((old.status, old.step, old.direction, old.cancel_requested, old.error_code)
              is distinct from (new.status, new.step, new.direction, new.cancel_requested, new.error_code))
        execute function operations_notify()
    """)


def downgrade() -> None:
    raise NotImplementedError
