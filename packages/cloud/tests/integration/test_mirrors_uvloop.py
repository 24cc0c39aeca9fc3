"""Git as a server runs it: on uvloop, whose pipes and processes are not asyncio's own."""

import asyncio
from contextlib import suppress

import pytest
import uvloop

from ff_core.git import seed
from ff_core.git.errors import CloneTimedOut, RepoAuthFailed
from ff_core.git.mirror import Mirror
from ff_core.git.remote import Credential, parse_repo_url
from ff_core.git.unattended import look
from ff_core.testing.git_server import GitServer
from ff_core.world import SystemWorld

TOKEN = Credential("ghp_the-token-that-may-read")
ALL = 1 << 30


async def a_private_repository_is_mirrored(tmp_path) -> None:
    async with GitServer(tmp_path, credentials=(TOKEN.username, TOKEN.token)) as server:
        url = parse_repo_url(await server.create("r", {"a": bytes(3_000_000)}), allow_plain_http=True)
        with pytest.raises(RepoAuthFailed):
            await look(url, credential=None, timeout_s=20, folder=tmp_path)
        listing = await look(url, credential=TOKEN, timeout_s=20, folder=tmp_path)
        mirror = Mirror(tmp_path / "mirror", url, world=SystemWorld())
        assert await mirror.ensure(credential=TOKEN, timeout_s=30, bytes_max=ALL, gentle=True)
        assert mirror.holds(listing)
        await server.commit("r", {"b": "2"})
        assert await mirror.ensure(credential=TOKEN, timeout_s=30, bytes_max=ALL)
        with mirror.reading() as generation:
            await seed.unpack(seed.pack(generation), tmp_path / "seed", bytes_max=ALL)


async def what_takes_too_long_or_is_cancelled_ends(tmp_path) -> None:
    ended = asyncio.Event()

    async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(ConnectionError):
            await reader.read(-1)
        writer.close()
        ended.set()

    async with await asyncio.start_server(silent, "127.0.0.1", 0) as listening:
        port = listening.sockets[0].getsockname()[1]
        url = parse_repo_url(f"http://127.0.0.1:{port}/r.git", allow_plain_http=True)
        with pytest.raises(CloneTimedOut):
            await look(url, credential=TOKEN, timeout_s=0.5, folder=tmp_path)
        await asyncio.wait_for(ended.wait(), 10)  # its git is gone
        ended.clear()
        mirror = Mirror(tmp_path / "mirror", url, world=SystemWorld())
        making = asyncio.create_task(mirror.ensure(credential=TOKEN, timeout_s=60, bytes_max=ALL))
        while not list(mirror.place.glob("new-*")):
            await asyncio.sleep(0.01)
        making.cancel()
        with pytest.raises(asyncio.CancelledError):
            await making
        assert not list(mirror.place.glob("new-*"))


@pytest.mark.parametrize("what", [a_private_repository_is_mirrored, what_takes_too_long_or_is_cancelled_ends])
def test_on_uvloop(what, tmp_path):
    uvloop.run(what(tmp_path))
