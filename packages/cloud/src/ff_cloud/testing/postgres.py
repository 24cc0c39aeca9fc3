"""A real PostgreSQL for tests: one cluster per test process, a fresh migrated database per test in milliseconds."""

import asyncio
import itertools
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

import psycopg
from psycopg import sql
from sqlalchemy import URL

from ff_cloud.kit.db import Database, libpq_arguments
from ff_cloud.kit.migrate import migrate
from ff_cloud.kit.postgres import LOGIN, EmbeddedPostgres

_TEMPLATE = "ff_template"
_NOT_DURABLE = {"fsync": "off", "full_page_writes": "off", "synchronous_commit": "off", "autovacuum": "off"}


class PostgresForTests:
    """A running cluster with a migrated template database."""

    def __init__(self, server: EmbeddedPostgres) -> None:
        self.server = server
        self._count = itertools.count(1)

    def create_database(self, *, migrated: bool = True) -> URL:
        """Make a database of its own and return its URL, with the server's login."""
        name = f"test_{next(self._count)}"
        # As files, and not through the log: half the work, since nothing here waits for a disk.
        copied = "create database {} owner {} template {} strategy file_copy"
        self._run(copied, name, LOGIN, _TEMPLATE if migrated else "template0")
        return self.server.url().set(database=name)

    def drop_database(self, url: URL) -> None:
        """Remove a database, cutting whoever is still connected."""
        self._run("drop database {} with (force)", str(url.database))

    def admin_url(self, url: URL) -> URL:
        """The superuser's URL of the same database."""
        return self.server.admin_url(str(url.database))

    @asynccontextmanager
    async def database(self, *, pool_max: int = 10) -> AsyncIterator[Database]:
        """An open, migrated :class:`Database` of its own for the length of the block."""
        url = await asyncio.to_thread(self.create_database)
        try:
            async with Database(url, pool_max=pool_max) as database:
                yield database
        finally:
            await asyncio.to_thread(self.drop_database, url)

    def _run(self, statement: str, *names: str) -> None:
        with psycopg.connect(**libpq_arguments(self.server.admin_url()), autocommit=True) as connection:
            connection.execute(sql.SQL(statement).format(*map(sql.Identifier, names)))


@contextmanager
def postgres_for_tests() -> Iterator[PostgresForTests]:
    """Run a cluster in a temporary directory; about two seconds to start. It forgets all in a power cut."""
    with tempfile.TemporaryDirectory(prefix="ff-pg-", ignore_cleanup_errors=True) as directory:
        server = EmbeddedPostgres(Path(directory), settings=_NOT_DURABLE)
        server.start()
        try:
            postgres = PostgresForTests(server)
            template = server.url().set(database=_TEMPLATE)
            postgres._run("create database {} owner {}", _TEMPLATE, LOGIN)  # noqa: SLF001  (its own module)
            migrate(template)
            yield postgres
        finally:
            server.stop()
