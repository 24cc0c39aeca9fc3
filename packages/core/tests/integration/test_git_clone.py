"""Clones from a real git server: whole or not at all, and the token nowhere."""

import asyncio
import os
import shutil
import socket
import stat
import subprocess
import tempfile
from pathlib import Path

import pytest

from ff_core.git.clone import IDENTITY, clone, create_empty
from ff_core.git.errors import (
    BranchInvalid,
    BranchNotFound,
    CloneDiskFull,
    CloneTargetTaken,
    CloneTimedOut,
    RepoAuthFailed,
    RepoNotFound,
    RepoUnreachable,
)
from ff_core.git.remote import Credential, parse_repo_url
from ff_core.git.run import Git
from ff_core.git.status import status
from ff_core.process import RunAs
from ff_core.testing.git_server import GitServer

TOKEN = "s3cret-token-4711"
USER = "somebody"
AS_ROOT = pytest.mark.skipif(os.geteuid() != 0, reason="only root may become somebody else")


@pytest.fixture(autouse=True)
def no_configuration(monkeypatch, tmp_path_factory):
    """The machine's own git configuration must not decide these tests."""
    monkeypatch.setenv("HOME", str(tmp_path_factory.mktemp("home")))


@pytest.fixture
async def private(tmp_path):
    (tmp_path / "private").mkdir()
    async with GitServer(tmp_path / "private", credentials=(USER, TOKEN)) as server:
        yield server


def at(url: str):
    return parse_repo_url(url, allow_plain_http=True)


def nothing_kept(into: Path) -> bool:
    return not into.exists() and not list(into.parent.glob(".*incomplete*"))


async def test_clone_gives_a_whole_repository_with_an_author(server, tmp_path):
    url = await server.create("o/r", {"a/b.txt": "hello\n", "c.bin": b"\0\1"})
    lines: list[str] = []
    cloned = await clone(at(url), tmp_path / "repo", progress=lines.append, timeout_s=30)
    assert (tmp_path / "repo/a/b.txt").read_text() == "hello\n"
    assert (cloned.branch, cloned.adopted) == ("main", False)
    git = Git(tmp_path / "repo")
    assert await git.text("rev-parse", "HEAD") == cloned.head
    assert await git.text("remote", "get-url", "origin") == url
    assert {name: await git.setting(name) for name in IDENTITY} == IDENTITY
    assert any("Receiving objects: 100%" in line for line in lines)
    config = (tmp_path / "repo/.git/config").read_text()
    assert "hooksPath" not in config
    assert "credential" not in config


async def test_an_identity_of_the_user_is_kept(server, tmp_path):
    (Path(os.environ["HOME"]) / ".gitconfig").write_text("[user]\n name = Me\n email = me@example.invalid\n")
    await clone(at(await server.create("r", {"a": "1"})), tmp_path / "repo", timeout_s=30)
    assert "user" not in (tmp_path / "repo/.git/config").read_text()


async def test_repeating_adopts_and_something_else_is_refused(server, tmp_path):
    url = await server.create("r", {"a": "1"})
    other = await server.create("other", {"a": "2"})
    into = tmp_path / "repo"
    first = await clone(at(url), into, timeout_s=30)
    (into / "a").write_text("work in progress")
    again = await clone(at(url), into, timeout_s=30)
    assert (again.head, again.adopted) == (first.head, True)
    assert (into / "a").read_text() == "work in progress"
    with pytest.raises(CloneTargetTaken):
        await clone(at(other), into, timeout_s=30)
    with pytest.raises(CloneTargetTaken):
        await create_empty(into)
    (tmp_path / "full").mkdir()
    (tmp_path / "full/precious").touch()
    with pytest.raises(CloneTargetTaken):
        await clone(at(url), tmp_path / "full", timeout_s=30)
    assert (tmp_path / "full/precious").exists()


