"""A real daemon process on a free loopback port, and what the control plane would say to it."""

import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import httpx2
import pytest

from ff_core.contract.execution import EXEC_FRAME

TOKEN = "a-token-of-256-random-bits"
WORKSPACE = "00000000-0000-7000-8000-0000000000aa"
BIND = {"workspace_id": WORKSPACE, "name": "mine", "model": {"base_url": "http://127.0.0.1:9", "api_key": "sk-very-secret"}}


class Daemon:
    def __init__(self, root: Path, **env: str) -> None:
        self.root = root
        self.generation = 3
        self._env = env
        self._process = None

    def start(self) -> "Daemon":
        env = {
            **os.environ,
            "FF_ROOT": str(self.root),
            "FF_PORT": "0",
            "FF_VM_ID": "00000000-0000-7000-8000-0000000000bb",
            "FF_GENERATION": str(self.generation),
            "FF_TOKEN_SHA256": hashlib.sha256(TOKEN.encode()).hexdigest(),
            "FF_CLAUDE": "/bin/false",
            "SOME_SECRET": "hunter2",
            **self._env,
        }
        self._stderr = tempfile.TemporaryFile("w+")  # noqa: SIM115  (closed in ``end``)
        self._process = subprocess.Popen(
            [sys.executable, "-m", "ff_core.daemon"], env=env, stdout=subprocess.PIPE, stderr=self._stderr, text=True
        )
        line = self._process.stdout.readline()
        assert "listening on" in line, self.end()
        self.url = f"http://127.0.0.1:{line.rsplit(':', 1)[1].strip()}"
        headers = {"Authorization": f"Bearer {TOKEN}", "FF-Generation": str(self.generation)}
        self.http = httpx2.Client(base_url=self.url, headers=headers, timeout=20, trust_env=False)
        return self

    @property
    def pid(self) -> int:
        return self._process.pid

    def bind(self) -> "Daemon":
        assert self.http.post("/v1/bind", json=BIND).status_code == 200
        assert self.http.put("/v1/repository", json={}).status_code == 200
        return self

    def end(self, number: int = signal.SIGTERM) -> tuple[int, str]:
        """Its exit code and what it said on standard error besides its log of requests, which is in ``log`` then."""
        if self._process is None:
            return 0, ""
        process, self._process = self._process, None
        process.send_signal(number)
        process.communicate(timeout=20)
        with self._stderr as stderr:
            stderr.seek(0)
            self.said = lines = stderr.read().splitlines()
        self.log = [json.loads(line) for line in lines if line.startswith("{")]
        # An agent's program here is /bin/false, of which the SDK complains if a test lasts until it is started.
        said = "\n".join(line for line in lines if not line.startswith(("{", "Fatal error in message reader")))
        if hasattr(self, "http"):
            self.http.close()
        return process.returncode, said

    def exec(self, *argv: str, **more) -> list:
        response = self.http.post("/v1/exec", json={"argv": list(argv), **more})
        assert response.status_code == 200, response.text
        assert response.headers["content-type"] == "application/x-ndjson"
        return [EXEC_FRAME.validate_json(line) for line in response.iter_lines()]

    def events(self, after: int, until: int | Callable[[dict], bool], headers: dict | None = None) -> list[dict]:
        """The stored events after ``after`` until that one, from one connection, which is then cut."""
        is_last = until if callable(until) else lambda event: event["seq"] == until
        found = []
        with self.http.stream("GET", f"/v1/events?after={after}", headers=headers or {}) as response:
            assert response.status_code == 200, response.read()
            for line in response.iter_lines():
                if line.startswith("data: "):
                    found.append(json.loads(line.removeprefix("data: ")))
                    if is_last(found[-1]):
                        return found
        raise AssertionError("the stream ended")


def wait_for(condition, limit_s: float = 10.0):
    """What ``condition`` returns, once that is true."""
    deadline = time.monotonic() + limit_s
    while not (value := condition()):
        assert time.monotonic() < deadline, "it never came true"
        time.sleep(0.01)
    return value


def make_root() -> Path:
    root = Path(tempfile.mkdtemp(prefix="ff-daemon-"))  # pytest's own folders can't be entered by another user
    root.chmod(0o755)
    return root


@pytest.fixture
def root():
    root = make_root()
    yield root
    shutil.rmtree(root)


@pytest.fixture
def daemon(root):
    """Not started."""
    daemon = Daemon(root)
    yield daemon
    daemon.end(signal.SIGKILL)


@pytest.fixture(scope="module")
def bound():
    """One bound daemon for all tests of a file."""
    root = make_root()
    daemon = Daemon(root).start().bind()
    yield daemon
    code, said = daemon.end()
    shutil.rmtree(root)
    assert (code, said) == (0, "")


@pytest.fixture
def eventually():
    return wait_for


@pytest.fixture
def bind_body():
    return BIND


@pytest.fixture
def spawn():
    """Daemons of a test's own making."""
    made = []

    def spawn(root, **env):
        made.append(Daemon(root, **env))
        return made[-1]

    yield spawn
    for daemon in made:
        daemon.end(signal.SIGKILL)
