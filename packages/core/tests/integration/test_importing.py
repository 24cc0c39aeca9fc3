"""Importing into a store, with real repositories and worktrees."""

import os
import subprocess

import pytest

from ff_core.contract.local import ImportRequest
from ff_core.contract.places import Location
from ff_core.contract.plain import WorkspaceStatus
from ff_core.contract.record import DispatchOutcome, PullRequestRecord, RatchetRecord
from ff_core.contract.session import PermissionPreset, SessionStatus
from ff_core.ids import HandoffId, ProjectId
from ff_core.importing.errors import ImportUnreadable
from ff_core.importing.service import Importing
from ff_core.projects import repository as projects
from ff_core.projects.repository import Project
from ff_core.ratchet import repository as ratchets
from ff_core.store.engine import Store
from ff_core.store.errors import StoreBroken
from ff_core.store.journal import Journal
from ff_core.store.sessions import SessionTable
from ff_core.testing import factory_factory as ff
from ff_core.testing.world import FakeWorld
from ff_core.workspaces import repository as workspaces

CHAT, FIXER = "11111111-1111-4111-8111-111111111111", "22222222-2222-4222-8222-222222222222"
CREATED = "2026-07-01T10:20:30.456+00:00"
TABLES = ("projects", "workspaces", "sessions", "ratchets", "pull_requests", "events")


def git(*words, cwd):
    env = {"PATH": os.environ["PATH"], "HOME": str(cwd), "GIT_CONFIG_NOSYSTEM": "1"}
    named = ("-c", "user.name=A", "-c", "user.email=a@example.com")
    return subprocess.run(["git", *named, *words], cwd=cwd, env=env, check=True, capture_output=True, text=True).stdout.strip()


@pytest.fixture
def world():
    return FakeWorld()


@pytest.fixture
def store(tmp_path):
    store = Store.open(tmp_path / "state.db")
    yield store
    store.close()


@pytest.fixture
def journal(store, world):
    return Journal(store, world)


@pytest.fixture
def home(tmp_path):
    """A repository ``web`` with a remote, and a worktree ``w1`` of it."""
    home = tmp_path / "home"
    repo = home / "web"
    repo.mkdir(parents=True)
    git("init", "-q", "-b", "main", cwd=repo)
    git("commit", "-q", "--allow-empty", "-m", "first", cwd=repo)
    git("remote", "add", "origin", "https://ada:secret@example.com/ada/web.git", cwd=repo)
    git("worktree", "add", "-q", "-b", "ada/fix", str(home / "w1"), cwd=repo)
    return home


@pytest.fixture
def importing(store, journal, home, tmp_path):
    environment = {"PATH": os.environ["PATH"], "HOME": str(home), "GIT_CONFIG_NOSYSTEM": "1"}
    copies = tmp_path / "copies"
    copies.mkdir()
    transcripts = {CHAT}.__contains__
    return Importing(store=store, journal=journal, environment=environment, has_transcript=transcripts, folder=copies)


def project(home, **more):
    row = {"id": "p1", "name": "Web shop", "slug": "web", "repoPath": str(home / "web"), "defaultBranch": "trunk"}
    return {**row, "worktreeBasePath": str(home), "createdAt": CREATED, **more}


def workspace(home, number=1, **more):
    row = {"id": f"w{number}", "projectId": "p1", "name": f"Fix {number}", "description": "why", "status": "READY"}
    place = {"worktreePath": str(home / f"w{number}"), "branchName": "ada/fix"}
    return {**row, **place, "githubIssueUrl": "https://github.com/ada/web/issues/5", "createdAt": CREATED, **more}


def session(number=1, **more):
    row = {"id": f"s{number}", "workspaceId": "w1", "workflow": "followup", "model": "opus", "status": "RUNNING"}
    return {**row, "provider": "CLAUDE", "providerSessionId": CHAT, "createdAt": CREATED, "updatedAt": CREATED, **more}


