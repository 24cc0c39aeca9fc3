"""Mirrors with real git and real processes: always whole, however many work on one, whoever is killed."""

import asyncio
import os
import random
import shutil
import signal
import subprocess
import sys
from contextlib import asynccontextmanager, suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from starlette.applications import Starlette
from starlette.responses import RedirectResponse
from starlette.routing import Route

from ff_core.git import seed
from ff_core.git.errors import CloneDiskFull, CloneTimedOut, RepoAuthFailed, RepoNotFound, RepoUnreachable
from ff_core.git.locks import LockBusy, lock
from ff_core.git.mirror import PACKS_GOOD, Mirror, MirrorMissing, MirrorRefused, disk_bytes, remove, repacking, used_at
from ff_core.git.remote import Credential, parse_repo_url
from ff_core.git.run import git_env
from ff_core.git.unattended import Listing, look
from ff_core.process import run
from ff_core.testing.git_server import GitServer
from ff_core.testing.serve import serving
from ff_core.testing.world import FakeWorld
from ff_core.world import SystemWorld

TOKEN = "s3cret-token-4711"
USER = "x-access-token"
ALL = 1 << 30
PROCESS = Path(__file__).with_name("git_mirror_process.py")


@pytest.fixture
async def private(tmp_path):
    (tmp_path / "private").mkdir()
    async with GitServer(tmp_path / "private", credentials=(USER, TOKEN)) as server:
        yield server


def at(url: str):
    return parse_repo_url(url, allow_plain_http=True)


def git(folder: Path, *words: str) -> str:
    return subprocess.run(["git", "-C", str(folder), *words], capture_output=True, check=True, text=True).stdout.strip()


def mirror_of(url: str, tmp_path: Path, world=None) -> Mirror:
    return Mirror(tmp_path / "mirrors/one", at(url), world=world or SystemWorld())


async def ensure(mirror: Mirror, **how) -> bool:
    return await mirror.ensure(**{"credential": None, "timeout_s": 60, "bytes_max": ALL, **how})


def refs(repository: Path) -> str:
    return git(repository, "for-each-ref", "--format=%(refname) %(objectname)")


async def sound(mirror: Mirror, place: Path) -> Path:
    """Unpack a seed of the mirror and have git read all that its refs lead to."""
    with mirror.reading() as generation:
        await seed.unpack(seed.pack(generation), place, bytes_max=ALL)
    words = ["git", "rev-list", "--objects", "--all", "--quiet"]
    done = await run(words, cwd=place, env=git_env(()), timeout_s=60, output_bytes_max=1 << 20)
    assert done.exit_code == 0, done.stderr
    return place


def left_behind(mirror: Mirror) -> list[str]:
    """All but one generation and the notes."""
    notes = {"lock", "current", "used", "refused", (mirror.place / "current").read_text()}
    return sorted(path.name for path in mirror.place.iterdir() if path.name not in notes)


async def test_a_mirror_follows_its_repository_and_carries_packs_over(server, tmp_path):
    url = await server.create("r", {"a": os.urandom(100_000)})
    await server.commit("r", {"b": "1"}, branch="other")
    served = tmp_path / "served/r.git"
    mirror = mirror_of(url, tmp_path)
    assert await ensure(mirror)
    first = mirror.current()
    assert refs(first) == refs(served)
    packs = {path.name: path.stat().st_ino for path in (first / "objects/pack").iterdir()}

    assert not await ensure(mirror)
    assert mirror.current() == first

    await server.commit("r", {"a": "2"})
    git(served, "branch", "-D", "other")
    git(served, "tag", "v1", "main")
    git(served, "branch", "-m", "main", "trunk")
    git(served, "symbolic-ref", "HEAD", "refs/heads/trunk")
    assert await ensure(mirror)
    second = mirror.current()
    assert refs(second) == refs(served)
    assert (second / "HEAD").read_text() == "ref: refs/heads/trunk\n"
    assert packs.items() <= {path.name: path.stat().st_ino for path in (second / "objects/pack").iterdir()}.items()
    assert not (second / "objects/info/alternates").exists()
    assert left_behind(mirror) == []
    await sound(mirror, tmp_path / "seed")


