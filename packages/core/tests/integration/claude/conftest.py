"""A host with the real Claude CLI, a real repository, a real database and the scripted model."""

import asyncio
import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from uuid import UUID

import claude_agent_sdk
import pytest
from pydantic import SecretStr

from ff_core.claude.backend import open_claude
from ff_core.claude.options import ClaudeSettings
from ff_core.contract.daemon import ModelAccess
from ff_core.contract.events import Event
from ff_core.contract.session import Activity, NewMessage, NewSession, PendingRequest, PermissionPreset, SessionView
from ff_core.ids import MessageId, SessionId, WorkspaceId
from ff_core.process import RunAs
from ff_core.sessions.backend import AgentBackend, BackendSpec
from ff_core.sessions.service import Sessions
from ff_core.store.engine import Store
from ff_core.store.journal import Journal
from ff_core.testing.model_api import ModelApi
from ff_core.world import SystemWorld

BUNDLED = Path(claude_agent_sdk.__file__).parent / "_bundled" / "claude"
WORKSPACE = WorkspaceId(UUID(int=7))
KEY = "sk-test-key-of-this-run"
AGENT_UID = 65534


class Host:
    """What a daemon would hold."""

    def __init__(self, folder: Path, api: ModelApi) -> None:
        self.folder, self.api = folder, api
        self.repo, self.home = folder / "repo", folder / "home"
        run_as = RunAs(AGENT_UID, AGENT_UID, self.home) if os.geteuid() == 0 else None
        for made in (self.repo, self.home):
            made.mkdir()
        self.settings = ClaudeSettings(executable=BUNDLED, cwd=self.repo, home=self.home, run_as=run_as)
        self.access = ModelAccess(base_url=api.url, api_key=SecretStr(KEY))
        self.backends: list[AgentBackend] = []
        self.idle_close_s = 900.0
        self.git("init", "-q", "-b", "main")
        self.git("config", "user.name", "Agent")
        self.git("config", "user.email", "agent@example.invalid")
        self.git("commit", "-q", "--allow-empty", "-m", "Begin")
        self.own()
        self.store = Store.open(folder / "state.db")
        self.boot()

    def boot(self) -> None:
        self.journal = Journal(self.store, SystemWorld())
        self.sessions = Sessions(
            store=self.store,
            journal=self.journal,
            world=SystemWorld(),
            backends=self.open,
            idle_close_s=self.idle_close_s,
        )

    async def die(self) -> None:
        """What a kill -9 of us and our container leaves: the database as it is at this moment, and no process."""
        after = self.folder / "after"
        after.mkdir()
        for file in self.folder.glob("state.db*"):
            shutil.copy(file, after / file.name)
        await self.sessions.close()
        self.store.close()
        self.store = Store.open(after / "state.db")
        self.boot()

    async def open(self, spec: BackendSpec) -> AgentBackend:
        backend = await open_claude(spec, settings=self.settings, access=self.access)
        self.backends.append(backend)
        return backend

    def own(self) -> None:
        if os.geteuid() == 0:
            subprocess.run(["chown", "-R", f"{AGENT_UID}:{AGENT_UID}", str(self.repo), str(self.home)], check=True)

    def git(self, *argv: str) -> str:
        command = ["git", "-c", f"safe.directory={self.repo}", "-C", str(self.repo), *argv]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout

    @property
    def pid(self) -> int:
        pid = self.backends[-1].pid
        assert pid is not None
        return pid

    async def session(self, permissions: PermissionPreset = PermissionPreset.STRICT, **more: str) -> SessionId:
        return (await self.sessions.create(WORKSPACE, NewSession(permissions=permissions, **more))).id

    async def say(self, session_id: SessionId, text: str) -> MessageId:
        return (await self.sessions.send(session_id, NewMessage(text=text))).id

    async def ask(self, session_id: SessionId, text: str) -> Event:
        """Send a prompt and wait for the end of its turn."""
        return await self.answered(await self.say(session_id, text))

    async def answered(self, message_id: MessageId, seconds: float = 20) -> Event:
        def ended() -> Event | None:
            turns = self.of_kind("turn.finished")
            return next((turn for turn in turns if message_id in turn.body.message_ids), None)

        return await self.until(ended, seconds)

    async def pending(self, session_id: SessionId) -> PendingRequest:
        return await self.until(lambda: next(iter(self.sessions.get(session_id).pending), None))

    async def resting(self, session_id: SessionId) -> SessionView:
        def rests() -> SessionView | None:
            view = self.sessions.get(session_id)
            return view if view.activity is Activity.IDLE else None

        return await self.until(rests)

    async def until(self, found: Callable[[], object], seconds: float = 20):
        end = time.monotonic() + seconds
        while not (value := found()):
            if time.monotonic() > end:
                raise AssertionError(f"waited in vain; the journal: {[event.body for event in self.events()]}")
            await asyncio.sleep(0.01)
        return value

    def events(self) -> list[Event]:
        return self.journal.read(WORKSPACE, 0, 100_000)

    def of_kind(self, kind: str) -> list[Event]:
        return [event for event in self.events() if event.body.kind == kind]

    def said(self) -> list[str]:
        return [event.body.text for event in self.of_kind("message.assistant")]


@pytest.fixture
async def host() -> AsyncIterator[Host]:
    folder = Path(tempfile.mkdtemp(prefix="ff-claude-"))
    folder.chmod(0o755)  # noqa: ASYNC240  (pytest's own folders are closed to the agent's user)
    try:
        async with ModelApi() as api:
            host = Host(folder, api)
            yield host
            await host.sessions.close()
            alive = any(is_alive(backend.pid) for backend in host.backends)
            host.store.close()
            assert not alive, "a CLI outlived its session"
    finally:
        shutil.rmtree(folder)


def is_alive(pid: int | None) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False
