"""Migrations: Alembic, run from the program itself, by one process at a time.

The migrations lie in ``packages/cloud/migrations`` and in the wheel as ``ff_cloud/_migrations``. Write a new one with
``alembic revision --rev-id 0002 -m "what it does"`` in ``packages/cloud``; it is plain SQL or ``op``, run as the owner role.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import URL, Connection, NullPool, create_engine, text
from sqlalchemy.exc import DBAPIError, OperationalError

from ff_cloud.kit.db import parse_url
from ff_cloud.kit.errors import DatabaseUnavailable
from ff_cloud.kit.tenancy import OWNER_ROLE, ensure_roles

_ADVISORY_LOCK = 7_264_091
_CONNECT_TIMEOUT_S = 5


def migrate(url: URL | str, *, wait_s: int = 300, lock_timeout_s: int = 5) -> list[str]:
    """Bring the database to the newest revision and return the revisions that were applied; may be repeated and raced.

    Waits up to ``wait_s`` for another process that migrates, and inside a migration up to ``lock_timeout_s`` for each
    table. Each migration is one transaction. ``url`` must lead to PostgreSQL directly. Raises
    :class:`DatabaseUnavailable`, and :class:`DatabaseUnsafe` when the roles can't be set up. Blocks: call it in a thread.
    """
    with _connection(url) as connection:
        connection.execute(text(f"set lock_timeout = '{wait_s}s'"))
        connection.execute(text(f"select pg_advisory_lock({_ADVISORY_LOCK})"))
        connection.execute(text(f"set lock_timeout = '{lock_timeout_s}s'"))
        connection.commit()
        ensure_roles(connection)
        # For the whole session, so that Alembic's own table belongs to the owner too.
        connection.execute(text(f"set role {OWNER_ROLE}"))
        connection.commit()
        before = _missing(connection)
        config = _config()
        config.attributes["connection"] = connection
        command.upgrade(config, "head")
        return before


def pending(url: URL | str) -> list[str]:
    """The revisions the database lacks, oldest first. Raises :class:`DatabaseUnavailable`. Blocks."""
    with _connection(url) as connection:
        if connection.scalar(text("select 1 from pg_roles where rolname = :role"), {"role": OWNER_ROLE}):
            connection.execute(text(f"set role {OWNER_ROLE}"))
        return _missing(connection)


def revisions() -> list[str]:
    """All revisions that this program knows, oldest first. Reads files."""
    script = ScriptDirectory.from_config(_config())
    return [step.revision for step in script.walk_revisions()][::-1]


def _missing(connection: Connection) -> list[str]:
    script = ScriptDirectory.from_config(_config())
    have = MigrationContext.configure(connection).get_current_heads()
    connection.rollback()
    revisions = [step.revision for step in script.iterate_revisions("heads", have or "base")]
    return revisions[::-1]


def _config() -> Config:
    config = Config()
    config.set_main_option("script_location", str(_directory()).replace("%", "%%"))
    config.set_main_option("path_separator", "os")
    return config


def _directory() -> Path:
    package = Path(__file__).resolve().parents[1]
    source = package.parents[1] / "migrations"
    return source if (source / "env.py").exists() else package / "_migrations"


@contextmanager
def _connection(url: URL | str) -> Iterator[Connection]:
    # Closing the connection also gives back the advisory lock and the role.
    arguments = {"connect_timeout": _CONNECT_TIMEOUT_S, "application_name": "ff-cloud migrate"}
    engine = create_engine(parse_url(url), poolclass=NullPool, connect_args=arguments)
    try:
        with engine.connect() as connection:
            yield connection
    except OperationalError as error:
        raise DatabaseUnavailable(_sentence(error)) from error
    finally:
        engine.dispose()


def _sentence(error: DBAPIError) -> str | None:
    if getattr(error.orig, "sqlstate", None) == "55P03":
        return "Another process holds a lock that the migration needs; try again when it is done."
    return None
