"""Seeds with real git: a clone that borrowed from one is the same as a plain clone, whatever happened meanwhile."""

import os
import shutil
import subprocess
import tracemalloc
from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ff_core.errors import TooLarge
from ff_core.git import seed
from ff_core.git.clone import clone_argv
from ff_core.git.errors import GitFailed
from ff_core.git.remote import parse_repo_url
from ff_core.git.run import git_env
from ff_core.process import RunAs, run

AT = datetime(2030, 1, 1, tzinfo=UTC)
LFS = "version https://git-lfs.github.com/spec/v1\noid sha256:" + "a" * 64 + "\nsize 12345\n"
ALL = 1 << 30
AS_ROOT = pytest.mark.skipif(os.geteuid() != 0, reason="only root may become somebody else")


@pytest.fixture(autouse=True)
def no_configuration(monkeypatch, tmp_path_factory):
    monkeypatch.setenv("HOME", str(tmp_path_factory.mktemp("home")))


def git(folder: Path, *words: str) -> str:
    done = subprocess.run(["git", "-C", str(folder), *words], capture_output=True, check=True, text=True)
    return done.stdout.strip()


async def program(*argv: str, cwd: Path, user: RunAs | None = None) -> None:
    """Runs beside the server, which lives in this process."""
    done = await run(argv, cwd=cwd, env=git_env(("http", "file")), timeout_s=30, output_bytes_max=1 << 20, user=user)
    assert done.exit_code == 0, done.stderr


async def mirrored(url: str, to: Path) -> Path:
    await program("git", "clone", "--quiet", "--bare", "--template=", url, str(to), cwd=to.parent)
    seed.describe(to, url=url, fetched_at=AT)
    return to


async def seeded_from(url: str, tmp_path: Path) -> Path:
    await seed.unpack(seed.pack(await mirrored(url, tmp_path / "mirror")), tmp_path / "seed", bytes_max=ALL)
    return tmp_path / "seed"


async def cloned(url: str, into: Path, *, borrowed: Path | None = None, branch: str | None = None) -> Path:
    """What ``ff_core.git.clone`` does, with and without a seed."""
    os.mkdir(into)  # noqa: PTH102  (short enough to wait for)
    argv = clone_argv(parse_repo_url(url, allow_plain_http=True), into, branch=branch, with_credential=False)
    if borrowed is not None:
        argv.insert(argv.index("--"), f"--reference={borrowed}")
    await program(*argv, cwd=into)
    if borrowed is not None:
        await seed.settle(borrowed, into / ".git")
        shutil.rmtree(borrowed)
    return into


def everything(repository: Path) -> dict[str, object]:
    """All of a repository that is not its way of storing objects."""
    dot = repository / ".git"
    return {
        "refs": git(repository, "for-each-ref", "--format=%(refname) %(objectname) %(*objectname) %(symref)"),
        "head": (dot / "HEAD").read_text(),
        "config": (dot / "config").read_text(),
        "packed": (dot / "packed-refs").read_text() if (dot / "packed-refs").exists() else None,
        "status": git(repository, "status", "--porcelain=v2", "--branch"),
        "tree": git(repository, "ls-files", "--stage"),
        "stash": git(repository, "stash", "list"),
        "count": git(repository, "rev-list", "--all", "--objects"),
        "files": sorted(str(path.relative_to(dot)) for path in dot.rglob("*") if "objects/pack/" not in str(path)),
        "log": [line.partition("\t")[2] for line in git(repository, "reflog", "--all").splitlines()],
        # What was reachable when the seed was made may lie there unreachable, until git prunes it as it does with anything.
        "fsck": git(repository, "fsck", "--full", "--strict", "--no-dangling"),
        "gc": git(repository, "count-objects", "-v").splitlines()[0],
    }


async def same_as_plain(url: str, tmp_path: Path, place: Path, branch: str | None = None) -> Path:
    seeded = await cloned(url, tmp_path / "seeded", borrowed=place, branch=branch)
    plain = await cloned(url, tmp_path / "plain", branch=branch)
    assert everything(seeded) == everything(plain)
    assert not (seeded / ".git/objects/info/alternates").exists()
    return seeded


