"""The embedded PostgreSQL: locks, deaths, foreign pids, modes."""

import asyncio
import os
import signal
import stat
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psycopg
import pytest

from ff_cloud.kit.db import libpq_arguments
from ff_cloud.kit.errors import DatabaseInUse, DatabaseNotStarted
from ff_cloud.kit.postgres import EmbeddedPostgres, embedded_postgres
from ff_cloud.kit.postgres_binaries import Runner
from ff_core.world import SystemWorld

OWNER = """
import os, signal, sys
from pathlib import Path
from ff_cloud.kit.postgres import EmbeddedPostgres
server = EmbeddedPostgres(Path(sys.argv[1]))
server.start()
print(server.pid, flush=True)
if sys.stdin.readline() == "stop\\n":
    server.stop()
else:
    os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.fixture(scope="module")
def data() -> Iterator[Path]:
    """A data directory that PostgreSQL's user can reach; the cluster in it lives from test to test."""
    with tempfile.TemporaryDirectory(prefix="ff-pg-") as directory:
        yield Path(directory)


@pytest.fixture
def server(data: Path) -> Iterator[EmbeddedPostgres]:
    server = EmbeddedPostgres(data)
    server.start()
    yield server
    server.stop()
    assert server.pid is None


def connect(server: EmbeddedPostgres) -> psycopg.Connection:
    return psycopg.connect(**libpq_arguments(server.url()), autocommit=True)


def until(condition: Callable[[], bool], timeout_s: float = 20) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


class Owner:
    """Another process that owns the cluster."""

    def __init__(self, data: Path) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", OWNER, data], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        assert self.process.stdout is not None
        self.postgres_pid = int(self.process.stdout.readline())

    def end(self, word: str) -> None:
        self.process.communicate(f"{word}\n", timeout=30)


def test_private_durable_and_not_root(server: EmbeddedPostgres) -> None:
    with connect(server) as connection:

        def show(name: str) -> str:
            row = connection.execute("select current_setting(%s)", [name]).fetchone()
            assert row is not None
            return str(row[0])

        assert show("listen_addresses") == ""
        assert [show(name) for name in ("fsync", "full_page_writes", "synchronous_commit", "data_checksums")] == ["on"] * 4
        role = connection.execute("select rolsuper, rolbypassrls from pg_roles where rolname = current_user").fetchone()
        assert role == (False, False)
        locale = "select datlocprovider, datlocale from pg_database where datname = current_database()"
        if connection.info.server_version >= 170000:
            assert connection.execute(locale).fetchone() == ("b", "C.UTF-8")
    modes = {
        name: stat.S_IMODE((server.data / name).stat().st_mode) for name in ("", "run", "cluster", "password", "password.admin")
    }
    assert modes == {"": 0o700, "run": 0o700, "cluster": 0o700, "password": 0o600, "password.admin": 0o600}
    pid = server.pid
    assert pid is not None
    assert Path(f"/proc/{pid}").stat().st_uid == Runner.choose().uid != 0
    assert os.getsid(pid) != os.getsid(0)  # Ctrl-C on the terminal does not reach it
    assert "password" not in Path(f"/proc/{pid}/cmdline").read_text()


@pytest.mark.parametrize("user", ["ff", "postgres"])
def test_a_wrong_password_is_refused(server: EmbeddedPostgres, user: str) -> None:
    for password in ("", "wrong"):
        with pytest.raises(psycopg.OperationalError, match="password"):
            psycopg.connect(**libpq_arguments(server.url()) | {"user": user, "password": password})


def test_start_and_stop_may_be_repeated(data: Path) -> None:
    server = EmbeddedPostgres(data)
    server.stop()
    for _ in range(2):
        server.start()
        pid = server.pid
        server.start()
        assert server.pid == pid is not None
        server.stop()
        server.stop()
        assert server.pid is None


def test_a_second_server_is_told_who_has_the_data(data: Path) -> None:
    owner = Owner(data)
    try:
        with pytest.raises(DatabaseInUse, match=f"process {owner.process.pid}.*FF_DATABASE_URL"):
            EmbeddedPostgres(data).start()
        beside = EmbeddedPostgres(data, exclusive=False)
        beside.start()
        connect(beside).close()
        beside.stop()
        assert beside.answers()  # not ours to stop
    finally:
        owner.end("stop")
    assert not beside.answers()


