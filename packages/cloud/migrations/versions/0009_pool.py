"""The warm pool: anonymous VMs and what they were made with, suspension, capacity, demand; one id from request to operation."""

from alembic import op

from ff_cloud.kit.tenancy import system_table

revision = "0009"
down_revision = "0008"

_ME = "nullif(current_setting('app.user_id', true), '')::uuid"


def upgrade() -> None:
    op.execute("set local lock_timeout = '3s'")
    op.execute("""
        alter table workspaces
            add column last_saved_at timestamptz,
            add column last_checkpoint bigint not null default 0,
            add column turn_ended_at timestamptz
    """)
    op.execute("alter table plans add column vm_runtime text check (vm_runtime ~ '^[a-z0-9][a-z0-9._-]{0,39}$')")
    op.execute("comment on column plans.vm_runtime is 'OCI runtime of its VMs, such as runsc; null: the usual one, and the pool'")
    op.execute("""
        alter table vms
            add column desired text not null default 'RUNNING' check (desired in ('RUNNING', 'SUSPENDED', 'GONE')),
            add column image text,
            add column runtime text,
            add column memory_bytes bigint,
            add column cpus double precision,
            add column pids integer,
            add column disk_bytes bigint,
            add column admitted_at timestamptz,
            add column deadline_at timestamptz,
            add column warm_at timestamptz,
            add column suspended_at timestamptz,
            add column active_at timestamptz not null default now(),
            add column refused_image text
    """)
    # Forced row-level security hides rows from the owner; what runs already counts against the host's capacity.
    op.execute("alter table vms no force row level security")
    op.execute("update vms set admitted_at = created_at")
    op.execute("alter table vms force row level security")
    op.execute("create index vms_warm on vms (warm_at) where status = 'WARM'")
    op.execute("create index vms_unsettled on vms (id) where status in ('CREATING', 'WARM', 'CLAIMED', 'TERMINATING', 'FAILED')")
    # A user may take a warm VM that belongs to nobody, for himself and for nobody else, and nothing more of it.
    op.execute(f"create policy warm on vms for select to ff_app using (status = 'WARM' and user_id is null and {_ME} is not null)")
    op.execute(f"""
        create policy claim on vms for update to ff_app
        using (status = 'WARM' and user_id is null and {_ME} is not null)
        with check (status = 'CLAIMED' and user_id = {_ME})
    """)
    # The policy for all of a user's own rows allowed updates too, but the privilege was never given.
    op.execute("grant update (status, user_id, workspace_id, claimed_at, active_at, deadline_at) on vms to ff_app")

    op.execute("""
        create table pool_demand (
            minute timestamptz primary key,
            hits integer not null default 0,
            misses integer not null default 0
        )
    """)
    op.execute("comment on table pool_demand is 'Claims of each minute: hits found a warm VM. The adaptive pool size follows it'")
    system_table(op, "pool_demand")

    op.execute("""
        create table fleet (
            one boolean primary key default true check (one),
            draining boolean not null default false,
            refusing text,
            capacity jsonb not null default '{}',
            measured_at timestamptz
        )
    """)
    op.execute("""
        comment on table fleet is
        'The one row about all VMs: what an operator wants, what the machine has. refusing: the code of why nothing new is made'
    """)
    op.execute("insert into fleet default values")
    system_table(op, "fleet")
    op.execute("create policy everybody on fleet for select to ff_app using (true)")
    op.execute("grant select (one, draining, refusing) on fleet to ff_app")

    op.execute("alter table operations add column request_id text check (length(request_id) <= 64)")
    # An order may come later than now, and after steps that its request did by itself.
    op.execute("grant insert (run_at, step, step_name, request_id) on operations to ff_app")

    # One that is to begin later is no news yet: whoever hastens it tells.
    op.execute("drop trigger operations_inserted on operations")
    op.execute("create trigger operations_inserted after insert on operations for each row "
               "when (new.run_at <= clock_timestamp()) execute function operations_notify()")

    # Waiting requests and the pool hear of every VM that changes hands or state.
    op.execute("""
        create function vms_notify() returns trigger language plpgsql set search_path = pg_catalog as $$
        begin
            perform pg_notify('vms', new.status || ' ' || coalesce(new.workspace_id::text, '-'));
            return null;
        end $$
    """)
    op.execute("""
        create trigger vms_updated after update on vms for each row
        when (old.status is distinct from new.status or old.desired is distinct from new.desired)
        execute function vms_notify()
    """)


def downgrade() -> None:
    op.execute("drop trigger vms_updated on vms")
    op.execute("drop function vms_notify()")
    op.execute("drop trigger operations_inserted on operations")
    op.execute("create trigger operations_inserted after insert on operations for each row execute function operations_notify()")
    op.execute("revoke insert (run_at, step, step_name, request_id) on operations from ff_app")
    op.execute("alter table operations drop column request_id")
    op.execute("drop table fleet")
    op.execute("drop table pool_demand")
    op.execute("revoke update on vms from ff_app")
    op.execute("revoke update (status, user_id, workspace_id, claimed_at, active_at, deadline_at) on vms from ff_app")
    op.execute("drop policy claim on vms")
    op.execute("drop policy warm on vms")
    op.execute("drop index vms_unsettled, vms_warm")
    op.execute("delete from vms where user_id is null")
    op.execute("""
        alter table vms
            drop column desired, drop column image, drop column runtime, drop column memory_bytes, drop column cpus,
            drop column pids, drop column disk_bytes, drop column admitted_at, drop column deadline_at, drop column warm_at,
            drop column suspended_at, drop column active_at, drop column refused_image
    """)
    op.execute("alter table plans drop column vm_runtime")
    op.execute("alter table workspaces drop column last_saved_at, drop column last_checkpoint, drop column turn_ended_at")
