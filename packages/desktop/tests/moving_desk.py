"""A desktop whose handoffs run in the test's own process, with real repositories, against any server."""

import asyncio
import os
import subprocess
from contextlib import contextmanager
from pathlib import Path
from uuid import UUID

from pydantic import SecretStr

from ff_core.contract.handoff import DesktopRef
from ff_core.contract.local import BeginHandoff, LocalStatus, NewProject
from ff_core.contract.places import Direction, Location
from ff_core.contract.plain import WorkspaceStatus
from ff_core.handoff import landing
from ff_core.handoff import pack as packing
from ff_core.handoff.service import Handoffs
from ff_core.handoff.settle import settle
from ff_core.handoff.unpack import unpack
from ff_core.host import Host
from ff_core.ids import DesktopId, HandoffId, WorkspaceId
from ff_core.settings import HostSettings
from ff_core.workspaces import repository as workspaces
from ff_core.world import SystemWorld
from ff_desktop.address import Server
from ff_desktop.connection import Connection
from ff_desktop.handoffs.home import Home
from ff_desktop.handoffs.service import DesktopHandoffs

URL = "https://git.example.com/proj.git"
DONE, FAILED, ABORTED, STOPPED = LocalStatus.DONE, LocalStatus.FAILED, LocalStatus.ABORTED, LocalStatus.STOPPED


class Quick(SystemWorld):
    """Waits are short."""

    async def sleep(self, seconds):
        await asyncio.sleep(min(seconds, 0.02))


class Here(Handoffs):
    """Packs in this process: a program of its own for each order takes longer than all the rest."""

    class packer:  # noqa: N801
        @staticmethod
        async def survey(order, **_):
            return await asyncio.to_thread(packing.survey, order, _ignore)

        @staticmethod
        async def pack(order, **_):
            return await asyncio.to_thread(packing.pack, order, _ignore)

        @staticmethod
        async def unpack(order, **_):
            return await asyncio.to_thread(unpack, order, _ignore)

        @staticmethod
        async def settle(order, **_):
            return await asyncio.to_thread(settle, order)

        @staticmethod
        async def look(order, **_):
            return await asyncio.to_thread(landing.fingerprint_of, order, _ignore)

        @staticmethod
        async def obstacles(order, **_):
            return await asyncio.to_thread(landing.obstacles, order)

        @staticmethod
        async def land(order, **_):
            return await asyncio.to_thread(landing.land, order, _ignore)


def _ignore(_):
    return None


class Silent:
    """An agent that takes a prompt, and works at it until it is interrupted."""

    def __init__(self, spec):
        self.closed = asyncio.Event()

    @classmethod
    async def start(cls, spec):
        return cls(spec)

    async def facts(self):
        await self.closed.wait()
        return
        yield

    async def send(self, message_id, text):
        pass

    async def interrupt(self):
        self.closed.set()

    async def close(self):
        self.closed.set()


class Died(BaseException):
    pass


