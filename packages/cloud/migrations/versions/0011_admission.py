"""What every request begins with, in one statement: is its session still good, may its account act, how often did it ask?"""

from alembic import op

revision = "0011"
down_revision = "0010"


def upgrade() -> None:
    op.execute("set local lock_timeout = '3s'")
    # GCRA; see ff_cloud.kit.limits. Everybody locks rows in the same order, so that no two wait for each other. Rows whose
    # time has passed say nothing: each count writes a few rows and removes more, so the table stays small.
    op.execute("""
        create function rate_limits_take(p_now timestamptz, p_keys text[], p_every interval[], p_slack interval[])
        returns text[] language plpgsql set search_path = pg_catalog, public as $$
        declare
            passed text[];
        begin
            with swept as (
                delete from rate_limits where key in (
                    select key from rate_limits where tat < p_now and key <> all(p_keys)
                    order by tat limit 10 for update skip locked
                )
            ), asked as (
                select * from unnest(p_keys, p_every, p_slack) as each (key, every, slack) order by key
            ), counted as (
                insert into rate_limits as r (key, tat) select key, p_now + every from asked
                on conflict (key) do update
                set tat = greatest(r.tat, p_now) + (select every from asked where asked.key = excluded.key)
                where greatest(r.tat, p_now) - p_now <= (select slack from asked where asked.key = excluded.key)
                returning key
            )
            select coalesce(array_agg(key), '{}') into passed from counted;
            return passed;
        end $$
    """)
    op.execute("comment on function rate_limits_take is 'Counts once at each gate that is open, and says which those are'")
    # A closed gate is an error, so that what was counted at the others is undone.
    op.execute("""
        create function auth_sessions_admit(
            p_session uuid, p_user uuid, p_now timestamptz, p_idle_since timestamptz,
            p_keys text[], p_every interval[], p_slack interval[]
        ) returns table (scopes text[], last_used_at timestamptz, is_admin boolean, enabled boolean)
        language plpgsql set search_path = pg_catalog, public as $$
        #variable_conflict use_column
        declare
            passed text[];
            closed text;
        begin
            select s.scopes, s.last_used_at, coalesce(u.is_admin, false), u.id is not null and u.disabled_at is null
            into scopes, last_used_at, is_admin, enabled
            from auth_sessions s left join users u on u.id = s.user_id
            where s.id = p_session and s.user_id = p_user
              and s.revoked_at is null and s.expires_at > p_now and s.last_used_at > p_idle_since;
            if not found then
                return;
            end if;
            if enabled then
                passed := rate_limits_take(p_now, p_keys, p_every, p_slack);
                select min(gate) into closed from unnest(p_keys) gate where gate <> all(passed);
                if closed is not null then
                    raise exception using errcode = 'P0429', message = 'closed: ' || closed;
                end if;
            end if;
            return next;
        end $$
    """)
    op.execute("comment on function auth_sessions_admit is 'The session, if it goes on; error P0429 when a gate is closed'")
    for function in ("rate_limits_take", "auth_sessions_admit"):
        op.execute(f"revoke execute on function {function} from public")
        op.execute(f"grant execute on function {function} to ff_system")


def downgrade() -> None:
    op.execute("drop function auth_sessions_admit")
    op.execute("drop function rate_limits_take")
