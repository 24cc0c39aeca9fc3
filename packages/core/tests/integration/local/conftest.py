"""A desktop: a repository of its user's, and a host over a folder of its own."""

import asyncio
import os
import subprocess
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from ff_core.contract.local import NewLocalWorkspace, NewProject
from ff_core.contract.workspace import WorkspaceStatus
from ff_core.host import Host
from ff_core.ids import WorkspaceId
from ff_core.sessions.backend import BackendSpec
from ff_core.settings import HostSettings
from ff_core.world import SystemWorld


class Silent:
    """An agent that takes prompts and says nothing."""

    def __init__(self, spec: BackendSpec) -> None:
        self.spec, self.got, self.closed = spec, [], asyncio.Event()

    async def facts(self):
        await self.closed.wait()
        return
        yield

    async def send(self, message_id, text):
        self.got.append(text)

    async def interrupt(self):
        self.closed.set()

    async def close(self):
        self.closed.set()


class Desktop:
    """``host`` is what would run in ``ff serve``; :meth:`restart` is what its end and another start make of it."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.agents = folder, []
        self.home, self.bin = folder / "home", folder / "bin"
        for made in (self.home, self.bin):
            made.mkdir()
        self.environment = {
            **os.environ,
            "HOME": str(self.home),
            "PATH": f"{self.bin}:{os.environ['PATH']}",
            "GIT_CONFIG_GLOBAL": str(self.home / ".gitconfig"),
        }
        self.git(self.folder, "config", "--global", "user.name", "Ada Lovelace")
        self.git(self.folder, "config", "--global", "user.email", "ada@example.com")
        self.host: Host

    def git(self, where: Path, *words: str) -> str:
        return subprocess.run(
            ["git", *words], cwd=where, check=True, capture_output=True, text=True, env=self.environment, timeout=30
        ).stdout.strip()

    def repository(self, name="proj", files=None, *, origin=True) -> Path:
        """A clone with one commit, and the bare repository it was cloned from (``origin``)."""
        path = self.folder / name
        self.git(self.folder, "init", "-q", "-b", "main", str(path))
        self.commit(path, files or {"README.md": "# here\n"})
        if origin:
            bare = self.folder / f"{name}.git"
            self.git(self.folder, "clone", "-q", "--bare", str(path), str(bare))
            self.git(path, "remote", "add", "origin", str(bare))
            self.git(path, "fetch", "-q", "origin")
        return path

    def commit(self, path: Path, files) -> str:
        for file, content in files.items():
            (path / file).parent.mkdir(parents=True, exist_ok=True)
            (path / file).write_text(content)
        self.git(path, "add", "-A")
        self.git(path, "commit", "-q", "-m", "more")
        return self.git(path, "rev-parse", "HEAD")

    def push_from_elsewhere(self, name="proj", branch="main", files=None) -> str:
        """Somebody else pushes; the commit."""
        other = self.folder / f"elsewhere-{branch.replace('/', '-')}"
        self.git(self.folder, "clone", "-q", str(self.folder / f"{name}.git"), str(other))
        self.git(other, "checkout", "-q", "-B", branch)
        commit = self.commit(other, files or {"theirs.txt": "theirs\n"})
        self.git(other, "push", "-q", "origin", branch)
        return commit

    def program(self, name: str, script: str) -> None:
        """Something on the user's PATH."""
        path = self.bin / name
        path.write_text(f"#!/bin/sh\n{script}\n")
        path.chmod(0o755)

    async def start(self) -> Host:
        settings = HostSettings.from_env(self.environment, data=self.folder / "data", home=self.home)
        self.host = await Host.open(settings, SystemWorld(), backends=self._agent)
        return self.host

    async def restart(self) -> Host:
        await self.host.close()
        return await self.start()

    async def project(self, path: Path, **more):
        return await self.host.add_project(NewProject(path=str(path), **more))

    def wanted(self, name="fix it", **more):
        return NewLocalWorkspace(name=name, **more)

    async def order(self, name="fix it", **more):
        return await self.host.create(WorkspaceId(SystemWorld().new_id()), self.wanted(name, **more))

    async def new(self, name="fix it", *, status=WorkspaceStatus.READY, **more):
        workspace = await self.order(name, **more)
        await self.host.workspaces.settled(workspace.id)
        made = self.host.workspace(workspace.id)
        assert made.status is status, made.error
        return made

    def events(self, workspace):
        return [event.body for event in self.host.journal.read(workspace.id, 0, 1000)]

    def said(self, workspace, process):
        return "".join(body.text for body in self.events(workspace) if body.kind == "process.output" and body.process == process)

    async def _agent(self, spec):
        self.agents.append(Silent(spec))
        return self.agents[-1]


@pytest.fixture
async def desktop(tmp_path) -> AsyncIterator[Desktop]:
    desktop = Desktop(tmp_path)
    await desktop.start()
    yield desktop
    await desktop.host.close()


@pytest.fixture
def eventually():
    """Wait for a condition, with a limit."""

    async def wait(condition, limit_s=10.0):
        async with asyncio.timeout(limit_s):
            while not (value := condition()):
                await asyncio.sleep(0.01)
        return value

    return wait
