"""A real database for every test that asks for one."""

from collections.abc import AsyncIterator, Iterator

import pytest
import structlog

from ff_cloud.kit.db import Database
from ff_cloud.testing.postgres import PostgresForTests, postgres_for_tests


def pytest_configure() -> None:
    """Plain tracebacks: structlog's default draws each with all local variables, which takes seconds."""
    console = structlog.dev.ConsoleRenderer(exception_formatter=structlog.dev.plain_traceback)
    structlog.configure(processors=[structlog.processors.add_log_level, console])


@pytest.fixture(scope="session")
def postgres() -> Iterator[PostgresForTests]:
    """One cluster for this process; each pytest-xdist worker has its own."""
    with postgres_for_tests() as server:
        yield server


@pytest.fixture
async def db(postgres: PostgresForTests) -> AsyncIterator[Database]:
    """A fresh, migrated database."""
    async with postgres.database() as database:
        yield database
