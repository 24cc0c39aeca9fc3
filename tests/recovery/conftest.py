"""What all tests here share that kill parts of real servers."""

from collections.abc import AsyncIterator, Iterator

import pytest
import pytest_asyncio
from ground import Ground

from ff_cloud.testing.postgres import PostgresForTests, postgres_for_tests
from ff_cloud.testing.vm_network import vm_network
from ff_core.testing.model_api import ModelApi


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def ground() -> AsyncIterator[Ground]:
    async with vm_network(purpose="recovery") as network, ModelApi(host=network.gateway) as model:
        yield Ground(network, model)


@pytest.fixture(scope="session")
def real_postgres() -> Iterator[PostgresForTests]:
    with postgres_for_tests() as postgres:
        yield postgres
