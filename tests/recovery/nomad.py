"""A workspace that moves between a real desktop and a real server, while somebody dies on the way.

Everything is real: ``ff serve`` with a home of its own, ``ff-cloud serve`` over a folder and a database, VMs in Docker, git; the
network between the two is a :class:`Cable`. The desktop is held still (SIGSTOP) from the moment when it has written a step down
until the blow has fallen, so that it falls there and not a moment later.
"""

import asyncio
import contextlib
import os
import signal
import subprocess
import time
import zlib
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, ExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal
from urllib.parse import urlsplit
from uuid import UUID

import httpx2
from api_user import PASSWORD, Refused, User, new_id
from cable import Cable, cable
from ground import Ground
from ledgers import DesktopLedger
from nasty import COMMANDS, Repo, base_files, make_nasty, seen_here
from nasty import Seen as Content
from sqlalchemy import text
from stack import docker, scratch
from terminal import Terminal

from ff_cloud.kit.db import Database
from ff_cloud.testing.postgres import PostgresForTests
from ff_cloud.testing.server import LISTENING, Running, own_environment, program, running, tail
from ff_core.testing.git_server import GitServer
from ff_desktop.handoffs.machine import LEGS, Step, Way

Victim = Literal["desktop", "server", "daemon", "container", "network"]

LIMIT_S = 90.0
TRIES_MAX = 6
LATE_MS_MAX = 400
AWAY_S = 1.0
"""So long the network is cut."""
BIG_BYTES = 3 << 20
NAME = "nomad"
WORDS: dict[Way, tuple[str, ...]] = {Way.SEND: ("send", NAME, "--yes"), Way.PULL: ("pull", NAME)}
STAYS = (b"node_modules", b"build")
"""Ignored folders that do not travel."""


def steps_of(way: Way) -> tuple[Step, ...]:
    """All steps of a move, in their order."""
    return (Step.BEGUN, *(leg.step for leg in LEGS[way]))


@dataclass(frozen=True)
class Case:
    """Somebody dies when a step is finished. ``late``: a moment later, in the middle of what comes next."""

    way: Way
    step: Step
    victim: Victim
    late: bool = False

    def __str__(self) -> str:
        return f"{self.way}-{self.step}-{self.victim}" + ("-late" if self.late else "")

    @property
    def delay_s(self) -> float:
        """Another one for each, and always the same."""
        return zlib.crc32(str(self).encode()) % LATE_MS_MAX / 1000 if self.late else 0.0


@dataclass(frozen=True)
class Blow:
    """What was struck: ``step`` was the last that was written down. ``hit`` is false when there was nothing to kill."""

    step: Step
    hit: bool
    tries: int
    seconds: float


class Stage:
    """A server, a desktop, and the cable between them. Made by :func:`stage`."""

    def __init__(self, ground: Ground, settings: dict[str, str], url: str, folder: Path) -> None:
        self._ground, self._settings, self._url = ground, settings, url
        self._log = folder / "server.log"
        more = {"FF_DATABASE_URL": url, "FF_DATA_DIR": str(folder / "data"), "FF_PORT": "0"}
        self._environment = own_environment(settings | more)
        self._life = ExitStack()
        self.server: Running
        self.cable: Cable
        self.home: Terminal
        self.ledger: DesktopLedger
        self.there: User
        """The server, asked without the cable."""
        self.here: User
        """``ff serve``."""

    async def start_server(self) -> None:
        """Over what an earlier one left."""
        await asyncio.to_thread(self._life.close)
        starting = running([program("ff-cloud"), "serve"], environment=self._environment, log=self._log, ready=LISTENING)
        self.server = await asyncio.to_thread(self._life.enter_context, starting)

    async def stop_server(self) -> None:
        await asyncio.to_thread(self._life.close)

    async def serving(self) -> int:
        """The process of ``ff serve``, which any ``ff`` starts."""
        try:
            return int((await self.here.call("GET", "/v1/health"))["pid"])
        except httpx2.TransportError:
            return int((await self.home.json("serve", "--status"))["pid"])

    def containers(self) -> list[str]:
        """Those that run."""
        return docker("ps", "-q", "--filter", f"label=ff.deployment={self._settings['FF_DEPLOYMENT']}")

    async def database(self, statement: str, **values: Any) -> list[Any]:
        """Ask the server's database."""
        async with Database(self._url) as db, db.system_transaction() as tx:
            return list((await tx.execute(text(statement), values)).all())

    async def settled(self) -> None:
        """Everything of the server's is in order: operations, rows, containers, volumes, daemons."""
        await self._ground.settled(self._url, self._settings, timeout_s=LIMIT_S)

    def logs(self) -> str:
        """The end of what the two said."""
        desktop = next(iter(sorted((self.home.home / "desktop").glob("*.log"))), Path("/nonexistent"))
        return f"server:\n{tail(self._log, 60)}\ndesktop:\n{tail(desktop, 40)}"


