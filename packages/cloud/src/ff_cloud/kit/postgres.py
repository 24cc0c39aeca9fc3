"""The embedded PostgreSQL: one cluster in a private directory, started and stopped with the server that owns it.

What it keeps, because each was broken by a packaged launcher we tried:

* The lock is an ``flock`` in the data directory, so it dies with its holder and different directories never meet.
* Passwords (scram) lie in 0600 files, the socket in a 0700 directory; nothing listens on TCP.
* The collation is built in (C.UTF-8), so that a data directory may move between machines; pages have checksums.
* A live server is recognised by a real connection. A stale pid file is removed only under the lock and after
  looking at what the pid runs; an orphan of a killed predecessor is adopted.
* Starting waits as long as the process lives (crash recovery may be long), and never touches a foreign mode or user.

Embedded means one server process on one host. More replicas need a real server (``FF_DATABASE_URL``).
"""

import asyncio
import fcntl
import hashlib
import os
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from types import MappingProxyType
from typing import IO

import psycopg
import structlog
from psycopg import sql
from sqlalchemy import URL

from ff_cloud.kit.errors import DatabaseInUse, DatabaseNotStarted
from ff_cloud.kit.postgres_binaries import Runner, major_version, reachable_binaries
from ff_core.world import World

log = structlog.get_logger(__name__)

LOGIN = "ff"
"""The role, and the database of that name, the server logs in with: no superuser, may create the roles of tenancy."""

_POLL_S = 0.02
_INITDB_TIMEOUT_S = 120
_STOP_FAST_S = 30.0
_STOP_IMMEDIATE_S = 5.0
_RETRY_AFTER_CRASH_S = 10.0
_SOCKET_PATH_MAX = 85  # sun_path holds 104 bytes on macOS, and the file in it is named .s.PGSQL.5432.lock
_LOG_TAIL_BYTES = 800
_LOG_BYTES_MAX = 16 * 1024 * 1024

DURABLE: Mapping[str, str] = MappingProxyType({"fsync": "on", "full_page_writes": "on", "synchronous_commit": "on"})
_SETTINGS = {
    "listen_addresses": "",
    "max_connections": "100",
    "shared_buffers": "64MB",
    "jit": "off",
    "log_min_duration_statement": "500",
    "log_parameter_max_length": "0",
    "log_parameter_max_length_on_error": "0",
    "idle_in_transaction_session_timeout": "60s",
}


