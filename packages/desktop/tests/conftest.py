"""A scripted server, and ``ff`` as a person runs it."""

import contextlib
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
from scripted_server import PASSWORD, ScriptedServer
from threads import in_a_thread
from typer.testing import CliRunner

from ff_desktop.cli.main import app


@pytest.fixture
def server():
    """The scripted server."""
    scripted = ScriptedServer()
    with in_a_thread(scripted):
        yield scripted


class FF:
    """Runs ``ff`` with a configuration of its own: in this process, or as a program when signals or bytes matter."""

    def __init__(self, config_dir: Path) -> None:
        self.config_dir = config_dir
        self.environment = {"FF_CONFIG_DIR": str(config_dir), "FF_DESKTOP_DIR": str(config_dir / "desktop"), "FF_KEYRING": "0"}
        self.program = str(Path(sys.executable).with_name("ff"))

    @property
    def credentials_path(self):
        return self.config_dir / "credentials.json"

    def __call__(self, *args, stdin=None):
        return CliRunner().invoke(app, list(args), input=stdin, env=self.environment, prog_name="ff")

    def login(self, server, *args):
        result = self(
            "login", "--server", server.url, "--email", "ada@example.com", "--password-stdin", *args, stdin=PASSWORD + "\n"
        )
        assert result.exit_code == 0, result.output
        return result

    def run(self, *args, **options):
        return subprocess.run([self.program, *args], check=False, env=self.env(), capture_output=True, timeout=60, **options)

    @contextlib.contextmanager
    def started(self, *args, **options):
        """The program, running; killed at the end if it still is."""
        options = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE} | options
        with subprocess.Popen([self.program, *args], env=self.env(), **options) as process:
            try:
                yield process
            finally:
                process.kill()

    def env(self):
        kept = {name: value for name, value in os.environ.items() if not name.startswith("FF_")}
        return {**kept, **self.environment, "TERM": "xterm", "PYTHONUNBUFFERED": "1"}


@pytest.fixture
def ff(tmp_path):
    return FF(tmp_path / "config")


@pytest.fixture
def logged_in(ff, server):
    ff.login(server)
    server.requests.clear()
    return ff


@pytest.fixture
def until():
    """Wait for a condition, with a limit."""

    def wait(condition, limit_s=20.0):
        deadline = time.monotonic() + limit_s
        while not condition():
            assert time.monotonic() < deadline, "the condition did not come true in time"
            time.sleep(0.01)

    return wait
