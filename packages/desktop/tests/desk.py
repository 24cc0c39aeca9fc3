"""A desktop of a test's own: home, data folder, repositories, the scripted model, and ``ff`` as its user runs it."""

import asyncio
import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

from typer.testing import CliRunner

from ff_core.contract.workspace import WorkspaceStatus
from ff_core.testing.model_api import ModelApi
from ff_desktop.cli.main import app
from ff_desktop.settings import DesktopSettings
from ff_desktop.wiring import Desktop

PREPARING = {WorkspaceStatus.NEW, WorkspaceStatus.PROVISIONING}


@contextlib.contextmanager
def scripted_model():
    """The model's API in a thread of its own."""
    ready, box = threading.Event(), {}

    async def run():
        box["loop"], box["end"] = asyncio.get_running_loop(), asyncio.Event()
        async with ModelApi() as box["model"]:
            ready.set()
            await box["end"].wait()

    thread = threading.Thread(target=asyncio.run, args=(run(),))
    thread.start()
    assert ready.wait(10)
    try:
        yield box["model"]
    finally:
        box["loop"].call_soon_threadsafe(box["end"].set)
        thread.join(10)


class Desk:
    """Made by :meth:`opened`. Whatever serves its data folder in the end is ended."""

    def __init__(self, folder: Path, model: ModelApi) -> None:
        self.folder, self.model = folder, model
        self.home, self.data = folder / "home", folder / "data"
        self.home.mkdir()
        self.environment = {
            "FF_CONFIG_DIR": str(folder / "config"),
            "FF_DESKTOP_DIR": str(self.data),
            "FF_KEYRING": "0",
            "HOME": str(self.home),
            "GIT_CONFIG_GLOBAL": str(self.home / ".gitconfig"),
            "ANTHROPIC_BASE_URL": model.url,
            "ANTHROPIC_API_KEY": "sk-of-the-user",
            "CLAUDE_CONFIG_DIR": str(self.home / ".claude"),
            "CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC": "1",
            "IS_SANDBOX": "1",  # tests may run as root, who skips no permissions otherwise
        }
        self.git(folder, "config", "--global", "user.name", "Ada")
        self.git(folder, "config", "--global", "user.email", "ada@example.com")
        self._parts: list[Desktop] = []

    @classmethod
    @contextlib.contextmanager
    def opened(cls):
        folder = Path(tempfile.mkdtemp(prefix="ff-desk-"))  # pytest's own folders are too long for a socket
        try:
            with scripted_model() as model:
                desk = cls(folder, model)
                try:
                    yield desk
                finally:
                    desk.end()
                    for parts in desk._parts:
                        parts.close()
        finally:
            shutil.rmtree(folder)

    def env(self):
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("FF_", "ANTHROPIC_", "CLAUDE"))}
        return {**kept, **self.environment, "TERM": "xterm", "PYTHONUNBUFFERED": "1", "NO_COLOR": "1"}

    def ff(self, *words, code=0, cwd=None):
        """What ``ff`` writes to standard output; it must end with ``code``. In this process, which is many times faster."""
        theirs = dict.fromkeys(name for name in os.environ if name not in self.env())
        with contextlib.chdir(cwd or self.folder):
            done = CliRunner().invoke(app, list(words), env={**theirs, **self.env()}, prog_name="ff")
        assert done.exit_code == code, f"ff {' '.join(words)} → {done.exit_code}\n{done.output}\n{done.exception!r}"
        self.said = done.stderr
        return done.stdout

    def run(self, *words):
        """The same as a program of its own."""
        command = [self.program, *words]
        return subprocess.run(command, env=self.env(), cwd=self.folder, capture_output=True, timeout=60, check=True).stdout

    def json(self, *words, **more):
        return json.loads(self.ff(*words, "--json", **more))

    @property
    def program(self):
        return str(Path(sys.executable).with_name("ff"))

    @property
    def parts(self) -> Desktop:
        """What the commands are made of, in this process, over the same folders; the server must run already."""
        fields = {"config_dir": self.folder / "config", "desktop_dir": self.data, "keyring": False}
        self._parts.append(Desktop(DesktopSettings(**fields)))
        return self._parts[-1]

    def backend(self):
        self.ff("serve", "--background")
        return self.parts.local()

    def git(self, where, *words):
        return subprocess.run(
            ["git", *words], cwd=where, check=True, capture_output=True, text=True, timeout=30, env=self.env()
        ).stdout.strip()

    def repository(self, name="proj", files=None):
        path = self.folder / name
        self.git(self.folder, "init", "-q", "-b", "main", str(path))
        for file, content in (files or {"README.md": "# here\n"}).items():
            (path / file).write_text(content)
        self.git(path, "add", "-A")
        self.git(path, "commit", "-q", "-m", "Begin")
        return path

    def ready(self, workspace):
        backend = self.parts.local()
        until(lambda: backend.workspace(workspace.id).status not in PREPARING)
        return backend.workspace(workspace.id)

    @property
    def pid(self):
        health = self.parts.background().health()
        return None if health is None else health.pid

    def kill(self):
        """What ``kill -9`` of ``ff serve`` leaves."""
        pid = self.pid
        os.kill(pid, signal.SIGKILL)
        until(lambda: not is_alive(pid))

    def end(self):
        pid = self.pid
        if pid is not None:
            os.kill(pid, signal.SIGTERM)
            until(lambda: not is_alive(pid), 40)


def is_alive(pid):
    with contextlib.suppress(ChildProcessError):
        os.waitpid(pid, os.WNOHANG)  # ours, when a test started it in this process
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


def until(condition, limit_s=20.0):
    deadline = time.monotonic() + limit_s
    while not (value := condition()):
        assert time.monotonic() < deadline, "the condition did not come true in time"
        time.sleep(0.02)
    return value