async def test_one_fetches_for_all_who_want_the_same(server, tmp_path):
    url = await server.create("r", {"a": "1"})
    mirror = mirror_of(url, tmp_path)
    for content in "23":
        wanted = await look(at(url), credential=None, timeout_s=10, folder=tmp_path)
        made = await asyncio.gather(*(ensure(mirror_of(url, tmp_path), wanted=wanted) for _ in range(5)))
        assert sorted(made) == [False, False, False, False, True]
        assert mirror.holds(wanted)
        await server.commit("r", {"a": content})


async def test_looking_is_proof_of_access_and_shows_what_is_new(server, private, tmp_path):
    url = await server.create("r", {"a": "1"})
    mirror = mirror_of(url, tmp_path)
    await ensure(mirror)

    async def listing(of: str, credential: Credential | None = None) -> Listing:
        return await look(at(of), credential=credential, timeout_s=10, folder=tmp_path)

    assert mirror.holds(await listing(url))
    git(tmp_path / "served/r.git", "-c", "user.name=a", "-c", "user.email=a@b", "tag", "-m", "annotated", "v1", "main")
    assert not mirror.holds(await listing(url))
    await ensure(mirror)
    assert mirror.holds(await listing(url))
    hidden = await private.create("p", {"a": "1"})
    assert (await listing(hidden, Credential(TOKEN))).refs
    for credential in (None, Credential("wrong")):
        with pytest.raises(RepoAuthFailed):
            await listing(hidden, credential)
    with pytest.raises(RepoNotFound):
        await listing(server.url("nothing"))


async def test_any_name_that_git_takes_is_taken(server, tmp_path):
    """Line ends of other alphabets, bytes that are no UTF-8, a default branch of such a name."""
    url = await server.create("r", {"a": "1"})
    served = tmp_path / "served/r.git"
    odd = [b"line\xe2\x80\xa8end", b"next\xc2\x85line", b"\xff\xfe", "zweig/äöü".encode()]
    for name in odd:
        git(served, "branch", os.fsdecode(name), "main")
    (served / "HEAD").write_bytes(b"ref: refs/heads/\xff\xfe\n")
    mirror = mirror_of(url, tmp_path)
    listing = await look(at(url), credential=None, timeout_s=10, folder=tmp_path)
    assert {os.fsencode(ref) for ref in listing.refs} == {b"refs/heads/" + name for name in [*odd, b"main"]}
    await ensure(mirror, wanted=listing)
    assert mirror.holds(listing)
    assert not await ensure(mirror)
    await sound(mirror, tmp_path / "seed")


async def test_credentials_of_the_account_make_nothing_public(private, tmp_path, monkeypatch):
    """The server's own account may be able to read what its users may not."""
    home = tmp_path / "home"
    home.mkdir()
    url = await private.create("p", {"a": "1"})
    (home / ".netrc").write_text(f"machine 127.0.0.1 login {USER} password {TOKEN}\n")
    (home / ".gitconfig").write_text(f'[credential]\n\thelper = "!f() {{ echo username={USER}; echo password={TOKEN}; }}; f"\n')
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("GIT_CONFIG_COUNT", "1")
    monkeypatch.setenv("GIT_CONFIG_KEY_0", f"url.{private.origin.replace('//', f'//{USER}:{TOKEN}@')}.insteadOf")
    monkeypatch.setenv("GIT_CONFIG_VALUE_0", private.origin)
    seen = await run(["git", "ls-remote", url], cwd=home, env=dict(os.environ), timeout_s=10, output_bytes_max=9999)
    assert seen.exit_code == 0  # each of these would do
    with pytest.raises(RepoAuthFailed):
        await look(at(url), credential=None, timeout_s=10, folder=tmp_path)
    mirror = mirror_of(url, tmp_path)
    with pytest.raises(RepoAuthFailed):
        await ensure(mirror)
    assert mirror.current() is None