def test_the_orphan_of_a_killed_owner_is_adopted_and_stopped(data: Path) -> None:
    owner = Owner(data)
    owner.end("die")
    server = EmbeddedPostgres(data)
    server.start()
    assert server.pid == owner.postgres_pid
    connect(server).close()
    server.stop()
    until(lambda: server.pid is None)


def test_kill_9_under_inserts_loses_no_acknowledged_row(server: EmbeddedPostgres) -> None:
    with connect(server) as connection:
        connection.execute("create schema if not exists mine")
        connection.execute("create table if not exists mine.kept (n int primary key)")
    acknowledged = 0
    for _ in range(3):
        pid = server.pid
        assert pid is not None
        target = acknowledged + 50
        with pytest.raises(psycopg.OperationalError), connect(server) as connection:
            while True:
                connection.execute("insert into mine.kept values (%s)", [acknowledged + 1])
                acknowledged += 1
                if acknowledged == target:
                    os.killpg(os.getpgid(pid), signal.SIGKILL)  # a session of its own: all of PostgreSQL, nobody else
        server.start()
        with connect(server) as connection:
            [found] = connection.execute("select max(n) from mine.kept").fetchone() or [0]
            assert found in {acknowledged, acknowledged + 1}
            acknowledged = found


async def test_a_server_that_dies_is_started_again(data: Path) -> None:
    async with embedded_postgres(data) as server:
        keeper = asyncio.create_task(server.keep_running(SystemWorld(), every_s=0.05))
        old = server.pid
        assert old is not None
        os.kill(old, signal.SIGKILL)  # the postmaster only: its children hold the shared memory a moment longer
        async with asyncio.timeout(20):
            while server.pid in {None, old} or not await asyncio.to_thread(server.answers):
                await asyncio.sleep(0.05)
        keeper.cancel()
        await asyncio.gather(keeper, return_exceptions=True)
    assert server.pid is None


async def test_a_start_that_is_cancelled_leaves_nothing(data: Path) -> None:
    server = EmbeddedPostgres(data)

    async def serve() -> None:
        async with embedded_postgres(data):
            await asyncio.Event().wait()

    task = asyncio.create_task(serve())
    async with asyncio.timeout(20):
        while not (data / "lock").read_text():
            await asyncio.sleep(0.001)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    assert server.pid is None
    server.start()
    server.stop()


def test_the_stale_pid_of_a_living_stranger(data: Path) -> None:
    server = EmbeddedPostgres(data)
    server.start()
    pid_file, socket_lock = data / "cluster/postmaster.pid", data / "run/.s.PGSQL.5432.lock"
    stale = {file: file.read_text().replace(str(server.pid), str(os.getpid()), 1) for file in (pid_file, socket_lock)}
    server.stop()
    for file, content in stale.items():
        file.write_text(content)
    assert server.pid is None
    server.start()
    connect(server).close()
    server.stop()


def test_another_major_version_is_refused(data: Path) -> None:
    version = data / "cluster/PG_VERSION"
    genuine = version.read_text()
    version.write_text("14\n")
    try:
        with pytest.raises(DatabaseNotStarted, match="PostgreSQL 14"):
            EmbeddedPostgres(data).start()
    finally:
        version.write_text(genuine)


def test_a_directory_open_to_others_is_refused(tmp_path: Path) -> None:
    with tempfile.TemporaryDirectory(prefix="ff-pg-") as directory:
        Path(directory).chmod(0o755)
        with pytest.raises(DatabaseNotStarted, match="0700"):
            EmbeddedPostgres(Path(directory)).start()
        assert stat.S_IMODE(Path(directory).stat().st_mode) == 0o755


@pytest.mark.skipif(os.geteuid() != 0, reason="only root runs PostgreSQL as somebody else")
def test_root_is_told_when_the_other_user_can_not_get_there() -> None:
    with tempfile.TemporaryDirectory(prefix="ff-pg-") as directory:
        with pytest.raises(DatabaseNotStarted, match=f"may not enter {directory}"):
            EmbeddedPostgres(Path(directory) / "data").start()
        assert not (Path(directory) / "data").exists()


def test_a_path_too_long_for_a_socket() -> None:
    with tempfile.TemporaryDirectory(prefix="ff-pg-") as directory:
        Path(directory).chmod(0o755)
        data = Path(directory) / ("deep " * 20)
        server = EmbeddedPostgres(data)
        server.start()
        try:
            connect(server).close()
        finally:
            server.stop()
            Path(str(server.url().query["host"])).rmdir()
