"""The contract of a backend, held to the server's; ``packages/desktop/tests`` holds this machine's to the same list."""

import asyncio
from collections.abc import AsyncIterator, Callable

import pytest
import pytest_asyncio
from api_user import Accounts, new_id
from backend_contract import CHECKS, Place
from pydantic import SecretStr
from stack import Stack

from ff_core.contract.workspace import NewWorkspace, WorkspaceStatus, WorkspaceView
from ff_core.world import SystemWorld
from ff_desktop.address import Server
from ff_desktop.cloud import CloudBackend
from ff_desktop.connection import Connection

pytestmark = [pytest.mark.docker, pytest.mark.claude, pytest.mark.asyncio(loop_scope="session")]


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def place(stack: Stack, accounts: Accounts) -> AsyncIterator[Place]:
    url = await stack.git.create(f"contract-{new_id().hex[-8:]}", {"README.md": "# here\n"})
    async with accounts.lent() as user:
        token = SecretStr(user.http.headers["Authorization"].removeprefix("Bearer "))
        world = SystemWorld()

        def pause(seconds: float) -> None:
            asyncio.run(world.sleep(seconds))  # checks run in threads, one at a time

        connection = Connection(Server.parse(stack.url, insecure=True), token, sleep=pause)
        backend = CloudBackend(connection, world=world, sleep=pause)

        def make(name: str) -> WorkspaceView:
            made = backend.create(NewWorkspace(name=name, repo_url=url))
            while made.status not in {WorkspaceStatus.READY, WorkspaceStatus.FAILED}:
                pause(0.05)
                made = backend.workspace(made.id)
            return made

        yield Place(backend, make)
        await asyncio.to_thread(connection.close)


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
async def test_the_server(check: Callable[[Place], None], place: Place) -> None:
    await asyncio.to_thread(check, place)