async def test_the_token_is_on_no_disk_and_in_no_arguments(private, tmp_path, monkeypatch):
    wrapper, log = tmp_path / "bin", tmp_path / "log"
    wrapper.mkdir()
    for name in ("git", "timeout", "nice", "sh"):
        target = shutil.which(name)
        (wrapper / name).write_text(
            f'#!{shutil.which("sh")}\n{{ tr "\\0" "\\n" </proc/$$/cmdline; tr "\\0" "\\n" </proc/$$/environ; }} >>{log}\n'
            f'exec {target} "$@"\n'
        )
        (wrapper / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{wrapper}:{os.environ['PATH']}")
    url = await private.create("p", {"a": "1"})
    mirror = mirror_of(url, tmp_path)
    await look(at(url), credential=Credential(TOKEN), timeout_s=10, folder=tmp_path)
    await ensure(mirror, credential=Credential(TOKEN), gentle=True)
    await private.commit("p", {"a": "2"})
    await ensure(mirror, credential=Credential(TOKEN))
    assert "ls-remote" in log.read_text()
    assert "clone" in log.read_text()
    assert TOKEN not in log.read_text()
    for path in mirror.place.rglob("*"):
        assert path.is_dir() or TOKEN.encode() not in path.read_bytes()


async def test_no_redirect_is_followed(server, tmp_path):
    url = await server.create("r", {"a": "1"})

    async def elsewhere(request):
        return RedirectResponse(f"{server.origin}{request.url.path}?{request.url.query}")

    async with serving(Starlette(routes=[Route("/{path:path}", elsewhere)])) as origin:
        moved = at(url.replace(server.origin, origin))
        with pytest.raises(RepoUnreachable):
            await look(moved, credential=None, timeout_s=10, folder=tmp_path)
        with pytest.raises(RepoUnreachable):
            await ensure(Mirror(tmp_path / "mirrors/moved", moved, world=SystemWorld()))


async def test_too_large_is_noticed_while_it_comes_and_remembered_for_a_day(server, tmp_path):
    world = FakeWorld(datetime.now(UTC))  # noqa: TID251  (mtimes are real)
    url = await server.create("r", {"a": os.urandom(3 << 20)})
    mirror = mirror_of(url, tmp_path, world)
    with pytest.raises(MirrorRefused):
        await ensure(mirror, bytes_max=1 << 20)
    assert sorted(path.name for path in mirror.place.iterdir()) == ["lock", "refused"]
    with pytest.raises(MirrorRefused):
        await ensure(mirror)
    world.advance(timedelta(days=1, seconds=1).total_seconds())
    assert await ensure(mirror)

    # What grows beyond the bound goes too: neither pack is larger, both together are.
    await server.commit("r", {"b": os.urandom(3 << 20)})
    with pytest.raises(MirrorRefused):
        await ensure(mirror, bytes_max=5 << 20)
    assert sorted(path.name for path in mirror.place.iterdir()) == ["lock", "refused", "used"]
    with pytest.raises(MirrorMissing), mirror.reading():
        pass


async def test_what_can_be_no_mirror(server, tmp_path):
    await server.create("empty", None)
    with pytest.raises(MirrorRefused):
        await ensure(mirror_of(server.url("empty"), tmp_path))
    await server.commit("empty", {"a": "1"})
    assert await ensure(mirror_of(server.url("empty"), tmp_path))  # an empty one is asked again

    git(tmp_path, "init", "--quiet", "--bare", "--object-format=sha256", "served/long.git")
    await server.commit("long", {"a": "1"})
    with pytest.raises(MirrorRefused):
        await ensure(Mirror(tmp_path / "mirrors/long", at(server.url("long")), world=SystemWorld()))

    await server.create("deep", {"a": "1"})
    await server.commit("deep", {"a": "2"})
    (tmp_path / "served/deep.git/shallow").write_text(git(tmp_path / "served/deep.git", "rev-parse", "main") + "\n")
    with pytest.raises(MirrorRefused):
        await ensure(Mirror(tmp_path / "mirrors/deep", at(server.url("deep")), world=SystemWorld()))


async def test_a_damaged_mirror_is_made_anew(server, tmp_path):
    url = await server.create("r", {"a": os.urandom(10_000)})
    mirror = mirror_of(url, tmp_path)
    await ensure(mirror)
    for path in (mirror.current() / "objects/pack").iterdir():
        path.unlink()
    await server.commit("r", {"b": "1"})
    assert await ensure(mirror)
    await sound(mirror, tmp_path / "seed")
    (mirror.current() / "seed.json").write_text("{")
    await server.commit("r", {"b": "2"})
    assert await ensure(mirror)
    await sound(mirror, tmp_path / "seed")


async def test_a_full_disk(server, tmp_path):
    folder = tmp_path / "small"
    folder.mkdir()
    if os.geteuid() or (await mount("mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(folder))):
        pytest.skip("only root may mount")
    try:
        url = await server.create("r", {"a": os.urandom(200_000)})
        mirror = Mirror(folder / "one", at(url), world=SystemWorld())
        await ensure(mirror)
        before = mirror.current()
        await server.commit("r", {"big": os.urandom(4_000_000)})
        with pytest.raises(CloneDiskFull):
            await ensure(mirror)
        assert mirror.current() == before
        assert left_behind(mirror) == []
        await sound(mirror, tmp_path / "seed")
    finally:
        await mount("umount", str(folder))


async def mount(*words: str) -> int:
    done = await run(words, cwd=Path("/"), env={"PATH": os.environ["PATH"]}, timeout_s=10, output_bytes_max=1000)
    return done.exit_code


async def test_time_is_bounded_also_while_waiting_for_others(server, tmp_path):
    url = await server.create("r", {"a": "1"})
    mirror = mirror_of(url, tmp_path)
    await ensure(mirror)
    async with lock(mirror.place / "lock", wait_s=1, world=SystemWorld()):
        with pytest.raises(LockBusy):
            await ensure(mirror, timeout_s=0.1)
        with mirror.reading() as generation:  # reading waits for nobody
            assert refs(generation)

    async def silent(reader, writer):
        await reader.read(-1)
        writer.close()

    listening = await asyncio.start_server(silent, "127.0.0.1", 0)
    try:
        silence = at(f"http://127.0.0.1:{listening.sockets[0].getsockname()[1]}/r.git")
        for _ in range(2):  # and is not tried again for a while
            with pytest.raises(MirrorRefused, match="longer to fetch"):
                await ensure(Mirror(tmp_path / "mirrors/silent", silence, world=SystemWorld()), timeout_s=1)
        with pytest.raises(CloneTimedOut):
            await ensure(Mirror(mirror.place, silence, world=SystemWorld()), timeout_s=1)
        assert mirror.current() is not None
        with pytest.raises(CloneTimedOut):
            await look(silence, credential=None, timeout_s=1, folder=tmp_path)
    finally:
        listening.close()


async def test_what_is_read_stays_until_it_was_read(server, tmp_path):
    url = await server.create("r", {"a": "1"})
    mirror = mirror_of(url, tmp_path)
    await ensure(mirror)
    made_at = used_at(mirror.place)
    small = disk_bytes(mirror.place)
    with mirror.reading() as generation:
        assert used_at(mirror.place) > made_at
        await server.commit("r", {"a": "2"})
        await ensure(mirror)
        assert mirror.current() != generation
        assert small < disk_bytes(mirror.place) < 3 * small
        assert refs(generation)
        assert not remove(mirror.place, mirror._world)
    await server.commit("r", {"a": "3"})
    await ensure(mirror)
    assert not generation.exists()
    assert remove(mirror.place, mirror._world)
    assert list(mirror.place.parent.iterdir()) == []
    assert remove(mirror.place, mirror._world)
    with pytest.raises(MirrorMissing), mirror.reading():
        pass
    assert await ensure(mirror)


async def test_removing_waits_for_nobody_and_a_waiting_process_is_told(server, tmp_path):
    url = await server.create("r", {"a": "1"})
    mirror = mirror_of(url, tmp_path)
    await ensure(mirror)
    async with lock(mirror.place / "lock", wait_s=1, world=SystemWorld()):
        assert not remove(mirror.place, mirror._world)
        waiting = asyncio.create_task(ensure(mirror, timeout_s=20))
        await asyncio.sleep(0.05)  # most likely it waits by now; either way it ends well or says so
        shutil.rmtree(mirror.place)
    with pytest.raises(LockBusy):
        await waiting
    assert await ensure(mirror)


def test_when_to_repack():
    now = datetime(2030, 1, 2, tzinfo=UTC)
    assert repacking(1, lost=False, repacked=now, now=now) is None
    assert repacking(PACKS_GOOD, lost=False, repacked=now, now=now) is None
    assert repacking(PACKS_GOOD + 1, lost=False, repacked=now, now=now) == ["--geometric=2", "-d"]
    assert repacking(1, lost=True, repacked=now, now=now) is None
    assert repacking(1, lost=True, repacked=now - timedelta(days=1), now=now) == ["-a", "-d"]


async def test_many_packs_become_few_and_what_was_rewritten_is_forgotten_after_a_day(server, tmp_path):
    world = FakeWorld(datetime.now(UTC))  # noqa: TID251  (mtimes are real)
    url = await server.create("r", {"a": os.urandom(50_000)})
    served = tmp_path / "served/r.git"
    mirror = mirror_of(url, tmp_path, world)
    await ensure(mirror)
    for number in range(PACKS_GOOD):
        assert not await mirror.tidy(timeout_s=60)
        await server.commit("r", {"a": f"{number}"})
        await ensure(mirror)
    assert len(list((mirror.current() / "objects/pack").glob("*.pack"))) == PACKS_GOOD + 1
    with mirror.reading() as before:
        assert await mirror.tidy(timeout_s=60)
        await seed.unpack(seed.pack(before), tmp_path / "seed", bytes_max=ALL)
    assert len(list((mirror.current() / "objects/pack").glob("*.pack"))) <= 3
    await sound(mirror, tmp_path / "seed")
    assert refs(mirror.current()) == refs(served)

    await server.commit("r", {"secret": "x"}, branch="mistake")
    await ensure(mirror)
    secret = git(served, "rev-parse", "mistake")
    git(served, "branch", "-D", "mistake")
    await ensure(mirror)
    await server.commit("r", {"a": "later"})
    await ensure(mirror)
    assert git(mirror.current(), "cat-file", "-t", secret) == "commit"
    assert not await mirror.tidy(timeout_s=60)
    world.advance(timedelta(days=1).total_seconds())
    assert await mirror.tidy(timeout_s=60)
    with pytest.raises(subprocess.CalledProcessError):
        git(mirror.current(), "cat-file", "-t", secret)
    await sound(mirror, tmp_path / "seed")
    assert not await mirror.tidy(timeout_s=60)


@asynccontextmanager
async def process(mirror: Mirror, url: str, rounds: int):
    """Another process at the same mirror."""
    running = await asyncio.create_subprocess_exec(
        sys.executable, str(PROCESS), str(mirror.place), url, str(rounds), stdout=asyncio.subprocess.PIPE, stderr=None
    )
    try:
        assert await running.stdout.readline() == b"begun\n"
        yield running
    finally:
        if running.returncode is None:
            running.kill()
        await running.wait()
        running._transport.close()


async def test_ten_seeds_while_two_processes_fetch_and_repack(server, tmp_path):
    url = await server.create("r", {"a": os.urandom(2_000_000)})
    mirror = mirror_of(url, tmp_path)
    await ensure(mirror)
    ended = asyncio.Event()

    async def history() -> None:
        for number in range(15):
            await server.commit("r", {f"f{number}": os.urandom(20_000)}, branch=f"b{number % 3}")
            if number % 4 == 3:
                git(tmp_path / "served/r.git", "branch", "-D", f"b{number % 3}")
        ended.set()

    async def reader(number: int) -> int:
        seeds = 0
        while not ended.is_set() or not seeds:
            await sound(mirror, tmp_path / f"seed{number}")
            seeds += 1
        return seeds

    async with process(mirror, url, 12) as one, process(mirror, url, 12) as two:
        seeds = await asyncio.gather(history(), *(reader(number) for number in range(10)))
        assert (await one.stdout.readline(), await two.stdout.readline()) == (b"done\n", b"done\n")
    assert all(seeds[1:])
    await ensure(mirror)
    assert left_behind(mirror) == []
    assert refs(mirror.current()) == refs(tmp_path / "served/r.git")


def children_of(pid: int) -> list[int]:
    return [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


@pytest.mark.parametrize("group", [False, True], ids=["only the process", "with its git"])
async def test_a_process_killed_at_any_point_leaves_a_whole_mirror(server, tmp_path, group):
    """Without its git: that one goes on for a moment, without the lock, in a folder that is taken from it."""
    chance = random.Random(4711)
    url = await server.create("r", {"a": os.urandom(5_000_000)})
    mirror = mirror_of(url, tmp_path)
    for number in range(8):
        async with process(mirror, url, 1000) as running:
            delay = chance.uniform(0.0, 0.25)
            if number % 2:
                # In the middle of a clone.
                while not any(mirror.place.glob("new-*")):
                    await asyncio.sleep(0.001)
                delay /= 5
            await asyncio.sleep(delay)
            children = children_of(running.pid)
            running.kill()
            for child in children if group else []:
                with suppress(ProcessLookupError):
                    os.killpg(child, signal.SIGKILL)
        if mirror.current() is not None:
            await sound(mirror, tmp_path / "seed")
        await server.commit("r", {f"b{number}": os.urandom(300_000)})
        if number % 3 == 2:
            await ensure(mirror)
            await sound(mirror, tmp_path / "seed")
            assert left_behind(mirror) == []
    await ensure(mirror)
    assert refs(mirror.current()) == refs(tmp_path / "served/r.git")
