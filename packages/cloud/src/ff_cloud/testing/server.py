"""The real server as a process of its own, for the demo, the benchmarks and tests from outside.

Everything here blocks, so that an interrupt is answered at once; nothing is left running when a block is left.
"""

import asyncio
import os
import re
import secrets
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from ff_cloud.kit.errors import DatabaseNotStarted
from ff_cloud.kit.postgres import EmbeddedPostgres
from ff_cloud.testing.vm_network import VmNetwork, vm_network

START_TIMEOUT_S = 120.0
STOP_TIMEOUT_S = 40.0
TAIL_LINES = 30
_POLL_S = 0.02
LISTENING = re.compile(r"^listening +(http://\S+)\n", re.MULTILINE)
"""How a server of ours says that it serves, and where."""
_FIRST_URL = re.compile(r"^(http://\S+)\n", re.MULTILINE)
_MACHINE_SETTINGS = frozenset({"FF_DOCKER_HOST", "FF_EXTRA_CA", "FF_PG_BINDIR"})


class DidNotStart(Exception):
    """A program ended, or stayed silent for too long, before it said that it serves; the text has its last lines."""


@dataclass(frozen=True)
class Running:
    """A program that serves at ``url``. ``log`` holds all it said."""

    url: str
    pid: int
    log: Path


def tail(log: Path, lines: int = TAIL_LINES) -> str:
    """The last lines of a log; empty when there is none."""
    try:
        return "\n".join(log.read_text(errors="replace").splitlines()[-lines:])
    except FileNotFoundError:
        return ""


def scratch_folder(prefix: str) -> Path:
    """A new temporary folder for :func:`running_server`; whoever asks for it removes it.

    Others may pass through it, for when we are root: PostgreSQL runs as somebody else and has its place below it.
    """
    folder = Path(tempfile.mkdtemp(prefix=prefix))
    folder.chmod(0o711)
    return folder


def own_environment(settings: Mapping[str, str]) -> dict[str, str]:
    """This process's environment with ``settings`` in place of every ``FF_`` variable but those about this machine."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("FF_") or name in _MACHINE_SETTINGS}
    return kept | dict(settings)


def program(name: str) -> str:
    """The path of one of our commands, beside the Python that runs this."""
    return str(Path(sys.executable).with_name(name))


@contextmanager
def running_server(folder: Path, settings: Mapping[str, str]) -> Iterator[Running]:
    """``ff-cloud serve`` with its data and its log in ``folder``, on a free port of the loopback interface.

    ``settings`` are ``FF_`` variables; see :func:`scratch_folder` for what ``folder`` must allow. Entering it again with
    the same folder starts the server over the same data. Raises :class:`DidNotStart`.
    """
    data = folder / "data"
    environment = own_environment(
        {"FF_DATA_DIR": str(data), "FF_PORT": "0", "FF_GATEWAY_PORT": _gateway_port(folder), **settings}
    )
    command = [program("ff-cloud"), "serve"]
    try:
        with running(command, environment=environment, log=folder / "server.log", ready=LISTENING) as server:
            yield server
    finally:
        _stop_orphaned_database(data / "postgres")


@contextmanager
def running_model_api(folder: Path, host: str) -> Iterator[Running]:
    """The scripted model API on a free port of ``host``; its requests are logged in ``folder``."""
    command = [sys.executable, "-m", "ff_core.testing.model_api", "--host", host, "--log", str(folder / "model-requests.jsonl")]
    with running(command, environment=own_environment({}), log=folder / "model-api.log", ready=_FIRST_URL) as server:
        yield server


@contextmanager
def running_git_server(folder: Path, host: str, repositories: Sequence[str]) -> Iterator[Running]:
    """A git server on a free port of ``host`` with new repositories of these names, each ``URL/NAME.git``."""
    root = folder / "repositories"
    root.mkdir(exist_ok=True)
    command = [sys.executable, "-m", "ff_core.testing.git_server", "--root", str(root), "--host", host]
    command += [word for name in repositories for word in ("--create", name)]
    with running(command, environment=own_environment({}), log=folder / "git-server.log", ready=_FIRST_URL) as server:
        yield server


@contextmanager
def standing_network(purpose: str) -> Iterator[VmNetwork]:
    """:func:`vm_network` for programs that do not run an event loop."""
    with asyncio.Runner() as runner:
        network = vm_network(purpose=purpose, url=os.environ.get("FF_DOCKER_HOST"))
        entered = runner.run(network.__aenter__())
        try:
            yield entered
        finally:
            runner.run(network.__aexit__(None, None, None))


@contextmanager
def running(
    command: Sequence[str],
    *,
    environment: Mapping[str, str],
    log: Path,
    ready: re.Pattern[str],
    timeout_s: float = START_TIMEOUT_S,
) -> Iterator[Running]:
    """Run a program until the block is left; entered when its output, appended to ``log``, matches ``ready``.

    Group 1 of the match is its URL. It gets SIGTERM at the end, SIGKILL when that does not help in 40 s.
    """
    log.touch()
    begin = log.stat().st_size
    with log.open("ab") as output:
        # A session of its own: Ctrl-C in the terminal is for whoever stages this; he stops it in order.
        process = subprocess.Popen(
            command,
            env=dict(environment),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        yield Running(_await_ready(process, log, begin, ready, timeout_s), process.pid, log)
    finally:
        _stop(process)


def _await_ready(process: subprocess.Popen[bytes], log: Path, begin: int, ready: re.Pattern[str], timeout_s: float) -> str:
    deadline = time.monotonic() + timeout_s
    while True:
        ended = process.poll() is not None
        if found := ready.search(log.read_bytes()[begin:].decode(errors="replace")):
            return found[1]
        if ended:
            raise DidNotStart(f"It ended with code {process.returncode}. {log} ends with:\n{tail(log)}")
        if time.monotonic() > deadline:
            raise DidNotStart(f"It did not say within {timeout_s:g} s that it serves. {log} ends with:\n{tail(log)}")
        time.sleep(_POLL_S)


def _gateway_port(folder: Path) -> str:
    """The same at each start over this folder, since VMs remember it; below those the system gives out by itself."""
    remembered = folder / "gateway-port"
    if not remembered.exists():
        remembered.write_text(str(10_000 + secrets.randbelow(20_000)))
    return remembered.read_text()


def _stop(process: subprocess.Popen[bytes]) -> None:
    if process.poll() is None:
        process.terminate()
        try:
            process.wait(STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def _stop_orphaned_database(place: Path) -> None:
    """A server that was killed leaves its PostgreSQL to the next one; here there is none."""
    database = EmbeddedPostgres(place)
    if database.pid is not None:
        with suppress(DatabaseNotStarted):
            database.start()
            database.stop()