async def test_nothing_new_needs_no_pack_from_the_server(server, tmp_path):
    url = await server.create("o/r", {"a/b.txt": "hello\n", "c.bin": b"\0\1"})
    await server.commit("o/r", {"d": "1"}, branch="feature/x")
    seeded = await same_as_plain(url, tmp_path, await seeded_from(url, tmp_path))
    assert [path.name for path in (seeded / ".git/objects/pack").glob("*.pack")] == [
        path.name for path in (tmp_path / "mirror/objects/pack").glob("*.pack")
    ]


async def test_new_commits_branches_and_tags_since(server, tmp_path):
    url = await server.create("r", {"a": "1"})
    place = await seeded_from(url, tmp_path)
    await server.commit("r", {"a": "2", "b": "x" * 5000})
    await server.commit("r", {"c": "3"}, branch="new")
    served = tmp_path / "served/r.git"
    git(served, "tag", "light", "main")
    git(served, "-c", "user.name=a", "-c", "user.email=a@example.invalid", "tag", "-m", "words", "annotated", "new")
    seeded = await same_as_plain(url, tmp_path, place)
    assert (seeded / "a").read_text() == "2"


async def test_a_branch_that_is_gone_and_one_that_was_forced(server, tmp_path):
    url = await server.create("r", {"a": "1"})
    await server.commit("r", {"secret": "x"}, branch="gone")
    await server.commit("r", {"f": "1"}, branch="forced")
    served = tmp_path / "served/r.git"
    git(served, "tag", "v1", "gone")
    place = await seeded_from(url, tmp_path)
    git(served, "branch", "-D", "gone", "forced")
    git(served, "tag", "-d", "v1")
    await server.commit("r", {"f": "2"}, branch="forced")
    seeded = await same_as_plain(url, tmp_path, place, branch="forced")
    assert "gone" not in git(seeded, "for-each-ref")


async def test_the_default_branch_was_renamed(server, tmp_path):
    url = await server.create("r", {"a": "1"}, branch="master")
    place = await seeded_from(url, tmp_path)
    served = tmp_path / "served/r.git"
    git(served, "branch", "-m", "master", "trunk")
    git(served, "symbolic-ref", "HEAD", "refs/heads/trunk")
    seeded = await same_as_plain(url, tmp_path, place)
    assert git(seeded, "symbolic-ref", "refs/remotes/origin/HEAD") == "refs/remotes/origin/trunk"


async def test_detached_head_submodules_and_lfs_pointers(server, tmp_path):
    url = await server.create("r", {"big.bin": LFS, ".gitattributes": "*.bin filter=lfs diff=lfs merge=lfs -text\n"})
    work = tmp_path / "work"
    await program("git", "clone", "--quiet", url, str(work), cwd=tmp_path)
    who = ("-c", "user.name=a", "-c", "user.email=a@example.invalid")
    (work / ".gitmodules").write_text(f'[submodule "s"]\n\tpath = s\n\turl = {url}\n')
    git(work, "add", ".gitmodules")
    git(work, "update-index", "--add", "--cacheinfo", f"160000,{'1' * 40},s")
    git(work, *who, "commit", "--quiet", "-m", "submodule")
    await program("git", "push", "--quiet", "origin", "main", cwd=work)
    served = tmp_path / "served/r.git"
    place = await seeded_from(url, tmp_path)
    git(served, "update-ref", "--no-deref", "HEAD", git(served, "rev-parse", "main~1"))
    (served / "HEAD").write_text(git(served, "rev-parse", "main") + "\n")
    seeded = await same_as_plain(url, tmp_path, place)
    assert (seeded / "big.bin").read_text() == LFS
    assert "160000 " + "1" * 40 in git(seeded, "ls-files", "--stage")


