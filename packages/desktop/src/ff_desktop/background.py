"""``ff serve`` as the other commands see it: found, started when it is not there, replaced when it is of another version."""

import fcntl
import os
import signal
import socket
import sys
from collections.abc import Callable
from functools import cached_property
from pathlib import Path

from ff_core.contract.local import LocalHealth, StopServing
from ff_core.contract.problem import RemoteProblem
from ff_core.errors import Conflict
from ff_desktop import __version__
from ff_desktop.connection import CONNECT_TIMEOUT_S, Connection
from ff_desktop.errors import DataFolderUnfit, ServeBusy, ServeFailed, ServeUnreachable
from ff_desktop.settings import DesktopSettings

START_S_MAX = 20.0
STOP_S_MAX = 40.0
"""Agents are ended first, which takes them some seconds."""
POLL_S = 0.05
SOCKET_PATH_BYTES_MAX = 103
"""Of the path of a Unix socket; macOS takes less than Linux."""
LOG_SHOWN_BYTES = 2_000
NOT_INHERITED = frozenset({"FACTORY_SESSION_ID", "WORKSPACE_PATH"})
"""The marks of agents' and set-up scripts' processes: when the one that ran us is ended, so is all that bears its mark."""


class Background:
    """One data folder's server. ``connect`` makes a connection to it that tries nothing twice; ``note`` tells the user."""

    def __init__(
        self,
        settings: DesktopSettings,
        *,
        connect: Callable[[], Connection],
        sleep: Callable[[float], None],
        note: Callable[[str], None],
        version: str = __version__,
    ) -> None:
        self._settings, self._connect, self._sleep, self._note, self._version = settings, connect, sleep, note, version

    @cached_property
    def _connection(self) -> Connection:
        return self._connect()

    def health(self) -> LocalHealth | None:
        """How it is; None when none answers. Raises ``ServerSilent`` when one is there and says nothing."""
        if not _is_open(self._settings.socket_path):
            return None
        try:
            return self._connection.ask("GET", "/v1/health", LocalHealth)
        except ServeUnreachable:
            return None

    def ensure(self) -> LocalHealth:
        """One that answers, of our version unless the one there is busy. May be repeated, and called by several at once.

        Raises ``ServeFailed``, ``DataFolderUnfit``.
        """
        health = self.health()
        if health is not None and health.version != self._version:
            health = self._replaced(health)
        return health or self._started()

    def stop(self, *, only_idle: bool = False) -> bool:
        """End it, and return when it is gone; false when there was none. Raises ``ServeBusy``, ``ServeUnreachable``."""
        health = self.health()
        if health is None:
            return False
        try:
            self._connection.ask("POST", "/v1/stop", LocalHealth, body=StopServing(only_idle=only_idle))
        except RemoteProblem as error:
            if error.problem.status != Conflict.status:
                raise
            raise ServeBusy from error
        if not self._until(lambda: _is_free(self._settings.lock_path), STOP_S_MAX):
            raise ServeUnreachable(f"`ff serve` (process {health.pid}) did not end within {STOP_S_MAX:g} s.")
        return True

    def _replaced(self, health: LocalHealth) -> LocalHealth | None:
        try:
            self.stop(only_idle=True)
        except ServeBusy:
            self._note(
                f"The running `ff serve` is of version {health.version}, and this is {self._version}. Something runs in it, so it"
                " is left alone; when that is done: ff serve --stop"
            )
            return health
        return None

    def _started(self) -> LocalHealth:
        settings = self._settings
        make_folder(settings)
        pid = _spawn(settings)
        found: list[LocalHealth] = []
        exits: list[int] = []

        def settled() -> bool:
            if not exits:
                exits.extend(_exit_of(pid))
            health = self.health()
            found.extend([] if health is None else [health])
            return bool(found) or any(exits)  # one that found another one there ends with 0

        self._until(settled, START_S_MAX)
        if found:
            if found[-1].pid != pid and not exits:
                os.kill(pid, signal.SIGTERM)  # somebody was quicker; coming late it would serve when that one has been stopped
            return found[-1]
        raise ServeFailed(f"`ff serve` could not be started. The end of {settings.log_path}: {_log_end(settings.log_path)}")

    def _until(self, condition: Callable[[], bool], limit_s: float) -> bool:
        for _ in range(int(limit_s / POLL_S)):
            if condition():
                return True
            self._sleep(POLL_S)
        return condition()


def make_folder(settings: DesktopSettings) -> None:
    """Make the data folder, for its user only. Raises ``DataFolderUnfit``."""
    if len(os.fsencode(settings.socket_path.absolute())) > SOCKET_PATH_BYTES_MAX:
        raise DataFolderUnfit(
            f"The path {settings.desktop_dir} is too long for a socket in it; set FF_DESKTOP_DIR to a shorter one."
        )
    try:
        settings.desktop_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        settings.desktop_dir.chmod(0o700)
    except OSError as error:
        raise DataFolderUnfit(f"The data folder {settings.desktop_dir} can't be used: {error.strerror}.") from error


def _is_open(socket_path: Path) -> bool:
    """Whether somebody listens there; of a process that was killed the socket's file is left."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(CONNECT_TIMEOUT_S)
        try:
            probe.connect(str(socket_path))
        except OSError:
            return False
    return True


def _is_free(lock_path: Path) -> bool:
    """Whether nobody serves: who does holds the lock until all is over."""
    try:
        with lock_path.open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except FileNotFoundError:
        return True
    except BlockingIOError:
        return False
    return True


def _spawn(settings: DesktopSettings) -> int:
    """Start it, so that it lives on without us and our terminal; its pid. It makes a session of its own first of all."""
    environment = {name: value for name, value in os.environ.items() if name not in NOT_INHERITED}
    # It stands in another folder than we do.
    environment["FF_DESKTOP_DIR"] = str(settings.desktop_dir.absolute())
    environment["FF_CONFIG_DIR"] = str(settings.config_dir.absolute())
    log = os.fspath(settings.log_path)
    return os.posix_spawn(
        sys.executable,
        [sys.executable, "-P", "-m", "ff_desktop.serving"],
        environment,
        file_actions=[
            (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
            (os.POSIX_SPAWN_OPEN, 1, log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600),
            (os.POSIX_SPAWN_DUP2, 1, 2),
        ],
    )


def _exit_of(pid: int) -> list[int]:
    """How our child ended, if it did."""
    ended, status = os.waitpid(pid, os.WNOHANG)
    return [os.waitstatus_to_exitcode(status)] if ended else []


def _log_end(path: Path) -> str:
    try:
        return path.read_bytes()[-LOG_SHOWN_BYTES:].decode(errors="replace").strip() or "it is empty"
    except OSError:
        return "it can't be read"
