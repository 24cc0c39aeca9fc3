"""Git told to go through a gateway: real git, as the workspace's user, with a home of its own."""

import os
import socket
import stat
from uuid import UUID

import pytest
from pydantic import SecretStr

from ff_core.contract.daemon import GitAccess, PrepareRepository
from ff_core.git.errors import RepoUnreachable
from ff_core.git.gateway import PLACE, GitNotConfigured, install
from ff_core.git.run import Git
from ff_core.ids import WorkspaceId
from ff_core.process import RunAs, run
from ff_core.store.engine import Store
from ff_core.store.journal import Journal
from ff_core.testing.git_server import GitServer
from ff_core.workspaces.service import Workspaces
from ff_core.world import SystemWorld

W = WorkspaceId(UUID(int=1))
TOKEN = "ffv_vm-token"
REAL = "ghp_the-owners-own"
AS_ROOT = pytest.mark.skipif(os.geteuid() != 0, reason="only root may become somebody else")


@pytest.fixture
def home(root):
    return root / "home"


@pytest.fixture
def dev(home):
    return RunAs(1000, 1000, home) if os.geteuid() == 0 else None


@pytest.fixture
def workspaces(root, dev):
    store = Store.open(root / "state.db")
    made = Workspaces(
        store=store,
        journal=Journal(store, SystemWorld()),
        world=SystemWorld(),
        checkout=root / "repo",
        run_as=dev,
        allow_plain_http=True,
    )
    made.bind(W, "mine")
    yield made
    store.close()


def access(gateway_url: str, *hosts: str, token: str = TOKEN) -> GitAccess:
    return GitAccess(gateway_url=gateway_url, token=SecretStr(token), hosts=hosts or ("https://github.com",))


def nowhere() -> str:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return f"http://127.0.0.1:{listener.getsockname()[1]}"


async def test_the_token_lies_in_one_private_file_of_the_user_and_the_newest_one_counts(home, dev):
    gateway = nowhere()
    await install(access(gateway, token="old"), home=home, run_as=dev)
    await install(access(gateway), home=home, run_as=dev)
    file = home / PLACE
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert file.stat().st_uid == home.stat().st_uid
    assert list(file.parent.iterdir()) == [file]
    assert (home / ".gitconfig").read_text().count("path = ") == 1
    if dev:  # so that HOME is theirs
        git = Git(home, run_as=dev)
        here = f"{gateway}/git/https/github.com/a/b.git"
        shown = await git.text("config", "--get-urlmatch", "http.extraHeader", here)
        assert shown == f"Authorization: Bearer {TOKEN}"
        other = await git.run("config", "--get-urlmatch", "http.extraHeader", "https://elsewhere.example/git/x")
        assert other.stdout == b""
        assert (await git.text("ls-remote", "--get-url", "https://github.com/a/b.git")) == here
        assert (await git.text("ls-remote", "--get-url", "git@github.com:a/b.git")) == here
        assert (await git.text("ls-remote", "--get-url", "https://github.com.evil/a")) == "https://github.com.evil/a"
    await install(None, home=home, run_as=dev)
    assert not file.exists()


@pytest.fixture
def system(root, monkeypatch):
    """As the image's: git reads it in place of /etc/gitconfig."""
    file = root / "system-gitconfig"
    file.write_text(f"[include]\n\tpath = ~/{PLACE}\n")
    monkeypatch.setenv("GIT_CONFIG_SYSTEM", str(file))
    return file


@AS_ROOT
async def test_where_the_system_includes_it_only_the_file_is_written_and_it_is_the_users(home, dev, system):
    gateway = nowhere()
    for token in ("old", TOKEN):
        await install(access(gateway, token=token), home=home, run_as=dev, system=system)
    file = home / PLACE
    assert not (home / ".gitconfig").exists()
    for path, mode in ((file, 0o600), (file.parent, 0o700), (file.parent.parent, 0o700)):
        assert (path.stat().st_uid, path.stat().st_gid, stat.S_IMODE(path.stat().st_mode)) == (1000, 1000, mode)
    assert list(file.parent.iterdir()) == [file]
    git = ["git", "config", "--get-urlmatch", "http.extraHeader", f"{gateway}/git/https/github.com/a/b.git"]
    env = {"PATH": os.environ["PATH"], "HOME": str(home), "GIT_CONFIG_SYSTEM": str(system)}
    shown = await run(git, cwd=home, env=env, timeout_s=10, output_bytes_max=1000, user=dev)
    assert shown.stdout.decode() == f"Authorization: Bearer {TOKEN}\n"
    await install(None, home=home, run_as=dev, system=system)
    assert not file.exists()