class Desk:
    """A desktop with a project, over a server. ``start`` is what ``ff serve`` does when it begins."""

    def __init__(self, folder: Path, url: str, remote: Path, *, name: str = "laptop") -> None:
        self.folder, self.url, self.name = folder, url, name
        folder.mkdir()
        home = folder / "home"
        home.mkdir()
        self.environment = {**os.environ, "HOME": str(home), "GIT_CONFIG_GLOBAL": str(home / ".gitconfig")}
        self.git(folder, "config", "--global", "user.name", "Ada")
        self.git(folder, "config", "--global", "user.email", "ada@example.com")
        self.git(folder, "config", "--global", f"url.{remote}.insteadOf", URL)
        self.git(folder, "clone", "-q", URL, "proj")
        self.key = "a-key"
        self.crash = lambda _: None
        self.handoffs: DesktopHandoffs

    def git(self, where: Path, *words: str) -> str:
        done = subprocess.run(["git", *words], cwd=where, env=self.environment, check=True, capture_output=True, text=True)
        return done.stdout.strip()

    async def open(self) -> None:
        settings = HostSettings.from_env(self.environment, data=self.folder / "data", home=self.folder / "home")
        self.host = await Host.open(settings, Quick(), backends=Silent.start)
        self.project = await self.host.add_project(NewProject(path=str(self.folder / "proj")))
        self.start()

    def start(self, *, real: bool = False) -> None:
        host = self.host
        parts = {
            "store": host.store,
            "journal": host.journal,
            "world": host.world,
            "sessions": lambda: host.sessions,
            "ownership": host.ownership,
            "folder": self.folder / "data" / "handoffs",
            "run_as": None,
        }
        self.home = Home(
            store=host.store,
            moves=Handoffs(**parts) if real else Here(**parts),
            projects=host.projects,
            desktop=DesktopRef(id=DesktopId(UUID(int=len(self.name))), name=self.name),
            environment=self.environment,
            config_dir=self.folder / "home" / ".claude",
            worktrees=self.folder / "data" / "worktrees",
        )
        self.handoffs = DesktopHandoffs(self.home, self.connect, host.world, crash=self._at)
        self.handoffs.recover()

    def _at(self, place: str) -> None:
        self.crash(place)

    @contextmanager
    def connect(self):
        server = Server.parse(self.url, insecure=True)
        connection = Connection(server, SecretStr(self.key), sleep=lambda _: None)
        try:
            yield connection
        finally:
            connection.close()

    async def close(self) -> None:
        await self.handoffs.close()
        await self.host.close()

    def workspace(self, name: str = "work") -> WorkspaceId:
        identity = WorkspaceId(self.host.world.new_id())
        place = self.folder / name
        self.git(self.folder / "proj", "worktree", "add", "-q", "--no-track", "-b", name, str(place), "origin/main")
        with self.host.store.transaction() as tx:
            workspaces.insert(
                *(tx, identity, name, self.host.world.now()),
                status=WorkspaceStatus.READY,
                location=Location.DESKTOP,
                epoch=0,
                project_id=self.project.id,
                worktree=place,
                branch=name,
            )
        (place / "a.txt").write_text("changed\n")
        (place / "new.txt").write_text("untracked\n")
        return identity

    def row(self, workspace_id: WorkspaceId):
        return self.home.workspace(workspace_id)

    def runs(self, workspace_id: WorkspaceId) -> bool:
        return self.row(workspace_id) is not None and self.host.ownership.may_work(workspace_id)

    def wanted(self, workspace_id: WorkspaceId, direction: Direction, **rules) -> BeginHandoff:
        identity = HandoffId(self.host.world.new_id())
        return BeginHandoff(id=identity, direction=direction, workspace_id=workspace_id, **rules)

    async def move(self, workspace_id: WorkspaceId, direction: Direction, **rules):
        """Begin one, and return when it is over."""
        begun = await self.handoffs.begin(self.wanted(workspace_id, direction, **rules))
        return await self.over(begun.id)

    async def over(self, handoff_id: HandoffId, *ends: LocalStatus):
        async with asyncio.timeout(60):
            while True:
                seen = self.handoffs.get(handoff_id)
                if seen.status in (ends or {DONE, FAILED, ABORTED}):
                    return seen
                await asyncio.sleep(0.01)


def owners(server, workspace_id, *desks) -> int:
    return sum(desk.runs(workspace_id) for desk in desks) + server.runs(workspace_id)


async def runs_there(server, workspace):
    """The server is told a moment later."""
    async with asyncio.timeout(10):
        while not server.runs(workspace):
            await asyncio.sleep(0.01)


async def given_up(desk, wanted, place):
    """Begin a handoff and die at a place, without anybody who goes on with it by himself."""

    def stop(where: str) -> None:
        if where == place:
            raise Died

    desk.crash = stop
    await desk.handoffs.begin(wanted)
    await desk.handoffs.runner.finished(wanted.id)
    assert desk.handoffs.get(wanted.id).status is LocalStatus.RUNNING