@asynccontextmanager
async def stage(ground: Ground, postgres: PostgresForTests, git: GitServer, home: Path) -> AsyncIterator[Stage]:
    """A deployment and a desktop of their own; nothing of them is left."""
    async with AsyncExitStack() as exits:
        deployment = exits.enter_context(ground.deployment(f"h{new_id().hex[-6:]}"))
        settings = deployment | {
            "FF_VM_EGRESS_ALLOW": urlsplit(git.origin).netloc,
            "FF_ALLOW_PLAIN_HTTP_REPOS": "1",
        }
        url = postgres.create_database().render_as_string(hide_password=False)
        found = Stage(ground, settings, url, exits.enter_context(scratch()))
        exits.push_async_callback(found.stop_server)
        await found.start_server()
        found.cable = await exits.enter_async_context(cable(found.server.url))
        more = {"ANTHROPIC_BASE_URL": ground.model.url, "ANTHROPIC_API_KEY": "sk-ant-of-the-laptop", "FF_ALLOW_PLAIN_HTTP": "1"}
        found.home = Terminal(home, more | {"IS_SANDBOX": "1"})
        (home / ".gitconfig").write_text("[user]\n\tname = Me\n\temail = me@example.com\n[init]\n\tdefaultBranch = main\n")
        email = f"{new_id().hex[-12:]}@example.com"
        login = ("login", "--server", found.cable.url, "--email", email, "--password-stdin", "--signup")
        await found.home.ff(*login, stdin=PASSWORD.encode())
        timeout = httpx2.Timeout(30, read=60)
        http = httpx2.AsyncClient(base_url=found.server.url, timeout=timeout, trust_env=False)
        found.there = User(await exits.enter_async_context(http), email)
        await found.there.log_in()
        socket = httpx2.AsyncHTTPTransport(uds=str(home / "desktop" / "serve.sock"))
        http = httpx2.AsyncClient(base_url="http://desktop", transport=socket, timeout=timeout, trust_env=False)
        found.here = User(await exits.enter_async_context(http), email)
        exits.push_async_callback(_stop_serving, found)
        found.ledger = DesktopLedger(home / "desktop")
        yield found


async def _stop_serving(found: Stage) -> None:
    with contextlib.suppress(httpx2.TransportError):
        await found.here.call("POST", "/v1/stop", {})
        while True:  # it has a limit of its own
            await found.here.call("GET", "/v1/health")
            await asyncio.sleep(0.02)