def database(home, *, projects=(), workspaces=(), sessions=()):
    """Factory Factory's own, with one of each and what is given."""
    path = home / "data.db"
    path.unlink(missing_ok=True)
    rows = [
        *(("Project", row) for row in (project(home), *projects)),
        *(("Workspace", row) for row in (workspace(home), *workspaces)),
        *(("AgentSession", row) for row in (session(), *sessions)),
        ("WorkspacePR", {
            "workspaceId": "w1", "url": "https://github.com/ada/web/pull/7", "number": 7, "state": "OPEN", "ciStatus": "FAILURE",
            "hasMergeConflict": 1,
        }),
        ("WorkspaceRatchet", {
            "workspaceId": "w1", "dispatchSnapshotKey": "pr:7|x", "dispatchOutcome": "DIED", "dispatchRetryCount": 3,
            "dispatchStalled": 1,
        }),
        ("UserSettings", {"id": "default", "defaultWorkspacePermissions": "YOLO"}),
    ]  # fmt: skip
    return ff.make(path, ff.SPLIT, rows)


def fates(report):
    return [(line.kind, line.name, line.action) for line in report.lines]


def contents(store):
    return {table: [tuple(row) for row in store.query(f"SELECT * FROM {table}")] for table in TABLES}


async def test_it_shows_first_and_writes_nothing(importing, store, home):
    report = await importing.run(ImportRequest(path=str(database(home))))
    assert fates(report) == [
        ("project", "Web shop", "add"),
        ("workspace", "Fix 1", "add"),
        ("session", "Fix 1: Chat 1", "add"),
    ]
    assert (report.applied, report.source) == (False, str(home / "data.db"))
    assert report.lines[2].reason.startswith("its agent runs in Factory Factory")
    assert not any(contents(store).values())


async def test_what_is_imported_is_whole(importing, store, journal, home):
    report = await importing.run(ImportRequest(path=str(database(home)), apply=True))
    assert report.applied
    (mine,) = projects.all_of(store)
    assert (mine.name, mine.slug, mine.path, mine.default_branch) == ("Web shop", "web", home / "web", "trunk")
    assert (mine.repo_url, mine.include) == ("https://example.com/ada/web.git", ())
    (row,) = workspaces.all_of(store)
    assert (row.name, row.status, row.location, row.epoch, row.moving) == (
        *("Fix 1", WorkspaceStatus.READY, Location.DESKTOP, 0, None),
    )
    assert (row.project_id, row.worktree, row.branch, row.description) == (mine.id, home / "w1", "ada/fix", "why")
    assert row.github_issue_url == "https://github.com/ada/web/issues/5"
    assert (row.source.url, row.created_at.isoformat()) == ("https://example.com/ada/web.git", "2026-07-01T10:20:30.456000+00:00")
    with store.transaction() as tx:
        (chat,) = SessionTable(tx).of_workspace(row.id)
        assert ratchets.ratchet(tx, row.id) == RatchetRecord(
            dispatch_snapshot_key="pr:7|x",
            dispatch_outcome=DispatchOutcome.DIED,
            dispatch_retry_count=3,
            dispatch_stalled=True,
        )
        assert ratchets.pull_request(tx, row.id) == PullRequestRecord(
            url="https://github.com/ada/web/pull/7", number=7, state="OPEN", ci_status="FAILURE", has_merge_conflict=True
        )
    assert (chat.name, chat.workflow, chat.model, chat.status) == ("Chat 1", "followup", "opus", SessionStatus.IDLE)
    assert (chat.permissions, chat.provider_session_id, chat.has_history) == (PermissionPreset.YOLO, CHAT, True)
    events = journal.read(row.id, 0, 10)
    assert [event.body.kind for event in events] == ["notice", "workspace.status", "session.started"]
    assert events[2].session_id == chat.id
    assert git("status", "--porcelain", cwd=home / "w1") == ""  # and nobody touched the folder


