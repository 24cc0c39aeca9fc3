"""The Docker Engine is cut off, or killed, in the middle of everything, at the worst moment, and comes back after a while."""

import asyncio
import os
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Literal

import pytest
from api_user import User
from ground import Ground
from own_dockerd import OwnDockerd, own_dockerd
from stack import scratch

from ff_cloud.testing.postgres import PostgresForTests
from ff_cloud.testing.server import LISTENING, own_environment, program, running
from ff_cloud.testing.vm_network import vm_network

pytestmark = [pytest.mark.docker, pytest.mark.asyncio(loop_scope="session")]

DOCKER = "/var/run/docker.sock"
AWAY_S = 2.0
LIMIT_S = 60.0
CHUNK_BYTES = 65_536


class Way:
    """To the Docker Engine, through us; can be cut by hand or when a question of some kind passes. ``killed`` goes with it."""

    def __init__(self, killed: OwnDockerd | None = None) -> None:
        self.cut = asyncio.Event()
        self._engine = DOCKER if killed is None else str(killed.socket)
        self._killed = killed
        self._trigger: bytes | None = None
        self._writers: set[asyncio.StreamWriter] = set()

    def spares(self, words: bytes) -> bool:
        """Whether it stays. A killed one takes ten seconds to come back: it is killed at the starts, in the soak everywhere."""
        return self._killed is not None and words != b"/start " and not os.environ.get("FF_SOAK_S")

    def cut_at(self, words: bytes) -> None:
        """The next question with these words reaches Docker; its answer, and all afterwards, reach nobody."""
        self._trigger = words

    def cut_now(self) -> None:
        """All connections end, and no new one works."""
        if self._killed is not None and not self.cut.is_set():
            self._killed.kill()
        self.cut.set()
        self.close()

    def close(self) -> None:
        """End all connections."""
        for writer in self._writers:
            writer.transport.abort()

    async def mend(self) -> None:
        """It works again."""
        self._trigger = None
        if self._killed is not None:
            await asyncio.to_thread(self._killed.start)
        self.cut.clear()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self.cut.is_set():
            writer.transport.abort()
            return
        to_docker = None
        self._writers.add(writer)
        try:
            from_docker, to_docker = await asyncio.open_unix_connection(self._engine)
            await asyncio.gather(self._pass(reader, to_docker, watched=True), self._pass(from_docker, writer, watched=False))
        except OSError:
            pass
        finally:
            self._writers.discard(writer)
            writer.transport.abort()
            if to_docker is not None:
                to_docker.close()

    async def _pass(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, watched: bool) -> None:
        while data := await reader.read(CHUNK_BYTES):
            writer.write(data)
            await writer.drain()
            if watched and self._trigger is not None and self._trigger in data:
                self._trigger = None
                self.cut_now()
        writer.close()


@asynccontextmanager
async def served(way: Way, kind: Literal["unix", "tcp"], folder: Path) -> AsyncIterator[str]:
    """The address of a way as ``FF_DOCKER_HOST`` takes it."""
    if kind == "unix":
        server = await asyncio.start_unix_server(way.serve, path=folder / "docker.sock")
        url = f"unix://{folder / 'docker.sock'}"
    else:
        server = await asyncio.start_server(way.serve, "127.0.0.1", 0)
        url = f"tcp://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    try:
        yield url
    finally:
        server.close()
        way.close()


async def test_a_docker_engine_that_goes_away_in_the_middle_of_everything(
    ground: Ground, real_postgres: PostgresForTests
) -> None:
    with scratch() as folder:
        await _with_server(Way(), "tcp", folder, ground, real_postgres)


async def test_a_docker_engine_that_is_killed_in_the_middle_of_everything(
    ground: Ground, real_postgres: PostgresForTests
) -> None:
    with scratch() as folder, own_dockerd(folder) as own:
        async with vm_network(purpose="killed", url=own.url) as network:
            there = Ground(network, ground.model, own.url)
            await _with_server(Way(own), "unix", folder, there, real_postgres)


async def _with_server(way: Way, kind: Literal["unix", "tcp"], folder: Path, ground: Ground, postgres: PostgresForTests) -> None:
    """Let a server of its own go through everything."""
    url = postgres.create_database().render_as_string(hide_password=False)
    async with served(way, kind, folder) as docker_host:
        with ground.deployment(kind) as settings:
            more = {"FF_DOCKER_HOST": docker_host, "FF_DATABASE_URL": url, "FF_DATA_DIR": str(folder / "data"), "FF_PORT": "0"}
            environment, log = own_environment(settings | more), folder / "log"
            serving = running([program("ff-cloud"), "serve"], environment=environment, log=log, ready=LISTENING)
            server = await asyncio.to_thread(serving.__enter__)
            try:
                async with User.sign_up(server.url) as user:
                    await _a_life(way, user, lambda: ground.settled(url, settings, timeout_s=LIMIT_S))
            except AssertionError as error:
                raise AssertionError(f"{error}\n{log.read_text()[-6000:]}") from error
            finally:
                await asyncio.to_thread(serving.__exit__, None, None, None)


async def _a_life(way: Way, user: User, settled: Callable[[], Awaitable[None]]) -> None:
    """Of two workspaces; the way is cut at each turn."""
    for words in (b"containers/create", b"/start "):
        async with _away_from(way, words):
            first = await user.order()
        assert (await user.settled(first.id)).status == "READY"
        await settled()
    await user.shell(first.id, "echo kept > ~/file")

    async with _away_from(way, b"/stop "):
        await user.suspend(first.id)
    async with asyncio.timeout(LIMIT_S):
        while (await user.workspace(first.id)).vm.status != "SUSPENDED":
            await asyncio.sleep(0.05)
    await settled()

    async with _away_from(way, b"/start "):
        waking = asyncio.create_task(user.run(first.id, "cat", "/workspace/home/file"))
    ran = await waking
    assert ran.stdout == b"kept\n"
    await settled()

    async with _away_from(way, b"DELETE "):
        await user.call("DELETE", f"/v1/workspaces/{first.id}")
    await user.gone(first.id)
    await settled()


@asynccontextmanager
async def _away_from(way: Way, words: bytes) -> AsyncIterator[None]:
    """Docker is away for a while from the moment on when it is asked this, which the block brings about."""
    if way.spares(words):
        yield
        return
    way.cut_at(words)
    yield
    async with asyncio.timeout(LIMIT_S):
        await way.cut.wait()
    await asyncio.sleep(AWAY_S)
    await way.mend()
