"""A checkout that begins with a seed is the same checkout, only sooner; whatever is wrong with a seed, it is made without."""

import asyncio
import os
import subprocess
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path
from uuid import UUID

import pytest

from ff_core.contract.daemon import PrepareRepository
from ff_core.daemon.http import ClientGone
from ff_core.git import seed
from ff_core.git.errors import RepoNotFound
from ff_core.git.seed import SeedRefused
from ff_core.ids import WorkspaceId
from ff_core.process import RunAs
from ff_core.store.engine import Store
from ff_core.store.journal import Journal
from ff_core.testing.git_server import GitServer
from ff_core.workspaces.errors import SeedTooLate
from ff_core.workspaces.service import Workspaces
from ff_core.world import SystemWorld

W = WorkspaceId(UUID(int=1))
AT = datetime(2030, 1, 1, tzinfo=UTC)
BIG = os.urandom(1 << 20)


class Host:
    """One workspace in ``root``, as its user's where we can become him."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.open()

    def open(self) -> None:
        self.store = Store.open(self.root / "state.db")
        self.workspaces = Workspaces(
            store=self.store,
            journal=Journal(self.store, SystemWorld()),
            world=SystemWorld(),
            checkout=self.root / "repo",
            run_as=RunAs(1000, 1000, self.root / "home") if os.geteuid() == 0 else None,
            allow_plain_http=True,
        )
        self.workspaces.bind(W, "mine")

    async def close(self) -> None:
        await self.workspaces.close()
        self.store.close()


@pytest.fixture
async def host(root):
    host = Host(root)
    yield host
    await host.close()


@pytest.fixture
async def server(tmp_path):
    (tmp_path / "served").mkdir()
    async with GitServer(tmp_path / "served") as server:
        await server.create("team/app", {"big": BIG})
        yield server


@pytest.fixture
async def mirror(server, tmp_path):
    """Of the repository, which has moved on since."""
    folder = tmp_path / "mirror"
    await asyncio.to_thread(
        subprocess.run,
        ["git", "clone", "--quiet", "--bare", "--template=", server.url("team/app"), str(folder)],
        check=True,
        env={"PATH": os.environ["PATH"], "HOME": str(tmp_path)},
    )
    seed.describe(folder, url=server.url("team/app"), fetched_at=AT)
    await server.commit("team/app", {"new": "er"})
    return folder


def packs(folder: Path) -> set[str]:
    return {path.name for path in (folder / "objects/pack").glob("*.pack")}


def left_over(host: Host) -> list[str]:
    return [path.name for path in host.root.iterdir() if path.name.startswith(".repo")]


def is_whole(host: Host) -> bool:
    repo = host.root / "repo"
    return ((repo / "big").read_bytes(), (repo / "new").read_text()) == (BIG, "er") and not left_over(host)


async def test_what_the_seed_has_is_taken_from_it_and_nothing_of_it_stays(host, server, mirror):
    taken = await host.workspaces.take_seed(seed.pack(mirror))
    assert (taken.url, taken.size_bytes > len(BIG)) == (server.url("team/app"), True)
    await host.workspaces.prepare(W, PrepareRepository(url=server.url("team/app")))
    assert is_whole(host)
    repo = host.root / "repo"
    assert packs(mirror) < packs(repo / ".git")
    assert not (repo / ".git/objects/info/alternates").exists()
    if os.geteuid() == 0:
        assert {path.lstat().st_uid for path in repo.rglob("*")} == {1000}


async def test_a_newer_seed_replaces_one_and_one_of_another_address_is_no_use(host, server, mirror, tmp_path):
    await host.workspaces.take_seed(seed.pack(mirror))
    seed.describe(mirror, url=server.url("team/other"), fetched_at=AT)
    await host.workspaces.take_seed(seed.pack(mirror))
    await host.workspaces.prepare(W, PrepareRepository(url=server.url("team/app")))
    assert is_whole(host)
    assert not packs(mirror) & packs(host.root / "repo/.git")


@pytest.mark.parametrize("damage", ["objects/pack/*.pack", "objects/pack/*.idx", "config", "objects/pack"])
async def test_a_seed_that_turns_out_to_be_broken_is_done_without(host, server, mirror, damage):
    await host.workspaces.take_seed(seed.pack(mirror))
    (found,) = (host.root / ".repo.seed").glob(damage)
    if found.is_dir():
        for file in found.iterdir():
            file.unlink()
    else:
        found.unlink()
        found.write_bytes(b"nonsense")
    await host.workspaces.prepare(W, PrepareRepository(url=server.url("team/app")))
    assert is_whole(host)


async def broken_off(stream: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    yield await anext(stream)
    yield (await anext(stream))[:100]
    raise ClientGone


async def test_a_seed_that_does_not_arrive_whole_leaves_nothing(host, server, mirror):
    with pytest.raises(ClientGone):
        await host.workspaces.take_seed(broken_off(seed.pack(mirror)))
    assert left_over(host) == []

    async def other() -> AsyncIterator[bytes]:
        yield b"x" * 10_000

    with pytest.raises(SeedRefused):
        await host.workspaces.take_seed(other())
    assert left_over(host) == []
    await host.workspaces.prepare(W, PrepareRepository(url=server.url("team/app")))
    assert is_whole(host)


async def test_a_seed_comes_before_the_clone_or_not_at_all(host, server, mirror):
    go_on = asyncio.Event()

    async def late() -> AsyncIterator[bytes]:
        async for piece in seed.pack(mirror):
            yield piece
            await go_on.wait()

    coming = asyncio.create_task(host.workspaces.take_seed(late()))
    while not left_over(host):
        await asyncio.sleep(0.005)
    with pytest.raises(SeedTooLate):  # one at a time
        await host.workspaces.take_seed(seed.pack(mirror))
    preparing = asyncio.create_task(host.workspaces.prepare(W, PrepareRepository(url=server.url("team/app"))))
    while not (host.root / ".repo.incomplete").exists():
        await asyncio.sleep(0.005)
    go_on.set()
    with pytest.raises(SeedTooLate):
        await coming
    await preparing
    with pytest.raises(SeedTooLate):
        await host.workspaces.take_seed(seed.pack(mirror))
    assert is_whole(host)


async def test_the_seed_of_a_clone_that_failed_is_gone_and_another_may_follow(host, server, mirror):
    seed.describe(mirror, url=server.url("team/none"), fetched_at=AT)
    await host.workspaces.take_seed(seed.pack(mirror))
    with pytest.raises(RepoNotFound):
        await host.workspaces.prepare(W, PrepareRepository(url=server.url("team/none")))
    assert left_over(host) == []
    seed.describe(mirror, url=server.url("team/app"), fetched_at=AT)
    await host.workspaces.take_seed(seed.pack(mirror))
    await host.workspaces.prepare(W, PrepareRepository(url=server.url("team/app")))
    assert is_whole(host)
    assert packs(mirror) < packs(host.root / "repo/.git")


async def test_what_a_killed_process_left_is_removed_by_the_next_clone(host, server, mirror):
    await host.workspaces.take_seed(seed.pack(mirror))
    await host.close()
    host.open()
    assert left_over(host) == [".repo.seed"]
    await host.workspaces.prepare(W, PrepareRepository(url=server.url("team/app")))
    assert is_whole(host)
