"""What an import decides, without a disk or a database."""

from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest

from ff_core.contract.record import PullRequestRecord, RatchetRecord
from ff_core.contract.session import PermissionPreset, SessionStatus
from ff_core.importing.found import Found, FoundProject, FoundSession, FoundWorkspace
from ff_core.importing.plan import Action, Checkout, Disk, Ours, Repository, decide, lines

AT = datetime(2026, 8, 1, tzinfo=UTC)
REPO, TREE = Path("/code/web"), Path("/trees/web/workspace-w1")
PROJECT = FoundProject(id="p1", name="web", slug="web", path=REPO, default_branch="main", archived=False, created_at=AT)
WORKSPACE = FoundWorkspace(
    id="w1",
    project_id="p1",
    name="Fix login",
    description=None,
    status="READY",
    worktree=TREE,
    branch="ada/fix-login",
    github_issue_url=None,
    pull_request=PullRequestRecord(url="https://github.com/o/r/pull/1"),
    ratchet=RatchetRecord(),
    init_error=None,
    created_at=AT,
)
SESSION = FoundSession(
    id="s1",
    workspace_id="w1",
    name="Chat 1",
    workflow="followup",
    model="sonnet",
    status="IDLE",
    provider="CLAUDE",
    provider_session_id="11111111-1111-4111-8111-111111111111",
    created_at=AT,
    updated_at=AT,
)
FOUND = Found(Path("/data.db"), "database", (PROJECT,), (WORKSPACE,), (SESSION,), PermissionPreset.STRICT)
CHATS = {"11111111-1111-4111-8111-111111111111"}
DISK = Disk({REPO: Repository(REPO, REPO / ".git")}, {TREE: Checkout(TREE, REPO / ".git")}, CHATS)


def fates(plan):
    return [(line.kind, line.name, line.action) for line in lines(plan)]


def only(planned):
    (one,) = planned
    return one


def test_what_is_there_is_added_each_below_what_it_belongs_to():
    second = replace(PROJECT, id="p2", name="api", path=Path("/code/api"))
    disk = replace(DISK, repositories={**DISK.repositories, second.path: Repository(second.path, second.path / ".git")})
    plan = decide(replace(FOUND, projects=(PROJECT, second)), disk, Ours())
    assert fates(plan) == [
        ("project", "web", "add"),
        ("workspace", "Fix login", "add"),
        ("session", "Fix login: Chat 1", "add"),
        ("project", "api", "add"),
    ]
    workspace, session = only(plan.workspaces), only(plan.sessions)
    assert workspace.project_id == plan.projects[0].id
    assert (session.workspace_id, session.has_history) == (workspace.id, True)


def test_ids_are_the_same_every_time_and_of_each_kind_their_own():
    same = Found(
        FOUND.source,
        "database",
        (replace(PROJECT, id="x"),),
        (replace(WORKSPACE, id="x", project_id="x"),),
        (replace(SESSION, id="x", workspace_id="x"),),
        PermissionPreset.STRICT,
    )
    first, again = decide(same, DISK, Ours()), decide(same, DISK, Ours())
    assert first == again
    ids = {only(first.projects).id, only(first.workspaces).id, only(first.sessions).id}
    assert len(ids) == 3
    # Written into databases of users: another one would import everything twice.
    assert str(only(first.workspaces).id) == "a99e67b7-7978-51e4-a951-c05f5c452655"


def test_a_second_time_everything_is_known():
    first = decide(FOUND, DISK, Ours())
    project, workspace, session = only(first.projects), only(first.workspaces), only(first.sessions)
    ours = Ours({REPO: project.id}, {workspace.id: ""}, {workspace.worktree}, {session.id})
    again = decide(FOUND, DISK, ours)
    assert {one.action for one in (*again.projects, *again.workspaces, *again.sessions)} == {Action.KNOWN}
    assert only(again.workspaces).project_id == project.id


def test_a_conversation_that_is_new_comes_into_a_known_workspace_unless_that_moved_since():
    workspace_id = only(decide(FOUND, DISK, Ours()).workspaces).id
    here = decide(FOUND, DISK, Ours(workspaces={workspace_id: ""}))
    assert (only(here.workspaces).action, only(here.sessions).action) == (Action.KNOWN, Action.ADD)
    moved = decide(FOUND, DISK, Ours(workspaces={workspace_id: "lives in the cloud"}))
    assert (only(moved.workspaces).action, only(moved.sessions).action) == (Action.KNOWN, Action.SKIP)
    assert only(moved.sessions).reason == "its workspace lives in the cloud"


def test_a_project_that_the_user_added_himself_takes_the_workspaces():
    mine = only(decide(FOUND, DISK, Ours()).sessions).id  # any id
    plan = decide(FOUND, DISK, Ours(projects={REPO: mine}))
    assert (only(plan.projects).action, only(plan.workspaces).project_id) == (Action.KNOWN, mine)


def test_a_project_whose_folder_has_moved_is_not_added_again():
    project_id = only(decide(FOUND, DISK, Ours()).projects).id
    plan = decide(FOUND, DISK, Ours(projects={Path("/old/web"): project_id}))
    assert only(plan.projects).action is Action.SKIP
    assert "ff project rm" in only(plan.projects).reason