@AS_ROOT
async def test_links_of_the_user_are_followed_by_the_user_only(root, home, dev, system):
    theirs, ours = home / "dotfiles", root / "ours"
    for folder, owner in ((theirs, 1000), (ours, 0)):
        folder.mkdir(mode=0o700)
        os.chown(folder, owner, owner)
    (home / ".config").symlink_to(theirs)
    await install(access(nowhere()), home=home, run_as=dev, system=system)
    assert TOKEN in (theirs / "factory-factory/gitconfig").read_text()
    assert not (home / ".gitconfig").exists()
    (home / ".config").unlink()
    (home / ".config").symlink_to(ours)
    with pytest.raises(GitNotConfigured):
        await install(access(nowhere()), home=home, run_as=dev, system=system)
    assert list(ours.iterdir()) == []


@AS_ROOT
async def test_a_link_in_place_of_the_file_is_replaced_and_not_followed(root, home, dev, system):
    precious = root / "precious"
    precious.write_text("root's")
    (home / PLACE).parent.mkdir(parents=True)
    (home / PLACE).symlink_to(precious)
    await install(access(nowhere()), home=home, run_as=dev, system=system)
    assert precious.read_text() == "root's"
    assert not (home / PLACE).is_symlink()


async def test_read_twice_it_is_still_one_header(home, dev, tmp_path):
    async with GitServer(tmp_path) as server:
        await server.create("git/https/git.example/a", {"a": "b"})
        for _ in range(2):
            await install(access(server.origin, "https://git.example"), home=home, run_as=dev)
        text = (home / ".gitconfig").read_text()
        (home / ".gitconfig").write_text(text + text)
        done = await run(
            ["git", "ls-remote", "https://git.example/a.git"],
            cwd=home,
            env={"PATH": os.environ["PATH"], "HOME": str(home), "GIT_TRACE_CURL": "1"},
            timeout_s=20,
            output_bytes_max=1_000_000,
            user=dev,
        )
    said = done.stderr.decode()
    assert done.exit_code == 0, said
    assert said.count("Send header: Authorization: Bearer") == said.count("Send header: User-Agent:") > 0


async def test_the_users_own_configuration_is_kept(home, dev):
    (home / ".gitconfig").write_text("[user]\n\tname = Me\n")
    if dev:
        os.chown(home / ".gitconfig", 1000, 1000)
    await install(access(nowhere()), home=home, run_as=dev)
    assert "name = Me" in (home / ".gitconfig").read_text()


@AS_ROOT
async def test_a_link_in_the_way_leads_root_nowhere(root, home, dev):
    precious = root / "precious"
    precious.write_text("root's")
    precious.chmod(0o600)
    (home / PLACE).parent.mkdir(parents=True)
    for folder in (home / ".config", home / ".config/factory-factory"):
        os.chown(folder, 1000, 1000)
    (home / PLACE).symlink_to(precious)
    (home / ".gitconfig").symlink_to(precious)
    with pytest.raises(GitNotConfigured):
        await install(access(nowhere()), home=home, run_as=dev)
    assert precious.read_text() == "root's"
    assert precious.stat().st_uid == 0


@AS_ROOT
async def test_a_broken_configuration_is_told_and_stops_nothing_else(workspaces, home):
    (home / ".gitconfig").write_text("[broken\n")
    os.chown(home / ".gitconfig", 1000, 1000)
    await workspaces.use_git(W, access(nowhere()), home)
    said = [e.body.text for e in workspaces._journal.read(W, 0, 100) if e.body.kind == "process.output"]
    assert ["gitconfig" in text for text in said] == [True]


async def test_a_clone_goes_through_the_gateway_and_keeps_the_remotes_own_address(workspaces, home, root, tmp_path):
    async with GitServer(tmp_path) as gateway:
        await gateway.create("git/https/git.example/team/app", {"a": "b"})  # what the gateway answers at that path
        await workspaces.use_git(W, access(gateway.origin, "https://git.example"), home)
        made = await workspaces.prepare(W, PrepareRepository(url="https://git.example/team/app.git"))
    assert made.branch == "main"
    assert "url = https://git.example/team/app.git" in (root / "repo/.git/config").read_text()
    assert TOKEN not in (root / "repo/.git/config").read_text()


async def test_a_one_off_token_goes_straight_to_its_server(workspaces, home, root, tmp_path):
    async with GitServer(tmp_path, credentials=("x-access-token", REAL)) as server:
        await server.create("team/private", {"a": "b"})
        await workspaces.use_git(W, access(nowhere(), server.origin), home)  # nothing answers at the gateway
        with pytest.raises(RepoUnreachable):
            await workspaces.prepare(W, PrepareRepository(url=server.url("team/private")))
        await workspaces.prepare(W, PrepareRepository(url=server.url("team/private"), token=SecretStr(REAL)))
    assert (root / "repo/a").read_text() == "b"
    assert not [path for path in root.rglob("*") if path.is_file() and REAL.encode() in path.read_bytes()]
