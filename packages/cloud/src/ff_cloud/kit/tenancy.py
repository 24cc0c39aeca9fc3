"""Tenants are kept apart by PostgreSQL itself: roles, row-level security, and the check that both are in place.

Three roles that nobody logs in with. The login of the database URL is a member of each and takes one on per transaction:

* ``ff_owner`` owns the tables and runs migrations. ``FORCE`` makes the policies bind it too.
* ``ff_app`` serves users: it sees rows whose ``user_id`` is the transaction's ``app.user_id``, and none without one.
* ``ff_system`` serves the server itself through a policy of its own, which works where BYPASSRLS is not to be had.

This guards against a forgotten WHERE. It does not guard against arbitrary SQL: whoever can run that can also set
``app.user_id``. So SQL is never made of user input.
"""

from typing import Any, Protocol

import structlog
from sqlalchemy import Connection, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncConnection

from ff_cloud.kit.errors import DatabaseUnsafe

log = structlog.get_logger(__name__)

OWNER_ROLE = "ff_owner"
APP_ROLE = "ff_app"
SYSTEM_ROLE = "ff_system"
ROLES = (OWNER_ROLE, APP_ROLE, SYSTEM_ROLE)

_MINE = "user_id = nullif(current_setting('app.user_id', true), '')::uuid"
# After a transaction that set it, the setting is '' and not NULL: hence nullif.

UNPROTECTED_TABLES = text("""
    select c.relname
    from pg_class c
    join pg_namespace n on n.oid = c.relnamespace
    join pg_attribute a on a.attrelid = c.oid and a.attname = 'user_id' and not a.attisdropped
    where c.relkind in ('r', 'p') and n.nspname = 'public'
      and not (c.relrowsecurity and c.relforcerowsecurity
               and exists (select from pg_policy p where p.polrelid = c.oid))
    order by c.relname
""")
"""The tables that have a ``user_id`` and lack enabled and forced row-level security with a policy. Must be empty."""

_FAULTS = (
    "is a superuser",
    "bypasses row-level security",
    "owns tables",
    f"may become {OWNER_ROLE}",
    "is not open to this login: run `ff-cloud migrate`",
)
_ROLES_QUERY = text("""
    select r.rolname, r.rolsuper, r.rolbypassrls,
           exists (select from pg_class c where c.relowner = r.oid) as owns,
           exists (select from pg_roles o where o.rolname = :owner and pg_has_role(r.oid, o.oid, 'MEMBER')) as owner,
           not pg_has_role(session_user, r.oid, 'MEMBER') as closed
    from pg_roles r where r.rolname = any(:roles)
""")

_BECOME_SCHEMA_OWNER = text("""
    select set_config('role', r.rolname, true)
    from pg_namespace n join pg_roles r on r.oid = n.nspowner
    where n.nspname = 'public' and pg_has_role(current_user, r.oid, 'MEMBER')
""")


class Migration(Protocol):
    """What the helpers below need of Alembic's ``op``."""

    def execute(self, sqltext: str) -> Any:
        """Run one statement."""
        ...


def tenant_table(op: Migration, name: str, *, app: str = "select, insert, update, delete") -> None:
    """Protect the table ``name``, which has a ``user_id uuid`` column; call it right after creating the table.

    ``app`` lists the privileges of requests made for a user; the system always has all four. Rows whose ``user_id``
    is null belong to the server, and no user sees them.
    """
    system_table(op, name)
    op.execute(f"create policy tenant on {name} for all to {APP_ROLE} using ({_MINE}) with check ({_MINE})")
    op.execute(f"grant {app} on {name} to {APP_ROLE}")


def system_table(op: Migration, name: str) -> None:
    """Protect the table ``name`` so that only system transactions see it."""
    op.execute(f"alter table {name} enable row level security")
    op.execute(f"alter table {name} force row level security")
    op.execute(f"create policy system on {name} for all to {SYSTEM_ROLE} using (true) with check (true)")
    op.execute(f"grant select, insert, update, delete on {name} to {SYSTEM_ROLE}")


def ensure_roles(connection: Connection) -> None:
    """Make the roles, and this login a member of each, where that is not so yet; may be repeated and raced.

    Roles belong to the whole server and not to one database, so they are not part of a migration: a dump restored
    elsewhere finds them missing. Raises :class:`DatabaseUnsafe` with the statements for an administrator when this login
    may not do it.
    """
    modern = connection.scalar(text("select current_setting('server_version_num')::int >= 160000"))
    # Without inheritance a query outside of a transaction of ours has the rights of none of the roles.
    options = " with inherit false, set true" if modern else ""
    held = text("select pg_has_role(current_user, cast(:role as name), :how)")
    may = text("select has_schema_privilege(cast(:role as name), 'public', :privilege)")
    statement = ""
    try:
        for role in ROLES:
            if connection.scalar(text("select 1 from pg_roles where rolname = :role"), {"role": role}) is None:
                statement = f"create role {role} nologin nosuperuser nobypassrls nocreatedb nocreaterole"
                # A migration of another database in the same server may do the same right now.
                race = "exception when duplicate_object or unique_violation then null;"
                connection.execute(text(f"do $$ begin {statement}; {race} end $$"))
            if not connection.scalar(held, {"role": role, "how": "SET" if modern else "MEMBER"}):
                statement = f"grant {role} to current_user{options}"
                connection.execute(text(statement))
            for privilege in ("usage", "create") if role == OWNER_ROLE else ("usage",):
                if not connection.scalar(may, {"role": role, "privilege": privilege}):
                    statement = f"grant {privilege} on schema public to {role}"
                    # A login that inherits nothing has to become the schema's owner to grant. It may not be allowed to:
                    # then the grant fails, or does nothing but warn.
                    connection.execute(_BECOME_SCHEMA_OWNER)
                    connection.execute(text(statement))
                    connection.execute(text("set local role none"))
                    if not connection.scalar(may, {"role": role, "privilege": privilege}):
                        raise DatabaseUnsafe(_ask(statement))
    except DBAPIError as error:
        connection.rollback()
        raise DatabaseUnsafe(_ask(statement)) from error
    connection.commit()


def _ask(statement: str) -> str:
    return (
        f"The database's login may not run `{statement}`; ask an administrator to run that, with the login's "
        f"name in place of current_user, and the like for the roles {', '.join(ROLES)}."
    )


async def require_safe_roles(connection: AsyncConnection) -> None:
    """Refuse a database in which tenants would not be kept apart; ask at start, with the bare login.

    Raises :class:`DatabaseUnsafe` with everything that is wrong. Warns when the login is a superuser.
    """
    wrong: list[str] = []
    rows = await connection.execute(_ROLES_QUERY, {"roles": [APP_ROLE, SYSTEM_ROLE], "owner": OWNER_ROLE})
    seen = {row.rolname: row for row in rows}
    for role in (APP_ROLE, SYSTEM_ROLE):
        if role not in seen:
            wrong.append(f"the role {role} is missing: run `ff-cloud migrate`")
            continue
        facts = seen[role]
        wrong += [f"the role {role} {what}" for what, so in zip(_FAULTS, facts[1:6], strict=True) if so]
    tables = (await connection.scalars(UNPROTECTED_TABLES)).all()
    wrong += [f"the table {table} has a user_id and no forced row-level security" for table in tables]
    if wrong:
        raise DatabaseUnsafe(f"The database would not keep tenants apart: {'; '.join(wrong)}.")
    if await connection.scalar(text("select rolsuper from pg_roles where rolname = session_user")):
        log.warning("database.login_is_superuser", advice="give FF_DATABASE_URL a login without SUPERUSER")