async def test_a_repository_that_was_emptied_or_is_another_one_by_now(server, tmp_path):
    url = await server.create("r", {"a": "1"})
    place = await seeded_from(url, tmp_path)
    shutil.rmtree(tmp_path / "served/r.git")
    await server.create("r", None)
    await same_as_plain(url, tmp_path, place)
    for name in ("seeded", "plain", "mirror"):
        shutil.rmtree(tmp_path / name)
    await server.commit("r", {"quite": "another"})
    place = await seeded_from(url, tmp_path)
    shutil.rmtree(tmp_path / "served/r.git")
    await server.create("r", {"unrelated": "history"})
    await same_as_plain(url, tmp_path, place)


async def test_what_can_be_no_seed(server, tmp_path):
    await server.create("empty", None)
    with pytest.raises(seed.SeedRefused):
        await mirrored(server.url("empty"), tmp_path / "empty")
    git(tmp_path, "init", "--quiet", "--bare", "--object-format=sha256", "served/long.git")
    await server.commit("long", {"a": "1"})
    with pytest.raises(seed.SeedRefused):
        await mirrored(server.url("long"), tmp_path / "long")


@AS_ROOT
async def test_a_seed_belongs_to_the_user_and_holds_nothing_that_runs(server, tmp_path, root):
    url = await server.create("r", {"a": "1"})
    source = await mirrored(url, tmp_path / "mirror")
    (source / "config").write_text('[core]\n\tfsmonitor = "touch /tmp/owned"\n')
    (source / "hooks").mkdir()
    (source / "hooks/post-checkout").write_text("#!/bin/sh\n")
    place, into = root / "seed", root / "repo"
    dev = RunAs(1000, 1000, root)
    manifest = await seed.unpack(seed.pack(source), place, bytes_max=ALL, run_as=dev)
    assert {(path.stat().st_uid, path.stat().st_gid) for path in [place, *place.rglob("*")]} == {(1000, 1000)}
    assert "fsmonitor" not in (place / "config").read_text()
    assert not (place / "hooks").exists()
    assert (manifest.url, manifest.head, manifest.fetched_at) == (url, "refs/heads/main", AT)
    into.mkdir()
    os.chown(into, 1000, 1000)
    await program("git", "clone", "--quiet", f"--reference={place}", url, str(into), cwd=into, user=dev)
    await seed.settle(place, into / ".git", run_as=dev)
    shutil.rmtree(place)
    assert {path.lstat().st_uid for path in into.rglob("*")} == {1000}
    await program("git", "fsck", cwd=into, user=dev)


@AS_ROOT
async def test_settling_follows_no_link_of_the_user(server, tmp_path, root):
    """``.git`` belongs to the user, who may have put a link in the way of the packs."""
    url = await server.create("r", {"a": "1"})
    dev = RunAs(1000, 1000, root)
    await seed.unpack(seed.pack(await mirrored(url, tmp_path / "mirror")), root / "seed", bytes_max=ALL, run_as=dev)
    precious = root / "precious"
    precious.mkdir(mode=0o755)
    (root / "git/objects/info").mkdir(parents=True)
    (root / "git/objects/pack").symlink_to(precious)
    with pytest.raises(GitFailed):
        await seed.settle(root / "seed", root / "git", run_as=dev)
    assert not list(precious.iterdir())


async def bytes_of(source: Path) -> bytes:
    return b"".join([piece async for piece in seed.pack(source)])


async def cut(data: bytes, size: int):
    for at in range(0, len(data), size):
        yield data[at : at + size]


async def test_bounds(server, tmp_path):
    url = await server.create("r", {"a": os.urandom(3 << 20)})
    source = await mirrored(url, tmp_path / "mirror")
    data = await bytes_of(source)
    place = tmp_path / "seed"
    with pytest.raises(TooLarge):
        await seed.unpack(cut(data, 1 << 16), place, bytes_max=3 << 20)
    assert not place.exists()
    place.mkdir()
    (place / "of an attempt before").touch()
    await seed.unpack(cut(data, 1 << 16), place, bytes_max=4 << 20)
    assert not (place / "of an attempt before").exists()
    with pytest.raises(seed.SeedRefused):
        await seed.unpack(cut(data, 1 << 16), tmp_path / "missing/seed", bytes_max=4 << 20)
    with pytest.raises(seed.SeedRefused):
        await seed.unpack(cut(data[:-1], 1 << 16), place, bytes_max=4 << 20)
    (tmp_path / "link").symlink_to(tmp_path / "elsewhere")
    await seed.unpack(cut(data, 1 << 16), tmp_path / "link", bytes_max=4 << 20)
    assert not (tmp_path / "elsewhere").exists()