@pytest.mark.parametrize(
    ("project", "disk", "reason"),
    [
        (replace(PROJECT, archived=True), DISK, "archived"),
        (PROJECT, Disk(), "/code/web is not there"),
    ],
)
def test_a_project_that_can_not_be_used_leaves_its_workspaces_out(project, disk, reason):
    plan = decide(replace(FOUND, projects=(project,)), disk, Ours())
    assert reason in only(plan.projects).reason
    assert [one.action for one in (*plan.projects, *plan.workspaces, *plan.sessions)] == [Action.SKIP] * 3
    assert "project" in only(plan.workspaces).reason
    assert "workspace" in only(plan.sessions).reason


@pytest.mark.parametrize(
    ("workspace", "reason"),
    [
        (replace(WORKSPACE, status="ARCHIVED"), "archived"),
        (replace(WORKSPACE, status="ARCHIVING"), "archived"),
        (replace(WORKSPACE, status="NEW"), "not set up"),
        (replace(WORKSPACE, status="PROVISIONING"), "not set up"),
        (replace(WORKSPACE, worktree=None), "no folder"),
        (replace(WORKSPACE, worktree=Path("/trees/gone")), "/trees/gone is not there"),
        (replace(WORKSPACE, worktree=Path("/trees/other")), "another repository"),
        (replace(WORKSPACE, worktree=REPO), "that of its project"),
        (replace(WORKSPACE, project_id="p9"), "project"),
    ],
)
def test_a_workspace_that_can_not_go_on_is_left_out_with_the_reason(workspace, reason):
    other = Path("/trees/other")
    more = {other: Checkout(other, Path("/code/else/.git")), REPO: Checkout(REPO, REPO / ".git")}
    disk = replace(DISK, checkouts={**DISK.checkouts, **more})
    plan = decide(replace(FOUND, workspaces=(workspace,)), disk, Ours())
    assert only(plan.workspaces).action is Action.SKIP
    assert reason in only(plan.workspaces).reason
    assert only(plan.sessions).action is Action.SKIP


def test_two_workspaces_never_share_a_folder():
    twin = replace(WORKSPACE, id="w2", name="Twin")
    plan = decide(replace(FOUND, workspaces=(WORKSPACE, twin)), DISK, Ours())
    assert [one.action for one in plan.workspaces] == [Action.ADD, Action.SKIP]
    mine = decide(FOUND, DISK, Ours(worktrees={TREE}))
    assert "another workspace's" in only(mine.workspaces).reason


def test_what_is_in_the_file_twice_is_taken_once():
    plan = decide(Found(Path("/x"), "", (PROJECT,) * 2, (WORKSPACE,) * 2, (SESSION,) * 2, PermissionPreset.STRICT), DISK, Ours())
    for planned in (plan.projects, plan.workspaces, plan.sessions):
        assert [one.action for one in planned] == [Action.ADD, Action.SKIP]


def test_what_is_lost_or_was_wrong_is_said():
    found = replace(
        FOUND,
        projects=(replace(PROJECT, left=("its start-up script",)),),
        workspaces=(replace(WORKSPACE, status="FAILED", left=("its auto-iteration", "its Linear issue A-1")),),
    )
    plan = decide(found, DISK, Ours())
    assert only(plan.projects).reason == "without its start-up script"
    assert only(plan.workspaces).reason == "its set-up had failed; without its auto-iteration, its Linear issue A-1"


@pytest.mark.parametrize(
    ("session", "action", "status", "history", "reason"),
    [
        (SESSION, Action.ADD, SessionStatus.IDLE, True, ""),
        (replace(SESSION, status="RUNNING"), Action.ADD, SessionStatus.IDLE, True, "stop it there"),
        (replace(SESSION, status="PAUSED"), Action.ADD, SessionStatus.IDLE, True, ""),
        (replace(SESSION, status="COMPLETED"), Action.ADD, SessionStatus.COMPLETED, True, ""),
        (replace(SESSION, status="FAILED"), Action.ADD, SessionStatus.FAILED, True, ""),
        (replace(SESSION, provider_session_id=None), Action.ADD, SessionStatus.IDLE, False, ""),
        (replace(SESSION, provider_session_id="gone"), Action.ADD, SessionStatus.IDLE, False, "transcript is gone"),
        (replace(SESSION, provider="CODEX"), Action.SKIP, SessionStatus.IDLE, True, "is of CODEX"),
        (replace(SESSION, workspace_id="w9"), Action.SKIP, SessionStatus.IDLE, True, "workspace is left out"),
    ],
)
def test_sessions(session, action, status, history, reason):
    one = only(decide(replace(FOUND, sessions=(session,)), DISK, Ours()).sessions)
    assert (one.action, one.status, one.has_history) == (action, status, history)
    assert reason in one.reason
    assert bool(reason) == bool(one.reason)


def test_a_session_without_a_name_gets_one():
    nameless = tuple(
        replace(SESSION, id=f"s{number}", name=None, workflow=workflow)
        for number, workflow in enumerate(["followup", "ratchet", "feature"])
    )
    plan = decide(replace(FOUND, sessions=nameless), DISK, Ours())
    assert [one.name for one in plan.sessions] == ["Chat 1", "Ratchet", "Chat 3"]


def test_strays_are_told_too():
    plan = decide(replace(FOUND, projects=()), DISK, Ours())
    assert fates(plan) == [("workspace", "Fix login", "skip"), ("session", "Fix login: Chat 1", "skip")]
    plan = decide(replace(FOUND, workspaces=()), DISK, Ours())
    assert fates(plan) == [("project", "web", "add"), ("session", "?: Chat 1", "skip")]