async def test_what_a_killed_clone_left_is_replaced(server, tmp_path):
    url = await server.create("r", {"a": "1"})
    (tmp_path / ".repo.incomplete/.git").mkdir(parents=True)
    (tmp_path / "repo").mkdir()  # an empty folder is no obstacle
    await clone(at(url), tmp_path / "repo", timeout_s=30)
    assert (tmp_path / "repo/a").exists()
    assert not (tmp_path / ".repo.incomplete").exists()


async def test_branches(server, tmp_path):
    url = await server.create("r", {"a": "1"})
    await server.commit("r", {"b": "2"}, branch="feature/x")
    await Git(tmp_path / "served/r.git").text("tag", "v1", "main")
    cloned = await clone(at(url), tmp_path / "repo", branch="feature/x", timeout_s=30)
    assert cloned.branch == "feature/x"
    with pytest.raises(BranchNotFound, match="'nope'"):
        await clone(at(url), tmp_path / "none", branch="nope", timeout_s=30)
    assert nothing_kept(tmp_path / "none")
    with pytest.raises(BranchNotFound, match="tag"):
        await clone(at(url), tmp_path / "none", branch="v1", timeout_s=30)
    assert nothing_kept(tmp_path / "none")
    with pytest.raises(BranchInvalid):
        await clone(at(url), tmp_path / "none", branch="--upload-pack=x", timeout_s=30)


async def test_empty_repositories(server, tmp_path):
    cloned = await clone(at(await server.create("empty")), tmp_path / "repo", timeout_s=30)
    assert (cloned.branch, cloned.head) == ("main", None)
    made = await create_empty(tmp_path / "new", branch="trunk")
    assert (made.branch, made.head, made.adopted) == ("trunk", None, False)
    assert (await create_empty(tmp_path / "new", branch="trunk")).adopted
    assert (await status(Git(tmp_path / "new"))).branch == "trunk"


async def test_failures_have_their_error_and_leave_nothing(server, tmp_path):
    into = tmp_path / "repo"
    with pytest.raises(RepoNotFound):
        await clone(at(server.url("nope")), into, timeout_s=30)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # bound but not listening: refuses
        closed = f"http://127.0.0.1:{taken.getsockname()[1]}/r"
        with pytest.raises(RepoUnreachable, match="Nothing answers"):
            await clone(at(closed), into, timeout_s=30)
    with pytest.raises(RepoUnreachable, match="not known"):
        await clone(at("http://nosuch.invalid/r"), into, timeout_s=30)
    assert nothing_kept(into)


