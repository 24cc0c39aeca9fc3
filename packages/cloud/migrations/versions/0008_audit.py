"""The audit log."""

from alembic import op

from ff_cloud.kit.tenancy import tenant_table

revision = "0008"
down_revision = "0007"


def upgrade() -> None:
    op.execute("set local lock_timeout = '3s'")
    op.execute("""
        create table audit_log (
            id uuid primary key,
            user_id uuid references users (id) on delete cascade,  -- null: nobody is known
            at timestamptz not null,
            action text not null check (length(action) <= 100),
            outcome text not null check (outcome in ('ok', 'refused')),
            address text,
            user_agent text check (length(user_agent) <= 200),
            request_id text,
            detail jsonb not null
        )
    """)
    op.execute("create index audit_log_of_user on audit_log (user_id, at desc, id)")
    op.execute("create index audit_log_at on audit_log (at)")
    # No request can change or remove what was recorded, and the server itself can only forget what is old.
    tenant_table(op, "audit_log", app="select, insert")
    op.execute("revoke update on audit_log from ff_system")
    # When an account is deleted its row is gone before the cascade comes here.
    op.execute("""
        create function audit_log_stays() returns trigger language plpgsql as $$
        begin
            if old.at > clock_timestamp() - interval '90 days'
               and (old.user_id is null or exists (select from users where id = old.user_id)) then
                raise exception 'the audit log is append-only' using errcode = 'insufficient_privilege';
            end if;
            return old;
        end $$
    """)
    op.execute("create trigger audit_log_stays before delete on audit_log for each row execute function audit_log_stays()")


def downgrade() -> None:
    op.execute("drop table audit_log")
    op.execute("drop function audit_log_stays()")
