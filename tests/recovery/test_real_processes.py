"""SIGKILL for the worker, the API, PostgreSQL, the daemon and the container, each in the middle of something."""

import asyncio
import os
import re
import signal
import subprocess
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path

import pytest
import pytest_asyncio
from api_user import Refused, User
from ground import Ground
from stack import docker, scratch

from ff_cloud.kit.postgres import EmbeddedPostgres
from ff_cloud.testing.postgres import PostgresForTests
from ff_cloud.testing.server import LISTENING, Running, own_environment, program, running, running_server
from ff_core.contract.workspace import WorkspaceView

pytestmark = [pytest.mark.docker, pytest.mark.asyncio(loop_scope="session")]

WORKING = re.compile(r"^(working)\n", re.MULTILINE)
GATEWAY = re.compile(r"^gateway +(http://\S+)\n", re.MULTILINE)
LIMIT_S = 60.0


async def vm_is(user: User, workspace: WorkspaceView, status: str) -> None:
    async with asyncio.timeout(LIMIT_S):
        while (await user.workspace(workspace.id)).vm.status != status:
            await asyncio.sleep(0.05)


async def test_a_worker_and_an_api_die_and_others_go_on(ground: Ground, real_postgres: PostgresForTests) -> None:
    with ExitStack() as exits:
        settings = exits.enter_context(ground.deployment("a"))
        folder = exits.enter_context(scratch())
        url = real_postgres.create_database().render_as_string(hide_password=False)
        more = {"FF_DATABASE_URL": url, "FF_DATA_DIR": str(folder / "data"), "FF_PORT": "0"}
        environment = own_environment(settings | more)

        def start(what: str, number: int, ready: re.Pattern[str]) -> Running:
            log = folder / f"{what}{number}.log"
            return exits.enter_context(running([program("ff-cloud"), what], environment=environment, log=log, ready=ready))

        environment["FF_GATEWAY_URL"] = start("gateway", 0, GATEWAY).url
        apis = [start("api", number, LISTENING) for number in range(2)]
        worker = start("worker", 0, WORKING)
        async with User.sign_up(apis[0].url) as user:
            kept = await user.ready()
            await user.shell(kept.id, "echo kept > ~/file")
            ordered = await user.order()
            await user.suspend(kept.id)
            os.kill(worker.pid, signal.SIGKILL)
            os.kill(apis[0].pid, signal.SIGKILL)
            start("worker", 1, WORKING)
            user.http.base_url = apis[1].url
            assert (await user.run(ordered.id, "echo", "hi")).stdout == b"hi\n"
            assert (await user.settled(ordered.id)).status == "READY"
            await vm_is(user, kept, "SUSPENDED")
            await ground.settled(url, settings)
            assert await user.shell(kept.id, "cat ~/file") == "kept\n"
            await ground.settled(url, settings)


@dataclass(frozen=True)
class Whole:
    """A server with everything inside."""

    settings: dict[str, str]
    postgres: EmbeddedPostgres
    url: str
    ground: Ground
    log: Path

    async def settled(self) -> None:
        try:
            await self.ground.settled(self.postgres.url().render_as_string(hide_password=False), self.settings)
        except AssertionError as error:
            raise AssertionError(f"{error}\n{self.log.read_text()[-6000:]}") from error

    def kill(self, what: str, workspace: WorkspaceView) -> None:
        name = f"ff-{self.settings['FF_DEPLOYMENT']}-{workspace.vm.id}"
        # Either may have ended by itself, when it is stopping.
        with suppress(subprocess.CalledProcessError):
            docker("kill", name) if what == "container" else docker("exec", name, "pkill", "-KILL", "-f", "ff-daemon")


@pytest.fixture(scope="module")
def whole(ground: Ground) -> Iterator[Whole]:
    with ExitStack() as exits:
        settings = exits.enter_context(ground.deployment("w")) | {"FF_POOL_SIZE": "2"}
        folder = exits.enter_context(scratch())
        server = exits.enter_context(running_server(folder, settings))
        yield Whole(settings, EmbeddedPostgres(folder / "data" / "postgres"), server.url, ground, server.log)


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def admin(whole: Whole) -> AsyncIterator[User]:
    async with User.sign_up(whole.url) as user:
        yield user


async def test_postgres_dies_while_workspaces_are_made(whole: Whole, admin: User) -> None:
    ordered = [await admin.order() for _ in range(3)]
    pid = whole.postgres.pid
    assert pid is not None
    os.kill(pid, signal.SIGKILL)
    async with asyncio.timeout(LIMIT_S):
        for each in ordered:
            while True:
                with suppress(Refused):
                    assert (await admin.settled(each.id)).status == "READY"
                    break
                await asyncio.sleep(0.1)
    await whole.settled()
    for each in ordered:
        assert (await admin.run(each.id, "echo", "hi")).stdout == b"hi\n"
        await admin.delete(each.id)


@pytest.mark.parametrize("what", ["daemon", "container"])
async def test_what_serves_a_workspace_dies_just_after_its_claim(what: str, whole: Whole, admin: User) -> None:
    await whole.settled()
    workspace = await admin.order()
    whole.kill(what, workspace)
    found = await admin.settled(workspace.id)
    assert found.status == "READY", found
    await whole.settled()
    assert (await admin.run(workspace.id, "echo", "hi")).stdout == b"hi\n"
    await admin.delete(workspace.id)


@pytest.mark.claude
@pytest.mark.parametrize("what", ["daemon", "container"])
async def test_what_serves_a_workspace_dies_during_a_turn_a_suspend_and_a_wake(what: str, whole: Whole, admin: User) -> None:
    workspace = await admin.ready()
    await admin.shell(workspace.id, "echo kept > ~/file")
    session = await admin.session(workspace.id, permissions="YOLO")
    async with admin.watch(workspace.id) as heard:
        await admin.say(session.id, "%stream 6000 60")
        await heard.until(lambda h: len(h.of("message.user")) == 1)
        queued = await admin.say(session.id, "%say afterwards")
        whole.kill(what, workspace)
        turns = await heard.until(lambda h: [turn for turn in h.of("turn.finished") if queued.id in turn.message_ids])
        assert turns[0].outcome == "done"
        assert [turn.outcome != "done" for turn in heard.of("turn.finished")] == [True, False]
        assert [event.seq for event in heard.events] == list(range(1, len(heard.events) + 1))
    await whole.settled()

    await admin.suspend(workspace.id)
    whole.kill(what, workspace)
    await whole.settled()  # asleep, or it was revived
    assert await admin.shell(workspace.id, "cat ~/file") == "kept\n"

    await whole.settled()
    await admin.suspend(workspace.id)
    await vm_is(admin, workspace, "SUSPENDED")
    waking = asyncio.create_task(admin.call("GET", f"/v1/workspaces/{workspace.id}/repository"))
    name = f"ff-{whole.settings['FF_DEPLOYMENT']}-{workspace.vm.id}"
    async with asyncio.timeout(LIMIT_S):
        while not docker("ps", "-q", "--filter", f"name={name}"):
            await asyncio.sleep(0.02)
    whole.kill(what, workspace)
    with suppress(Refused):
        await waking
    await whole.settled()
    assert await admin.shell(workspace.id, "cat ~/file") == "kept\n"
    await admin.delete(workspace.id)