async def test_a_repeat_changes_nothing(importing, store, home):
    path = str(database(home))
    await importing.run(ImportRequest(path=path, apply=True))
    before = contents(store)
    again = await importing.run(ImportRequest(path=path, apply=True))
    assert {line.action for line in again.lines} == {"known"}
    assert contents(store) == before


async def test_an_export_of_what_came_from_the_database_is_known_and_the_other_way_round(importing, store, home):
    exported = ff.export(
        home / "export.json",
        projects=[project(home)],
        workspaces=[workspace(home, ratchetEnabled=False, ratchetState="CI_FAILED", ratchetLastCiRunId="pr:7|x")],
        agentSessions=[session()],
    )
    report = await importing.run(ImportRequest(path=str(exported), apply=True))
    assert {line.action for line in report.lines} == {"add"}
    (row,) = workspaces.all_of(store)
    with store.transaction() as tx:
        assert ratchets.ratchet(tx, row.id) == RatchetRecord(enabled=False, dispatch_snapshot_key="pr:7|x")
        assert ratchets.pull_request(tx, row.id) is None
    report = await importing.run(ImportRequest(path=str(database(home)), apply=True))
    assert {line.action for line in report.lines} == {"known"}


async def test_what_changed_here_stays_and_what_is_new_there_comes(importing, store, world, home):
    await importing.run(ImportRequest(path=str(database(home)), apply=True))
    (row,) = workspaces.all_of(store)
    with store.transaction() as tx:
        ratchets.write_ratchet(tx, row.id, RatchetRecord(dispatch_snapshot_key="newer"))
        ratchets.write_pull_request(tx, row.id, None)
    git("worktree", "add", "-q", "-b", "ada/two", str(home / "w2"), cwd=home / "web")
    path = database(home, workspaces=[workspace(home, 2)], sessions=[session(2, providerSessionId=FIXER, workflow="ratchet")])
    report = await importing.run(ImportRequest(path=str(path), apply=True))
    assert fates(report) == [
        ("project", "Web shop", "known"),
        ("workspace", "Fix 1", "known"),
        ("session", "Fix 1: Chat 1", "known"),
        ("session", "Fix 1: Ratchet", "add"),
        ("workspace", "Fix 2", "add"),
    ]
    with store.transaction() as tx:
        assert ratchets.ratchet(tx, row.id).dispatch_snapshot_key == "newer"
        assert ratchets.pull_request(tx, row.id) is None
        assert [chat.has_history for chat in SessionTable(tx).of_workspace(row.id)] == [True, False]


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda tx, row, now: workspaces.place(tx, row, Location.CLOUD, 1, now), "lives in the cloud"),
        (lambda tx, row, now: workspaces.freeze(tx, row, HandoffId(row), now), "on its way"),
    ],
)
async def test_a_workspace_that_has_moved_gets_nothing(importing, store, world, home, change, reason):
    await importing.run(ImportRequest(path=str(database(home)), apply=True))
    (row,) = workspaces.all_of(store)
    with store.transaction() as tx:
        change(tx, row.id, world.now())
    before = contents(store)
    report = await importing.run(ImportRequest(path=str(database(home, sessions=[session(2)])), apply=True))
    assert [line.action for line in report.lines] == ["known", "known", "known", "skip"]
    assert reason in report.lines[1].reason
    assert reason in report.lines[3].reason
    assert contents(store) == before


