"""Everything real but the model: a server process, its PostgreSQL, Docker, git, the Claude CLI in the VMs.

One stack per pytest process; each test makes its own users and workspaces in it. A test that must break something
shared starts a server of its own, with ``running_server``.
"""

from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack
from pathlib import Path
from urllib.parse import urlsplit

import pytest
import pytest_asyncio
from api_user import Accounts, User
from stack import MODEL_KEY, Stack, free_port, scratch

from ff_cloud.testing.server import running_server, tail
from ff_cloud.testing.vm_network import vm_network
from ff_cloud.vms.image import LATEST
from ff_core.testing.git_server import GitServer
from ff_core.testing.model_api import ModelApi

LONGEST = {"test_apart.py", "test_demo.py", "test_handoff.py", "test_handoff_cases.py", "test_sleep.py"}


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def stack(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Stack]:
    async with AsyncExitStack() as exits:
        network = await exits.enter_async_context(vm_network(purpose="e2e"))
        model = await exits.enter_async_context(ModelApi(host=network.gateway))
        git = await exits.enter_async_context(GitServer(tmp_path_factory.mktemp("repositories"), host=network.gateway))
        spare = free_port(network.gateway)
        settings = {
            "FF_DEPLOYMENT": network.deployment,
            # VMs reach nothing of this machine but the gateway; these git servers are asked without it.
            "FF_VM_EGRESS_ALLOW": f"{urlsplit(git.origin).netloc},{network.gateway}:{spare}",
            "FF_MODEL_BASE_URL": model.url,
            "FF_MODEL_API_KEY": MODEL_KEY,
            "FF_ALLOW_PLAIN_HTTP_REPOS": "1",
            "FF_HEALTH_INTERVAL_S": "1",
            "FF_SWEEP_INTERVAL_S": "1",
            "FF_POOL_SIZE": "1",
            "FF_VM_IMAGE": LATEST,
        }
        folder = exits.enter_context(scratch())
        server = exits.enter_context(running_server(folder, settings))
        yield Stack(network, model, git, spare, server, settings)


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def accounts(stack: Stack) -> AsyncIterator[Accounts]:
    async with AsyncExitStack() as exits:
        yield Accounts(stack.url, exits)


@pytest_asyncio.fixture(loop_scope="session")
async def user(accounts: Accounts) -> AsyncIterator[User]:
    async with accounts.lent() as somebody:
        yield somebody


@pytest_asyncio.fixture(loop_scope="session")
async def stranger(accounts: Accounts) -> AsyncIterator[User]:
    async with accounts.lent() as somebody:
        yield somebody


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """What is here comes last, since its server runs until all is over; of it the longest files first, so that no process has to
    wait for one that begins last.
    """
    own = Path(__file__).parent
    items.sort(key=lambda item: 0 if item.path.parent != own else 1 if item.path.name in LONGEST else 2)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Iterator[pytest.TestReport]:
    """A failure shows the end of the server's log."""
    report: pytest.TestReport = yield
    stack = getattr(item, "funcargs", {}).get("stack")
    if report.failed and stack is not None:
        report.sections.append(("server log", tail(stack.server.log, 40)))
    return report
