import asyncio
import os
from pathlib import Path
from uuid import UUID

import pytest
from pydantic import SecretStr

from ff_core.contract.daemon import PrepareRepository
from ff_core.git.errors import BranchNotFound, RepoNotFound, RepoUrlInvalid
from ff_core.ids import WorkspaceId
from ff_core.process import RunAs, clean_env, run
from ff_core.store.engine import Store
from ff_core.store.journal import Journal
from ff_core.testing.git_server import GitServer
from ff_core.workspaces.errors import AlreadyBound, RepositoryDiffers, WorkspaceMissing, WorkspaceNotReady
from ff_core.workspaces.service import Workspaces
from ff_core.world import SystemWorld

W = WorkspaceId(UUID(int=1))


class Host:
    def __init__(self, root: Path) -> None:
        self.root = root
        self.open()

    def open(self):
        self.store = Store.open(self.root / "state.db")
        self.journal = Journal(self.store, SystemWorld())
        home = self.root / "home"
        self.workspaces = Workspaces(
            store=self.store,
            journal=self.journal,
            world=SystemWorld(),
            checkout=self.root / "repo",
            run_as=RunAs(1000, 1000, home) if os.geteuid() == 0 else None,
            allow_plain_http=True,
        )

    async def restart(self):
        await self.workspaces.close()
        self.store.close()
        self.open()

    def statuses(self):
        return [e.body.status.value for e in self.journal.read(W, 0, 1000) if e.body.kind == "workspace.status"]


@pytest.fixture
async def host(root):
    host = Host(root)
    host.workspaces.bind(W, "mine")
    yield host
    await host.workspaces.close()
    host.store.close()


@pytest.fixture
async def server(tmp_path):
    async with GitServer(tmp_path) as server:
        await server.create("team/app", {"README.md": "hello\n"})
        yield server


def test_a_host_belongs_to_one_workspace(host):
    host.workspaces.bind(W, "mine")
    with pytest.raises(AlreadyBound):
        host.workspaces.bind(WorkspaceId(UUID(int=2)), "theirs")
    assert host.workspaces.current().id == W


async def test_a_clone_is_ready_and_said(host, server):
    with pytest.raises(WorkspaceNotReady):
        await host.workspaces.status(W)
    made = await host.workspaces.prepare(W, PrepareRepository(url=server.url("team/app")))
    assert (made.branch, made.staged, made.untracked) == ("main", 0, 0)
    assert host.statuses() == ["PROVISIONING", "READY"]
    said = "".join(e.body.text for e in host.journal.read(W, 0, 1000) if e.body.kind == "process.output")
    assert "Cloning into" in said
    (host.root / "repo" / "new.txt").write_text("x")
    assert (await host.workspaces.status(W)).untracked == 1


async def test_callers_join_one_clone_and_find_it_done_later_even_after_a_restart(host, server):
    request = PrepareRepository(url=server.url("team/app"))
    gone = asyncio.create_task(host.workspaces.prepare(W, request))
    await asyncio.sleep(0)
    gone.cancel()  # its caller hung up; the clone goes on
    first, second = await asyncio.gather(host.workspaces.prepare(W, request), host.workspaces.prepare(W, request))
    await host.restart()
    assert first == second == await host.workspaces.prepare(W, request)
    assert host.statuses() == ["PROVISIONING", "READY"]


async def test_another_repository_or_branch_is_refused(host, server):
    await host.workspaces.prepare(W, PrepareRepository(url=server.url("team/app")))
    for other in (
        PrepareRepository(),
        PrepareRepository(url=server.url("team/other")),
        PrepareRepository(url=server.url("team/app"), branch="x"),
    ):
        with pytest.raises(RepositoryDiffers):
            await host.workspaces.prepare(W, other)


async def test_a_failure_is_an_event_with_a_code_leaves_nothing_and_may_be_corrected(host, server):
    with pytest.raises(RepoNotFound):
        await host.workspaces.prepare(W, PrepareRepository(url=server.url("team/typo")))
    with pytest.raises(BranchNotFound):
        await host.workspaces.prepare(W, PrepareRepository(url=server.url("team/app"), branch="nope"))
    assert not (host.root / "repo").exists()
    failed = [e.body.error.code for e in host.journal.read(W, 0, 1000) if getattr(e.body, "error", None)]
    assert failed == ["repo_not_found", "branch_not_found"]
    await host.workspaces.prepare(W, PrepareRepository(url=server.url("team/app")))
    assert host.statuses() == ["PROVISIONING", "FAILED", "PROVISIONING", "FAILED", "PROVISIONING", "READY"]


async def test_a_preparation_cut_off_by_the_end_of_the_daemon_begins_anew(host, server):
    request = PrepareRepository(url=server.url("team/app"))
    cut = asyncio.create_task(host.workspaces.prepare(W, request))
    while host.statuses() != ["PROVISIONING"]:
        await asyncio.sleep(0)
    await host.restart()
    with pytest.raises(asyncio.CancelledError):
        await cut
    await host.workspaces.prepare(W, request)
    assert host.statuses() == ["PROVISIONING", "READY"]


async def test_a_credential_in_the_address_is_refused_and_reaches_neither_disk_nor_error(host):
    with pytest.raises(RepoUrlInvalid) as caught:
        await host.workspaces.prepare(W, PrepareRepository(url="https://user:hunter2@example.com/a/b.git"))
    assert "hunter2" not in str(caught.value)
    assert host.statuses() == []
    assert not [path for path in host.root.glob("state.db*") if b"hunter2" in path.read_bytes()]


async def test_a_token_clones_and_is_kept_nowhere(host, tmp_path):
    async with GitServer(tmp_path, credentials=("x-access-token", "s3cr3t-token")) as server:
        await server.create("team/private", {"a": "b"})
        await host.workspaces.prepare(W, PrepareRepository(url=server.url("team/private"), token=SecretStr("s3cr3t-token")))
    found = await run(
        ["grep", "-rl", "s3cr3t-token", str(host.root)], cwd=host.root, env=clean_env(), timeout_s=10, output_bytes_max=10_000
    )
    assert found.stdout == b""


async def test_an_empty_repository_on_the_branch_asked_for(host):
    made = await host.workspaces.prepare(W, PrepareRepository(branch="trunk"))
    assert (made.branch, made.head) == ("trunk", None)


async def test_a_host_that_lost_its_workspace_is_not_taken_for_a_new_one(root):
    host = Host(root)
    with pytest.raises(WorkspaceMissing):
        host.workspaces.bind(W, "demo", existing=True)
    assert host.workspaces.current() is None
    host.workspaces.bind(W, "demo")
    host.workspaces.bind(W, "demo", existing=True)
    host.store.close()
