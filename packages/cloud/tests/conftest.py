"""A real database for every test that asks for one."""

from collections.abc import AsyncIterator, Iterator

import pytest

from ff_cloud.kit.db import Database
from ff_cloud.testing.postgres import PostgresForTests, postgres_for_tests


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