class Nomad:
    """The workspace. Make with :meth:`born`."""

    def __init__(self, stage: Stage, workspace_id: UUID, session: UUID) -> None:
        self.stage, self.id, self.session = stage, workspace_id, session
        self._changes = 0

    @classmethod
    async def born(cls, stage: Stage, git: GitServer) -> "Nomad":
        """On the desktop, with everything in it that an engineer can leave, and a session."""
        url = await git.create(f"nomad-{new_id().hex[-8:]}", base_files())
        folder = stage.home.home / "project"
        await asyncio.to_thread(Repo(stage.home.home).git, "clone", "-q", url, str(folder))
        await stage.home.ff("project", "add", str(folder), "--include", ".env")
        made = await stage.home.json("new", NAME)
        repo = Repo(Path(made["path"]))
        await asyncio.to_thread(make_nasty, repo, big_bytes=BIG_BYTES)
        session = await stage.here.call("POST", f"/v1/workspaces/{made['id']}/sessions", {})
        return cls(stage, UUID(made["id"]), UUID(session["id"]))

    async def to(self, way: Way) -> None:
        """Be where a move of this kind begins."""
        there = (await self.stage.there.call("GET", "/v1/workspaces"))["items"]
        in_cloud = any(each["id"] == str(self.id) and each["location"] == "CLOUD" for each in there)
        if in_cloud is (way is Way.SEND):
            await self.stage.home.ff(*WORDS[Way.PULL if in_cloud else Way.SEND])

    async def moves(self, case: Case) -> Blow:
        """Move it while ``case`` happens, finish the move, and require that all is as it has to be."""
        begun = time.monotonic()
        await self.stage.there.log_in()  # all cases together take longer than a login lasts
        await self.to(case.way)
        await self._change(case)
        epoch = self.stage.ledger.home(self.id).epoch
        if case.way is Way.PULL:
            await _eventually(lambda: self._heard(epoch))
        content, journal = await self._content(case.way), await self._journal(case.way)
        blow = await self._struck(case)
        tries = await self._finished(case.way)
        await self._require(case.way, content, journal, epoch)
        return Blow(blow.step, blow.hit, tries, time.monotonic() - begun)

    async def _change(self, case: Case) -> None:
        """Something new, so that an old copy is not taken for the new one."""
        self._changes += 1
        word, other = f"{self._changes} {case}", f"untracked-{self._changes % 3}"
        git = "git -c user.name=Me -c user.email=me@example.com"
        script = (
            f"echo {word} > committed.txt && git add committed.txt && {git} commit -qm '{word}' -- committed.txt"
            f" && echo {word} >> intended.txt && echo {word} > {other} && echo WORD={self._changes} > .env"
        )
        if case.way is Way.PULL:
            await self.stage.there.shell(self.id, script)
        else:
            await self.stage.here.shell(self.id, script)

    async def _struck(self, case: Case) -> Blow:
        """Begin the move, and strike."""
        stage = self.stage
        pid = await stage.serving()
        known = {each.id for each in stage.ledger.handoffs(self.id)}
        order = steps_of(case.way)
        wanted = order[order.index(case.step) :]
        number = signal.SIGKILL if case.victim == "desktop" else signal.SIGSTOP
        moving = await stage.home.start(*WORDS[case.way])
        ended = asyncio.create_task(moving.communicate())
        try:
            seen = await asyncio.to_thread(stage.ledger.strike, self.id, known, wanted, case.delay_s, pid, number)
            try:
                hit = await self._strike(case)
            finally:
                if case.victim != "desktop":
                    os.kill(pid, signal.SIGCONT)
            if case.victim == "network":
                await asyncio.sleep(AWAY_S)
                await stage.cable.plug()
            if case.victim == "server":
                await stage.start_server()
                stage.cable.to = stage.server.url
                stage.there.http.base_url = stage.server.url
            await asyncio.wait_for(asyncio.shield(ended), LIMIT_S)
        finally:
            if moving.returncode is None:
                moving.kill()
            await ended
        return Blow(seen.step, hit, 0, 0.0)

    async def _strike(self, case: Case) -> bool:
        stage = self.stage
        match case.victim:
            case "desktop":
                return True
            case "network":
                stage.cable.cut()
                return True
            case "server":
                os.kill(stage.server.pid, signal.SIGKILL)
                return True
        # A VM that is asked for is waited for; after a pull was committed it may be gone already.
        deadline = time.monotonic() + 20.0
        order = steps_of(case.way)
        until = deadline if case.way is Way.SEND or order.index(case.step) < order.index(Step.COMMITTED) else 0.0
        while not (containers := await asyncio.to_thread(stage.containers)):
            if time.monotonic() > until:
                return False
            await asyncio.sleep(0.02)
        command = ("kill", containers[0])
        if case.victim == "daemon":
            command = ("exec", containers[0], "pkill", "-KILL", "-f", "ff-daemon")
        with contextlib.suppress(subprocess.CalledProcessError):  # ``exec`` ends with its container
            await asyncio.to_thread(docker, *command)
        while containers[0] in await asyncio.to_thread(stage.containers):  # where the daemon ends, its container does
            assert time.monotonic() < deadline, f"docker {command} killed nothing"
            await asyncio.sleep(0.02)
        return True

    async def _finished(self, way: Way) -> int:
        """Ask for the same again until it is done; so often that was."""
        said = ""
        for tries in range(1, TRIES_MAX + 1):
            process = await self.stage.home.start(*WORDS[way])
            out, err = await asyncio.wait_for(process.communicate(), LIMIT_S)
            if process.returncode == 0:
                return tries
            said += f"{process.returncode}: {out.decode()[-300:]} {err.decode()[-500:]}\n"
            await asyncio.sleep(0.5)
        raise AssertionError(f"ff {' '.join(WORDS[way])} did not succeed:\n{said}")

    async def _require(self, way: Way, content: Content, journal: list[tuple[int, Any]], epoch: int) -> None:
        stage = self.stage
        location = way.direction.destination
        # One owner, and the two agree on it.
        home = stage.ledger.home(self.id)
        assert (home.location, home.epoch, home.moving) == (location, epoch + 1, None)
        await _eventually(self._agreed(location, epoch + 1))
        owner, other = (stage.there, stage.here) if way is Way.SEND else (stage.here, stage.there)
        await _eventually(lambda: owner.shell(self.id, "true"))
        for path, body in (
            (f"/v1/workspaces/{self.id}/exec", {"argv": ["true"]}),
            (f"/v1/sessions/{self.session}/messages", {"text": "%say nobody hears this"}),
        ):
            refused = await other.refused("POST", path, body)
            assert refused.code == "workspace_elsewhere", refused
        # Nothing was lost.
        assert await self._content(Way.PULL if way is Way.SEND else Way.SEND) == content
        sessions = await owner.call("GET", f"/v1/workspaces/{self.id}/sessions")
        assert str(self.session) in {each["id"] for each in sessions["items"]}
        await _eventually(lambda: self._continued(way, journal, epoch + 1))
        await self._receipts()
        # Nothing is left.
        await _eventually(lambda: self._clean(way))
        await stage.settled()

    def _agreed(self, location: str, epoch: int) -> Callable[[], Awaitable[None]]:
        async def look() -> None:
            found = await self.stage.there.workspace(self.id)
            assert (found.location, found.epoch, found.moving) == (location, epoch, None)

        return look

    async def _receipts(self) -> None:
        kept = next(each for each in self.stage.ledger.handoffs(self.id) if each.receipt is not None)
        page = await self.stage.there.call("GET", f"/v1/handoffs?workspace_id={self.id}")
        told = next(each for each in page["items"] if each["receipt"] is not None)
        assert told["receipt"] == kept.receipt
        assert told["receipt"]["sent"] == told["receipt"]["arrived"]
        decided = [each for each in self.stage.ledger.handoffs(self.id) if each.status in {"RUNNING", "STOPPED"}]
        assert decided == []

    async def _continued(self, way: Way, before: list[tuple[int, Any]], epoch: int) -> None:
        """The owner's journal is the old one and more, without a gap, and it arrived once under each epoch."""
        now = await self._journal(Way.PULL if way is Way.SEND else Way.SEND)
        assert [seq for seq, _ in now] == list(range(1, len(now) + 1))
        assert now[: len(before)] == before
        epochs = _arrivals(now)
        assert epochs == list(range(epoch - len(epochs) + 1, epoch + 1))
        assert epochs

    async def _heard(self, epoch: int) -> None:
        """The server's copy of the journal follows a moment later."""
        assert _arrivals(await self._journal(Way.PULL))[-1:] == [epoch]

    async def _clean(self, way: Way) -> None:
        left = [each.name for each in (self.stage.home.home / "desktop" / "handoffs").glob("*")]
        assert left == []
        pieces = await self.stage.database("select handoff_id from handoff_pieces")
        assert pieces == []
        if way is Way.SEND:
            (container,) = await asyncio.to_thread(self.stage.containers)
            found = await asyncio.to_thread(
                docker, "exec", container, "find", "/workspace", "-maxdepth", "2", "-path", "*handoff*"
            )
            assert [each for each in found if each != "/workspace/handoffs"] == []

    async def _content(self, way: Way) -> Content:
        """What is to be seen of it where a move of this kind begins, without what does not travel."""
        if way is Way.SEND:
            seen = await asyncio.to_thread(seen_here, await self._worktree())
        else:
            ran = [await self.stage.there.run(self.id, *argv) for argv in COMMANDS.values()]
            seen = Content(**dict(zip(COMMANDS, (each.stdout for each in ran), strict=True)))
        hidden = tuple(b"./" + folder for folder in STAYS)
        lines = [line for line in seen.files.splitlines() if not bytes.fromhex(line.split()[0].decode()).startswith(hidden)]
        return Content(seen.status, seen.stashes, seen.submodules, b"\n".join(lines))

    async def _worktree(self) -> Path:
        return Path((await self.stage.here.call("GET", f"/v1/workspaces/{self.id}"))["path"])

    async def _journal(self, way: Way) -> list[tuple[int, Any]]:
        if way is Way.SEND:
            return self.stage.ledger.journal(self.id)
        found = await self.stage.database("select seq, body from events where workspace_id = :id order by seq", id=self.id)
        return [(seq, body) for seq, body in found]


def _arrivals(journal: list[tuple[int, Any]]) -> list[int]:
    """The epochs under which it arrived somewhere, in the order of the journal."""
    return [body["epoch"] for _, body in journal if body["kind"] == "handoff.arrived"]


async def _eventually(look: Callable[[], Awaitable[object]]) -> None:
    """Within a time limit it does not raise."""
    deadline = time.monotonic() + LIMIT_S
    while True:
        try:
            await look()
            return
        except (AssertionError, Refused, ValueError):
            if time.monotonic() > deadline:
                raise
        await asyncio.sleep(0.2)