async def test_what_is_not_there_is_left_out_with_the_reason(importing, store, home):
    (home / "plain").mkdir()
    git("init", "-q", str(home / "else"), cwd=home)
    (home / "w1" / "sub").mkdir()
    gone = project(home, id="p2", name="Gone", slug="gone", repoPath=str(home / "gone"))
    wrong = [
        workspace(home, 3, worktreePath=str(home / "plain")),
        workspace(home, 4, worktreePath=str(home / "else")),
        workspace(home, 5, worktreePath=str(home / "missing")),
        workspace(home, 6, worktreePath=str(home / "web")),
        workspace(home, 7, worktreePath=str(home / "w1" / "sub")),
        workspace(home, 8, worktreePath=str(home / ("n" * 5_000))),
        workspace(home, 9, worktreePath="w1"),
        workspace(home, 10, status="ARCHIVED", worktreePath=None),
        workspace(home, 11, projectId="p2"),
    ]
    path = database(home, projects=[gone], workspaces=wrong, sessions=[session(2, provider="CODEX")])
    report = await importing.run(ImportRequest(path=str(path), apply=True))
    skipped = {line.name: line.reason for line in report.lines if line.action == "skip"}
    assert set(skipped) == {"Gone", "Fix 1: Chat 2", *(f"Fix {number}" for number in range(3, 12))}
    assert all(skipped.values())
    assert "no git repository" in skipped["Gone"]
    assert "no git working tree" in skipped["Fix 3"]
    assert "another repository" in skipped["Fix 4"]
    assert [row.name for row in workspaces.all_of(store)] == ["Fix 1"]


async def test_paths_through_a_link_are_the_same_folder(importing, store, home):
    (home / "link").symlink_to(home / "web")
    (home / "link1").symlink_to(home / "w1")
    rows = {"projects": [project(home, repoPath=str(home / "link"))]}
    rows |= {"workspaces": [workspace(home, worktreePath=str(home / "link1"))], "agentSessions": []}
    await importing.run(ImportRequest(path=str(ff.export(home / "e.json", **rows)), apply=True))
    assert [one.path for one in projects.all_of(store)] == [home / "web"]
    # Claude knows its conversations by where it really ran, which is never a link.
    assert [one.worktree for one in workspaces.all_of(store)] == [home / "w1"]


async def test_a_project_that_the_user_made_is_used_and_a_taken_slug_avoided(importing, store, world, home):
    def mine(number, slug, path):
        made = ProjectId(world.new_id())
        return Project(made, f"mine {number}", slug, path, "main", None, (), world.now())

    with store.transaction() as tx:
        projects.insert(tx, known := mine(1, "shop", home / "web"))
        projects.insert(tx, mine(2, "other", home))
    git("init", "-q", str(home / "else"), cwd=home)
    second = project(home, id="p2", name="Second", slug="other", repoPath=str(home / "else"))
    report = await importing.run(ImportRequest(path=str(database(home, projects=[second])), apply=True))
    assert [line.action for line in report.lines] == ["known", "add", "add", "add"]
    (row,) = workspaces.all_of(store)
    assert row.project_id == known.id
    assert {one.slug for one in projects.all_of(store)} == {"shop", "other", "other-1"}


async def test_all_of_it_or_nothing(importing, store, home):
    with store.transaction() as tx:
        tx.execute("CREATE TRIGGER broken BEFORE INSERT ON sessions BEGIN SELECT raise(ABORT, 'no'); END")
    with pytest.raises(StoreBroken):
        await importing.run(ImportRequest(path=str(database(home)), apply=True))
    assert not any(contents(store).values())


async def test_what_can_not_be_read_changes_nothing(importing, store, home, tmp_path):
    (home / "bad").write_text("{")
    with pytest.raises(ImportUnreadable):
        await importing.run(ImportRequest(path=str(home / "bad"), apply=True))
    assert not any(contents(store).values())
    assert list((tmp_path / "copies").iterdir()) == []


async def test_many_workspaces(importing, store, home):
    """The largest that anybody has, and more: one transaction, and no git for what has no folder."""
    many = [workspace(home, number, worktreePath=None) for number in range(2, 3_000)]
    chats = [session(number, providerSessionId=None) for number in range(2, 3_000)]
    report = await importing.run(ImportRequest(path=str(database(home, workspaces=many, sessions=chats)), apply=True))
    assert len(report.lines) == 1 + 2_999 + 2_999
    assert store.query("SELECT count(*) AS n FROM sessions")[0]["n"] == 2_999