async def test_a_server_that_never_answers_times_out(tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = at(f"http://127.0.0.1:{silent.getsockname()[1]}/r")
        with pytest.raises(CloneTimedOut, match=r"0\.5 s"):
            await clone(url, tmp_path / "repo", timeout_s=0.5)
    assert nothing_kept(tmp_path / "repo")


async def test_cancelling_leaves_nothing(tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as silent:
        silent.setblocking(False)
        url = at(f"http://127.0.0.1:{silent.getsockname()[1]}/r")
        task = asyncio.create_task(clone(url, tmp_path / "repo", timeout_s=30))
        connection, _ = await asyncio.wait_for(asyncio.get_running_loop().sock_accept(silent), 10)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        connection.close()
    assert nothing_kept(tmp_path / "repo")


async def test_credentials_are_needed_and_checked(private, tmp_path):
    url = at(await private.create("r", {"a": "1"}))
    with pytest.raises(RepoAuthFailed, match="asks for a credential"):
        await clone(url, tmp_path / "repo", timeout_s=30)
    with pytest.raises(RepoAuthFailed, match="refused the token") as caught:
        await clone(url, tmp_path / "repo", credential=Credential("wrong-token", USER), timeout_s=30)
    assert "wrong-token" not in str(caught.value)
    assert nothing_kept(tmp_path / "repo")
    cloned = await clone(url, tmp_path / "repo", credential=Credential(TOKEN, USER), timeout_s=30)
    assert cloned.branch == "main"


async def test_the_token_is_in_no_argument_environment_or_file(private, tmp_path, monkeypatch):
    """A wrapper in PATH records every git process's own argv and environment, as /proc would show them."""
    log = tmp_path / "seen.log"
    wrappers = tmp_path / "bin"
    wrappers.mkdir()
    real = shutil.which("git")
    # The credential helper's own shell and cat are looked at too: they are started by name.
    for name, target in {"git": real, "cat": "/bin/cat", "sh": "/bin/sh"}.items():
        program = wrappers / name
        program.write_text(
            f'#!/bin/sh\n{{ tr "\\0" "\\n" </proc/$$/cmdline; tr "\\0" "\\n" </proc/$$/environ; }} >>{log}\nexec {target} "$@"\n'
        )
        program.chmod(program.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", f"{wrappers}:{os.environ['PATH']}")
    url = at(await private.create("r", {"a": "1"}))
    log.write_text("")
    await clone(url, tmp_path / "repo", credential=Credential(TOKEN, USER), timeout_s=30)
    seen = log.read_text()
    assert "cat" in seen  # the helper ran under our eyes
    assert "clone" in seen
    assert TOKEN not in seen
    files = [path for top in (tmp_path / "repo", Path(os.environ["HOME"])) for path in top.rglob("*") if path.is_file()]
    assert len(files) > 5
    assert not [path for path in files if TOKEN.encode() in path.read_bytes()]


async def test_a_redirect_to_another_server_does_not_get_the_token(private, tmp_path):
    got: list[str] = []

    async def elsewhere(reader, writer):
        request = (await reader.readuntil(b"\r\n\r\n")).decode()
        got.append(request)
        writer.write(b'HTTP/1.1 401 x\r\nwww-authenticate: Basic realm="x"\r\ncontent-length: 0\r\n\r\n')
        await writer.drain()
        writer.close()

    async def redirecting(reader, writer):
        await reader.readuntil(b"\r\n\r\n")
        port = other.sockets[0].getsockname()[1]
        target = f"http://127.0.0.1:{port}/r.git/info/refs?service=git-upload-pack"
        writer.write(f"HTTP/1.1 302 x\r\nlocation: {target}\r\ncontent-length: 0\r\n\r\n".encode())
        await writer.drain()
        writer.close()

    async with (
        await asyncio.start_server(elsewhere, "127.0.0.1", 0) as other,
        await asyncio.start_server(redirecting, "127.0.0.1", 0) as first,
    ):
        url = at(f"http://127.0.0.1:{first.sockets[0].getsockname()[1]}/r.git")
        with pytest.raises(RepoAuthFailed):
            await clone(url, tmp_path / "repo", credential=Credential(TOKEN, USER), timeout_s=30)
    assert got
    assert not any("authorization" in request.lower() for request in got)


@pytest.fixture
def open_folder():
    folder = Path(tempfile.mkdtemp(prefix="ff-git-"))  # pytest's own folders can't be entered by another user
    folder.chmod(0o755)
    yield folder
    shutil.rmtree(folder)


@AS_ROOT
async def test_a_clone_for_another_user_belongs_to_that_user(private, open_folder):
    home = open_folder / "home"
    home.mkdir()
    os.chown(home, 12345, 12345)
    user = RunAs(12345, 12345, home)
    url = at(await private.create("r", {"a": "1"}))
    await clone(url, open_folder / "repo", credential=Credential(TOKEN, USER), timeout_s=30, run_as=user)
    owners = {path.stat().st_uid for path in (open_folder / "repo").rglob("*")}
    assert owners == {12345}
    assert (await status(Git(open_folder / "repo", run_as=user))).clean
    again = await clone(url, open_folder / "repo", timeout_s=30, run_as=user)
    assert again.adopted


@pytest.fixture
def small_disk(tmp_path):
    folder = tmp_path / "small"
    folder.mkdir()
    if os.geteuid() or subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", folder], check=False).returncode:
        pytest.skip("no right to mount here")
    yield folder
    subprocess.run(["umount", folder], check=True)


async def test_a_full_disk(server, small_disk):
    url = at(await server.create("r", {"big": os.urandom(3_000_000)}))
    with pytest.raises(CloneDiskFull):
        await clone(url, small_disk / "repo", timeout_s=30)
    assert nothing_kept(small_disk / "repo")