async def test_a_mirror_that_changes_while_it_is_read_is_noticed(server, tmp_path):
    url = await server.create("r", {"a": os.urandom(3 << 20)})
    source = await mirrored(url, tmp_path / "mirror")
    (pack,) = (source / "objects/pack").glob("*.pack")
    os.truncate(pack, pack.stat().st_size - 1)
    with pytest.raises(seed.SeedRefused):
        await bytes_of(source)


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> tuple[Path, Path]:
    """A mirror, and a place for what is made of it."""
    root = tmp_path_factory.mktemp("whole")
    git(root, "init", "--quiet", "--initial-branch=main", "work")
    (root / "work/a").write_text("hello")
    git(root / "work", "add", "a")
    git(root / "work", "-c", "user.name=a", "-c", "user.email=a@example.invalid", "commit", "--quiet", "-m", "a")
    git(root, "clone", "--quiet", "--bare", "--no-local", "--template=", "work", "mirror")
    seed.describe(root / "mirror", url="https://example.com/r", fetched_at=AT)
    return root / "mirror", root / "seed"


@given(data=st.data())
@settings(max_examples=150, deadline=None)
async def test_any_damage_is_noticed_and_leaves_nothing(whole, data):
    source, place = whole
    good = await bytes_of(source)
    at = data.draw(st.integers(0, len(good) - 1))
    kind = data.draw(st.sampled_from(["flip", "cut", "drop", "add"]))
    bad = {
        "flip": good[:at] + bytes([good[at] ^ data.draw(st.integers(1, 255))]) + good[at + 1 :],
        "cut": good[:at],
        "drop": good[:at] + good[at + 1 :],
        "add": good[:at] + data.draw(st.binary(min_size=1, max_size=600)) + good[at:],
    }[kind]
    try:
        await seed.unpack(cut(bad, data.draw(st.integers(1, 4096))), place, bytes_max=ALL)
    except (seed.SeedRefused, TooLarge):
        assert not place.exists()
        return
    # Only bytes that nobody reads may differ: padding, owner and time in headers, or what the manifest says of itself.
    names = ["packed-refs", *(f"objects/pack/{path.name}" for path in (source / "objects/pack").iterdir())]
    assert all((place / name).read_bytes() == (source / name).read_bytes() for name in names)
    assert sorted(path.name for path in place.iterdir()) == ["HEAD", "config", "objects", "packed-refs", "refs", "seed.json"]


@pytest.mark.parametrize(
    "refs",
    [
        b"x" * 40 + b" refs/heads/main\n",
        b"1" * 40 + b" refs/../../etc/passwd\n",
        b"1" * 40 + b" refs/heads/a b\n",
        b"1" * 40 + b" refs/heads/main",
        b"[core]\n\tfsmonitor = true\n",
    ],
)
async def test_refs_are_branches_and_tags(whole, refs):
    source, place = whole
    copy = place.with_name("odd")
    shutil.rmtree(copy, ignore_errors=True)
    shutil.copytree(source, copy)
    (copy / "packed-refs").write_bytes(refs)
    seed.describe(copy, url="https://example.com/r", fetched_at=AT)
    with pytest.raises(seed.SeedRefused):
        await seed.unpack(seed.pack(copy), place, bytes_max=ALL)
    assert not place.exists()


async def test_memory_does_not_grow_with_the_seed(server, tmp_path):
    url = await server.create("r", {f"f{number}": os.urandom(4 << 20) for number in range(8)})
    source = await mirrored(url, tmp_path / "mirror")
    tracemalloc.start()
    try:
        manifest = await seed.unpack(seed.pack(source), tmp_path / "seed", bytes_max=ALL)
        _, peak_bytes = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert manifest.size_bytes > 32 << 20
    assert peak_bytes < 8 << 20