class EmbeddedPostgres:
    """A PostgreSQL cluster below ``data``, which is made when missing.

    ``exclusive`` refuses to share it with another server process; without it, :meth:`start` joins a server that runs
    already (for commands beside a running server) and :meth:`stop` leaves that one alone. ``run_as`` names the user
    when we are root. ``settings`` add to or replace PostgreSQL's settings; a test may drop durability, nobody else.
    All methods block; see :func:`embedded_postgres` for asyncio.
    """

    def __init__(
        self,
        data: Path,
        *,
        exclusive: bool = True,
        run_as: str | None = None,
        settings: Mapping[str, str] = MappingProxyType({}),
    ) -> None:
        self.data = data.absolute()
        self.cluster = self.data / "cluster"
        self.log_file = self.data / "postgres.log"
        self._exclusive = exclusive
        self._runner = Runner.choose(run_as)
        self._settings = settings
        self._socket = _socket_directory(self.data)
        self._lock: IO[str] | None = None
        self._process: subprocess.Popen[bytes] | None = None
        self._changing = threading.RLock()  # starting and stopping happen in threads

    def url(self) -> URL:
        """The server's own login (:data:`LOGIN`); not a superuser."""
        return self._url(LOGIN, LOGIN, self.data / "password")

    def admin_url(self, database: str = "postgres") -> URL:
        """The superuser: for setting up, dumps and tests. Never the server's."""
        return self._url("postgres", database, self.data / "password.admin")

    @property
    def pid(self) -> int | None:
        """The process id of the cluster's running server, whoever started it."""
        with suppress(FileNotFoundError, ValueError, IndexError):
            pid = int((self.cluster / "postmaster.pid").read_text().splitlines()[0])
            return pid if self._is_ours(pid) else None
        return None

    def start(self) -> None:
        """Return when the cluster accepts connections; may be repeated, and revives a server that died.

        Takes a second the first time, hundredths of one later, and as long as recovery takes after a crash. Raises
        :class:`DatabaseInUse` when another process owns the directory, :class:`DatabaseNotStarted` with the reason.
        """
        with self._changing:
            self._start()

    def stop(self) -> None:
        """Stop the server if it is ours to stop, letting transactions that run end in a rollback; may be repeated."""
        with self._changing:
            if self._lock is not None:
                self._stop(self._lock)

    def answers(self) -> bool:
        """Whether a server of exactly this cluster accepts connections."""
        if not (self.data / "password.admin").exists():
            return False
        try:
            with self._connect() as connection:
                row = connection.execute("show data_directory").fetchone()
        except psycopg.OperationalError:
            return False
        return row is not None and Path(row[0]) == self.cluster

    async def keep_running(self, world: World, *, every_s: float = 0.5) -> None:
        """Start the server again whenever it dies, until cancelled. Only for the owner, after :meth:`start`."""
        while True:
            await world.sleep(every_s)
            if self.pid is None:
                log.error("postgres.died", data=str(self.data))
                try:
                    await asyncio.to_thread(self._revive)
                except DatabaseNotStarted as error:
                    log.error("postgres.not_restarted", reason=error.detail)  # noqa: TRY400  (the reason says it all)
                else:
                    log.info("postgres.restarted", pid=self.pid)

    def _start(self) -> None:
        self.data.parent.mkdir(parents=True, exist_ok=True)
        self._runner.require_entry(self.data)
        self._make_private(self.data)
        if not self._take_lock():
            self._join()
            return
        try:
            self._start_owned()
        except BaseException:
            self.stop()
            raise

    def _stop(self, lock: IO[str]) -> None:
        pid = self.pid
        for number, patience_s in ((signal.SIGINT, _STOP_FAST_S), (signal.SIGQUIT, _STOP_IMMEDIATE_S)):
            if pid is None or self._gone(pid):
                break
            with suppress(ProcessLookupError):
                os.kill(pid, number)
            deadline = time.monotonic() + patience_s
            while not self._gone(pid) and time.monotonic() < deadline:
                time.sleep(_POLL_S)
        self._reap()
        lock.close()
        self._lock = None

    def _revive(self) -> None:
        with self._changing:
            if self._lock is not None:  # not stopped meanwhile
                self._start_owned()

    def _start_owned(self) -> None:
        self._make_private(self._socket)
        binaries = reachable_binaries(self._runner, self.data / "programs")
        if not (self.cluster / "PG_VERSION").exists():
            self._initialise(binaries)
        self._require_version(binaries)
        if not self._adopt():
            self._launch(binaries)
        self._ensure_login()

    def _adopt(self) -> bool:
        # An orphan may still be recovering from a crash of its own: it has the time it needs.
        while not self.answers():
            if self.pid is None:
                return False
            time.sleep(_POLL_S)
        return True

    def _initialise(self, binaries: Path) -> None:
        # initdb is not atomic: the cluster is built aside and appears by rename.
        aside = self.data / "cluster.new"
        shutil.rmtree(aside, ignore_errors=True)
        password = self._write_password(self.data / "password.admin")
        self._runner.own(password)
        command: list[str | Path] = [binaries / "initdb", "-D", aside, "-U", "postgres", "--pwfile", password]
        command += ["-A", "scram-sha-256", "-E", "UTF8", "--data-checksums", "--locale=C"]
        if major_version(binaries, self._runner) >= 17:
            command += ["--locale-provider=builtin", "--builtin-locale=C.UTF-8"]
        try:
            subprocess.run(command, check=True, capture_output=True, timeout=_INITDB_TIMEOUT_S, **self._runner.popen())
        except subprocess.CalledProcessError as error:
            reason = error.stderr.decode(errors="replace").strip()[-_LOG_TAIL_BYTES:]
            raise DatabaseNotStarted(f"initdb failed in {self.data}: {reason}") from error
        aside.rename(self.cluster)

    def _require_version(self, binaries: Path) -> None:
        have, want = int((self.cluster / "PG_VERSION").read_text()), major_version(binaries, self._runner)
        if have != want:
            message = f"{self.cluster} is of PostgreSQL {have}, this program brings {want}: dump it with the old one."
            raise DatabaseNotStarted(message)

    def _launch(self, binaries: Path) -> None:
        crashed = (self.cluster / "postmaster.pid").exists()
        self._reap()
        self._forget_stale_pids()
        if self.log_file.exists() and self.log_file.stat().st_size > _LOG_BYTES_MAX:
            self.log_file.replace(self.log_file.with_suffix(".log.1"))
        settings = {**_SETTINGS, **DURABLE, "unix_socket_directories": str(self._socket), **self._settings}
        # Only the socket's directory guards it when root has to pass a foreign user's socket.
        settings["unix_socket_permissions"] = "0777" if self._runner.switches else "0700"
        command: list[str | Path] = [binaries / "postgres", "-D", self.cluster]
        command += [f"--{name}={value}" for name, value in settings.items()]
        retry_until = time.monotonic() + (_RETRY_AFTER_CRASH_S if crashed else 0)
        while True:
            with self.log_file.open("ab") as output:
                self._process = subprocess.Popen(command, stdout=output, stderr=output, **self._runner.popen())
            if self._wait_until_ready(self._process):
                return
            # Orphaned children of a postmaster that was killed hold its shared memory for a moment.
            if time.monotonic() >= retry_until:
                tail = self.log_file.read_bytes()[-_LOG_TAIL_BYTES:].decode(errors="replace")
                raise DatabaseNotStarted(f"PostgreSQL exited at once; {self.log_file} ends with: {tail}")
            time.sleep(_POLL_S * 10)

    def _wait_until_ready(self, process: subprocess.Popen[bytes]) -> bool:
        patient_until = time.monotonic() + 10
        while process.poll() is None:
            if self.answers():
                return True
            if time.monotonic() > patient_until:
                log.info("postgres.recovering", data=str(self.data))
                patient_until += 10
            time.sleep(_POLL_S)
        return False

    def _reap(self) -> None:
        if self._process is not None:
            with suppress(subprocess.TimeoutExpired):
                self._process.wait(_STOP_IMMEDIATE_S)
            self._process = None

    def _forget_stale_pids(self) -> None:
        # PostgreSQL refuses to start while the pid in these files lives, even when it is a stranger's by now.
        for file in (self.cluster / "postmaster.pid", self._socket / ".s.PGSQL.5432.lock"):
            with suppress(FileNotFoundError, ValueError, IndexError):
                if not self._is_ours(int(file.read_text().splitlines()[0])):
                    file.unlink()

    def _ensure_login(self) -> None:
        with self._connect() as connection:
            role = sql.Identifier(LOGIN)
            if connection.execute("select 1 from pg_roles where rolname = %s", [LOGIN]).fetchone() is None:
                connection.execute(sql.SQL("create role {} login createrole noinherit").format(role))
            file = self.data / "password"
            if not file.exists():
                self._write_password(file.with_name("password.new"))
                password = file.with_name("password.new").read_bytes()
                digest = connection.pgconn.encrypt_password(password, LOGIN.encode(), b"scram-sha-256")
                statement = sql.SQL("alter role {} password {}")
                connection.execute(statement.format(role, sql.Literal(digest.decode())))
                file.with_name("password.new").rename(file)
            if connection.execute("select 1 from pg_database where datname = %s", [LOGIN]).fetchone() is None:
                connection.execute(sql.SQL("create database {} owner {}").format(role, role))

    def _take_lock(self) -> bool:
        if self._lock is not None:
            return True
        lock = (self.data / "lock").open("a+")
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            lock.seek(0)
            holder = lock.read().strip() or "unknown"
            lock.close()
            if self._exclusive:
                message = (
                    f"Another server (process {holder}) uses the database in {self.data}. "
                    f"Stop it, choose another data directory, or set FF_DATABASE_URL to share one PostgreSQL."
                )
                raise DatabaseInUse(message, holder=holder) from None
            return False
        lock.truncate(0)
        lock.write(f"{os.getpid()}\n")
        lock.flush()
        self._lock = lock
        return True

    def _join(self, patience_s: float = 60) -> None:
        deadline = time.monotonic() + patience_s
        while not ((self.data / "password").exists() and self.answers()):
            if time.monotonic() > deadline:
                raise DatabaseNotStarted(f"The server that owns {self.data} does not bring its database up.")
            time.sleep(_POLL_S * 5)

    def _make_private(self, directory: Path) -> None:
        directory.mkdir(mode=0o700, exist_ok=True)
        status = directory.lstat()
        private = not status.st_mode & 0o077 and status.st_uid in {os.geteuid(), self._runner.uid}
        if directory.is_symlink() or not private:
            raise DatabaseNotStarted(f"{directory} must be a directory of mode 0700 that belongs to us.")
        self._runner.own(directory)

    def _write_password(self, file: Path) -> Path:
        descriptor = os.open(file, os.O_CREAT | os.O_WRONLY | os.O_TRUNC, 0o600)
        with os.fdopen(descriptor, "w") as stream:
            stream.write(secrets.token_urlsafe(24))
        return file

    def _connect(self) -> psycopg.Connection:
        return psycopg.connect(
            host=str(self._socket),
            user="postgres",
            dbname="postgres",
            password=(self.data / "password.admin").read_text(),
            connect_timeout=3,
            autocommit=True,
        )

    def _url(self, user: str, database: str, password: Path) -> URL:
        query = {"host": str(self._socket)}
        return URL.create("postgresql+psycopg", user, password.read_text(), database=database, query=query)

    def _is_ours(self, pid: int) -> bool:
        # A zombie has an empty command line, so it counts as gone.
        try:
            if sys.platform == "linux":
                command = Path(f"/proc/{pid}/cmdline").read_bytes()
            else:
                command = subprocess.check_output(["ps", "-o", "command=", "-p", str(pid)], timeout=10)
        except (OSError, subprocess.SubprocessError):
            return False
        return os.fsencode(self.cluster) in command

    def _gone(self, pid: int) -> bool:
        if self._process is not None and self._process.pid == pid:
            return self._process.poll() is not None
        return not self._is_ours(pid)


@asynccontextmanager
async def embedded_postgres(data: Path, *, exclusive: bool = True, run_as: str | None = None) -> AsyncIterator[EmbeddedPostgres]:
    """Run the embedded PostgreSQL of ``data`` for the length of the block; see :class:`EmbeddedPostgres`."""
    server = EmbeddedPostgres(data, exclusive=exclusive, run_as=run_as)
    starting = asyncio.ensure_future(asyncio.to_thread(server.start))
    try:
        await asyncio.shield(starting)
        yield server
    finally:
        # A cancelled start still runs in its thread; what it started has to be stopped.
        await asyncio.wait({starting})
        await asyncio.to_thread(server.stop)


def _socket_directory(data: Path) -> Path:
    beside = data / "run"
    if len(os.fsencode(beside)) <= _SOCKET_PATH_MAX:
        return beside
    digest = hashlib.sha256(os.fsencode(data)).hexdigest()[:12]
    return Path(os.environ.get("XDG_RUNTIME_DIR") or tempfile.gettempdir()) / f"ff-pg-{digest}"
