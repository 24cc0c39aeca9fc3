"""A server that dies by SIGKILL in the middle of anything, with real containers: the next one brings everything to its end."""

import asyncio
import os
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import ExitStack, asynccontextmanager, suppress
from pathlib import Path
from uuid import UUID

import httpx2
import pytest
import pytest_asyncio
from api_user import Refused, User
from ground import Ground
from sqlalchemy import select
from stack import docker, scratch

from ff_cloud.kit.db import Database
from ff_cloud.operations.service import start
from ff_cloud.testing.postgres import PostgresForTests
from ff_cloud.testing.server import LISTENING, Running, own_environment, running, tail
from ff_cloud.testing.vm_image import image_running
from ff_cloud.vms.tables import vms
from ff_cloud.workspaces.kinds import UPGRADE
from ff_core.contract.workspace import VmStatus
from ff_core.ids import UserId
from ff_core.world import SystemWorld

pytestmark = [pytest.mark.docker, pytest.mark.asyncio(loop_scope="session")]

LIMIT_S = 60.0


class Mortal:
    """A server that dies where it is told to, and is started again over what it left."""

    def __init__(self, ground: Ground, settings: dict[str, str], folder: Path, url: str) -> None:
        self._ground = ground
        self._file = folder / "die-at"
        self._settings = settings
        self._environment = own_environment(
            settings | {"FF_DATABASE_URL": url, "FF_DATA_DIR": str(folder / "data"), "FF_PORT": "0", "FF_POOL_SIZE": "1"}
        )
        self._log = folder / "server.log"
        self._url = url
        self._life = ExitStack()
        self.server = self._start()
        self.user: User
        self.kept: UUID
        """A workspace that is there all the time."""
        self.lines = 0
        """So many were written in it."""

    def _start(self) -> Running:
        command = [sys.executable, "-m", "ff_cloud.testing.dying_server", str(self._file)]
        return self._life.enter_context(running(command, environment=self._environment, log=self._log, ready=LISTENING))

    def close(self) -> None:
        self._life.close()

    def start_again(self, *, image: str | None = None) -> None:
        """Over what it left; with another image from now on."""
        self.close()
        if image is not None:
            self._environment["FF_VM_IMAGE"] = image
        self.server = self._start()
        self.user.http.base_url = self.server.url

    async def dies(self, place: str, act: Callable[[], Awaitable[None]]) -> None:
        """Have it die at that place while ``act`` is done, which sees it go."""
        self._file.write_text(place)
        acting = asyncio.ensure_future(act())
        try:
            async with asyncio.timeout(LIMIT_S):
                while self._lives():
                    await asyncio.sleep(0.02)
        except TimeoutError:
            raise AssertionError(f"{place} was not reached:\n{tail(self._log)}") from None
        finally:
            with suppress(httpx2.TransportError):
                await acting
        self._file.unlink()
        self.start_again()

    def _lives(self) -> bool:
        with suppress(FileNotFoundError):
            return Path(f"/proc/{self.server.pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
        return False

    async def settled(self) -> None:
        """Everything is in order."""
        try:
            await self._ground.settled(self._url, self._settings, timeout_s=LIMIT_S)
        except AssertionError as error:
            raise AssertionError(f"{error}\n{tail(self._log, 60)}") from None

    @asynccontextmanager
    async def database(self) -> AsyncIterator[Database]:
        async with Database(self._url) as db:
            yield db

    async def write(self) -> None:
        self.lines += 1
        await self.user.shell(self.kept, f"echo {self.lines} >> ~/lines")

    async def asleep(self) -> None:
        await self.user.suspend(self.kept)
        async with asyncio.timeout(LIMIT_S):
            while (await self.user.workspace(self.kept)).vm.status != "SUSPENDED":
                await asyncio.sleep(0.05)

    async def warm(self) -> None:
        """Until a VM waits to be claimed."""
        async with self.database() as db, asyncio.timeout(LIMIT_S):
            while True:
                async with db.system_transaction() as tx:
                    if (await tx.execute(select(vms.c.id).where(vms.c.status == VmStatus.WARM))).first() is not None:
                        return
                await asyncio.sleep(0.05)

    async def order(self) -> None:
        await self.user.order()

    async def order_many(self) -> None:
        """More than are warm: the others are made."""
        answers = await asyncio.gather(*(self.user.order() for _ in range(3)), return_exceptions=True)
        assert all(not isinstance(answer, Refused) for answer in answers), answers

    async def suspend(self) -> None:
        await self.user.suspend(self.kept)

    async def look_inside(self) -> None:
        """Wakes it."""
        with suppress(Refused):
            await self.user.run(self.kept, "true")

    async def upgrade(self) -> None:
        async with self.database() as db, db.system_transaction() as tx:
            owner = UserId(UUID((await self.user.call("GET", "/v1/me"))["id"]))
            await start(tx, UPGRADE, key=str(self.kept), user_id=owner, input={"force": True}, world=SystemWorld())

    async def lose_container(self) -> None:
        vm = (await self.user.workspace(self.kept)).vm
        docker("kill", f"ff-{self._settings['FF_DEPLOYMENT']}-{vm.id}")

    async def delete_another(self) -> None:
        others = [each["id"] for each in await self.workspaces() if each["id"] != str(self.kept)]
        await self.user.call("DELETE", f"/v1/workspaces/{others[0]}")

    async def workspaces(self) -> list[dict]:
        found = await self.user.call("GET", "/v1/workspaces")
        return list(found["items"])


@pytest.fixture(scope="module")
def newer() -> Iterator[str]:
    """An image that is not the one things begin with."""
    with image_running(["/opt/ff/bin/ff-daemon"]) as tag:
        yield tag


@pytest.fixture(scope="module")
def life(ground: Ground, real_postgres: PostgresForTests, newer: str) -> Iterator[Mortal]:
    with ExitStack() as exits:
        settings = exits.enter_context(ground.deployment("d"))
        url = real_postgres.create_database().render_as_string(hide_password=False)
        mortal = Mortal(ground, settings, exits.enter_context(scratch()), url)
        exits.callback(mortal.close)
        yield mortal


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def mortal(life: Mortal) -> AsyncIterator[Mortal]:
    async with User.sign_up(life.server.url) as life.user:
        life.kept = (await life.user.ready(name="kept")).id
        await life.user.ready(name="to be deleted")
        await life.write()
        await life.settled()
        yield life


ORDER, MANY, SUSPEND, WAKE, UPGRADES = Mortal.order, Mortal.order_many, Mortal.suspend, Mortal.look_inside, Mortal.upgrade
MORE = [
    ("claim:before_bind", ORDER),
    ("provision:bind:do:before_commit", MANY),
    ("provision:repository:do:after_effect", MANY),
]
"""Tried by ``make soak`` only. With daemons as processes ``test_crash_points`` tries the claim and the effects always."""
PLACES = [
    ("warm:container:do:after_effect", ORDER),
    ("claim:after_bind", ORDER),
    ("provision:container:do:after_effect", MANY),
    *(MORE if os.environ.get("FF_SOAK_S") else ()),
    ("suspend:stop:do:after_effect", SUSPEND),
    ("wake:container:do:after_effect", WAKE),
    ("upgrade:renew:do:after_commit", UPGRADES),
    ("revive:container:do:after_effect", Mortal.lose_container),
    ("terminate:remove:do:after_effect", Mortal.delete_another),
]


@pytest.mark.parametrize(("place", "act"), PLACES, ids=[place for place, _ in PLACES])
async def test_what_a_server_left_that_died_is_brought_to_its_end(
    place: str, act: Callable[[Mortal], Awaitable[None]], mortal: Mortal, newer: str
) -> None:
    if act is WAKE:
        await mortal.asleep()
    if place.startswith("claim:"):
        await mortal.warm()
    if act is UPGRADES:
        mortal.start_again(image=newer)
    known = {each["id"] for each in await mortal.workspaces()}
    await mortal.dies(place, lambda: act(mortal))
    await mortal.settled()
    left = {each["id"]: each for each in await mortal.workspaces()}
    assert {each["status"] for each in left.values()} == {"READY"}
    assert len(known - left.keys()) == (1 if act is Mortal.delete_another else 0)
    for workspace_id in left.keys() - known:
        assert await mortal.user.shell(UUID(workspace_id), "git rev-parse --is-inside-work-tree") == "true\n"
    assert await mortal.user.shell(mortal.kept, "cat ~/lines") == "".join(f"{n + 1}\n" for n in range(mortal.lines))
    await mortal.write()
    surplus = sorted(left.keys() - {str(mortal.kept)})[1:]
    await asyncio.gather(*(mortal.user.delete(UUID(workspace_id)) for workspace_id in surplus))
    await mortal.settled()


async def test_an_upgrade_to_the_image_it_has_leaves_it_serving(mortal: Mortal) -> None:
    """As one that was ordered by a worker with another image."""
    await mortal.upgrade()
    await mortal.settled()
    assert await mortal.user.shell(mortal.kept, "cat ~/lines") == "".join(f"{n + 1}\n" for n in range(mortal.lines))
