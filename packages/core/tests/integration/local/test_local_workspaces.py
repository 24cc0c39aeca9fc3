"""The life of a workspace of a desktop: set up, looked at, removed, and found again after a kill."""

import asyncio
import json
import shutil
from pathlib import Path

import pytest

from ff_core.contract.execution import EXEC_FRAME, ExecRequest
from ff_core.contract.places import Location
from ff_core.contract.session import NewMessage, NewSession, SessionStatus
from ff_core.contract.workspace import WorkspaceStatus
from ff_core.errors import InvalidInput
from ff_core.ids import HandoffId
from ff_core.projects.errors import WorkLost, WorkspaceUnknown, WorktreeMissing
from ff_core.workspaces import repository as rows
from ff_core.workspaces.errors import WorkspaceElsewhere, WorkspaceMoving, WorkspaceNotReady

ISSUE = "https://github.com/o/r/issues/7"


def configured(setup) -> dict[str, str]:
    return {"factory-factory.json": json.dumps({"scripts": {"setup": setup}})}


async def run(host, workspace, *argv, **more):
    frames = [
        EXEC_FRAME.validate_json(line)
        async for line in host.execute(workspace.id, ExecRequest(argv=argv, env={}, **more))
        if line
    ]
    return b"".join(frame.data for frame in frames if frame.kind == "output"), frames[-1]


def there(workspace):
    return Path(workspace.path).exists()


async def test_the_set_up_script_runs_in_the_worktree_and_is_heard_meanwhile(desktop, eventually):
    script = 'echo "in $PWD for $WORKSPACE_PATH"; while ! test -e go; do sleep 0.02; done; echo done >&2; touch made'
    await desktop.project(desktop.repository(files=configured(script)))
    workspace = await desktop.order()
    where = desktop.folder / "data" / "worktrees" / "proj" / f"workspace-{workspace.id}"
    await eventually(lambda: f"in {where} for {where}" in desktop.said(workspace, "setup"))
    assert desktop.host.workspace(workspace.id).status is WorkspaceStatus.PROVISIONING
    with pytest.raises(WorkspaceNotReady):
        desktop.host.execute(workspace.id, ExecRequest(argv=["true"], env={}))
    (where / "go").touch()
    await desktop.host.workspaces.settled(workspace.id)
    made = desktop.host.workspace(workspace.id)
    assert (made.status, made.error, made.location, made.epoch) == (WorkspaceStatus.READY, None, Location.DESKTOP, 0)
    assert (where / "made").exists()
    assert "done" in desktop.said(workspace, "setup")


@pytest.mark.parametrize(
    ("file", "code"),
    [
        (configured("echo broken; exit 3"), "setup_failed"),
        ({"factory-factory.json": "{"}, "configuration_malformed"),
        ({"factory-factory.json": '{"scripts": {"setup": ["no"]}}'}, "configuration_malformed"),
    ],
)
async def test_what_is_wrong_with_the_set_up_is_a_warning(desktop, file, code):
    await desktop.project(desktop.repository(files=file))
    made = await desktop.new()
    assert made.error.code == code
    assert desktop.events(made)[-1].error == made.error


async def test_a_set_up_script_ends_at_its_time_limit_and_may_be_left_out(desktop):
    await desktop.project(desktop.repository(files=configured("touch begun; sleep 60")))
    desktop.host.workspaces._setup_timeout_s = 0.3
    made = await desktop.new()
    assert made.error.code == "setup_timed_out"
    left_out = await desktop.new("without", no_setup=True)
    assert left_out.error is None
    assert not (Path(left_out.path) / "begun").exists()


async def test_commands_run_in_the_worktree_with_the_users_environment(desktop):
    desktop.environment |= {"MINE": "yes", "FF_API_KEY": "ffk_secret", "CLAUDECODE": "1"}
    host = await desktop.restart()
    await desktop.project(desktop.repository())
    made = await desktop.new()
    written, ended = await run(host, made, "sh", "-c", 'echo "$PWD $HOME $MINE"; env')
    first, *rest = written.decode().splitlines()
    assert first == f"{made.path} {desktop.home} yes"
    assert not [line for line in rest if line.startswith(("FF_API_KEY", "CLAUDECODE"))]
    assert ended.exit_code == 0
    with pytest.raises(Exception, match="must be inside"):
        await run(host, made, "true", cwd="../../..")


async def test_asking_twice_with_one_id_is_one_workspace(desktop):
    await desktop.project(desktop.repository())
    made = await desktop.new()
    again = await desktop.host.create(made.id, desktop.wanted("other"))
    assert (again.id, again.name) == (made.id, "fix it")
    assert len(desktop.host.list_workspaces()) == 1
    with pytest.raises(InvalidInput, match="either"):
        await desktop.order(base="main", branch="main")


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lambda d, p: (p / "README.md").write_text("changed"), "1 changed file"),
        (lambda d, p: (p / "new.txt").write_text("new"), "1 untracked file"),
        (lambda d, p: (d.git(p, "checkout", "-q", "--detach"), d.commit(p, {"x": "x"})), "1 commit on no branch"),
    ],
)
async def test_work_that_is_nowhere_else_is_not_removed_unless_told_to(desktop, spoil, words):
    await desktop.project(desktop.repository())
    made = await desktop.new()
    spoil(desktop, Path(made.path))
    with pytest.raises(WorkLost, match=words):
        await desktop.host.remove(made.id, force=False, wait_s=10)
    assert desktop.host.workspace(made.id).status is WorkspaceStatus.READY
    assert (await desktop.host.remove(made.id, force=True, wait_s=10)).status == "done"
    assert not there(made)


async def test_commits_of_a_submodule_that_are_nowhere_else_count_too(desktop):
    desktop.git(desktop.folder, "config", "--global", "protocol.file.allow", "always")
    desktop.repository("lib")
    path = desktop.repository(origin=False)
    desktop.git(path, "submodule", "--quiet", "add", str(desktop.folder / "lib.git"), "lib")
    desktop.git(path, "commit", "-q", "-m", "lib")
    await desktop.project(path)
    made = await desktop.new()
    worktree = Path(made.path)
    desktop.git(worktree, "submodule", "--quiet", "update", "--init")
    desktop.commit(worktree / "lib", {"x": "x"})
    desktop.git(worktree, "commit", "-q", "-a", "-m", "newer lib")
    with pytest.raises(WorkLost, match="1 commit of a submodule"):
        await desktop.host.remove(made.id, force=False, wait_s=10)
    assert (await desktop.host.remove(made.id, force=True, wait_s=10)).status == "done"


async def test_removing_keeps_the_branch_and_its_commits(desktop):
    path = desktop.repository(files={".gitignore": "cache\n"})
    await desktop.project(path)
    made = await desktop.new()
    commit = desktop.commit(Path(made.path), {"x": "x"})
    cache = Path(made.path) / "cache"
    cache.mkdir()
    (cache / "module").touch()
    cache.chmod(0o500)
    operation = await desktop.host.remove(made.id, force=False, wait_s=10)
    assert (operation.status, operation.kind) == ("done", "terminate")
    assert desktop.host.operation(operation.id) == operation
    assert desktop.git(path, "rev-parse", made.branch) == commit
    assert desktop.git(path, "worktree", "list", "--porcelain").count("worktree ") == 1
    assert desktop.host.list_workspaces() == []
    assert desktop.host.workspace(made.id).status is WorkspaceStatus.ARCHIVED
    with pytest.raises(WorkspaceUnknown):
        await desktop.host.remove(made.id, force=True, wait_s=10)


async def test_removing_ends_what_runs_there(desktop, eventually):
    host = desktop.host
    await desktop.project(desktop.repository())
    made = await desktop.new()
    session = await host.open_session(made.id, NewSession())
    for text in ("one", "two"):
        await host.sessions.send(session.id, NewMessage(text=text))
    await eventually(lambda: desktop.agents and desktop.agents[0].got)
    command = asyncio.create_task(run(host, made, "sleep", "60"))
    await eventually(lambda: host.gate.commands)
    assert host.busy == 2
    assert (await host.remove(made.id, force=False, wait_s=20)).status == "done"
    assert desktop.agents[0].closed.is_set()
    assert (await command)[1].exit_code < 0
    with pytest.raises(WorkspaceNotReady):
        host.require_alive(session.id)
    await desktop.restart()
    assert len(desktop.agents) == 1  # the second prompt is not given to anybody any more
    assert desktop.host.sessions.get(session.id).queued == 0


async def test_removing_what_is_still_being_made(desktop, eventually):
    await desktop.project(desktop.repository(files=configured("touch begun; sleep 60")))
    workspace = await desktop.order()
    where = desktop.folder / "data" / "worktrees" / "proj" / f"workspace-{workspace.id}"
    await eventually((where / "begun").exists)
    assert (await desktop.host.remove(workspace.id, force=True, wait_s=20)).status == "done"
    assert not where.exists()


async def test_a_worktree_that_somebody_removed(desktop):
    await desktop.project(desktop.repository())
    made = await desktop.new()
    shutil.rmtree(made.path)
    with pytest.raises(WorktreeMissing, match="ff rm"):
        await desktop.host.repository(made.id)
    assert (await desktop.host.remove(made.id, force=False, wait_s=10)).status == "done"


async def test_the_prompt_of_an_issue_is_the_first_of_a_first_session(desktop, eventually):
    told = json.dumps({"number": 7, "title": "It is slow", "body": "Make it fast."})
    desktop.program("gh", f"case \"$1 $2\" in 'issue view') test \"$3\" = {ISSUE} && echo '{told}';; *) exit 1;; esac")
    await desktop.project(desktop.repository())
    made = await desktop.new(github_issue_url=ISSUE)
    assert made.github_issue_url == ISSUE
    (session,) = desktop.host.list_sessions(made.id)
    assert session.name == "Issue 7"
    await eventually(lambda: desktop.agents and desktop.agents[0].got)
    assert "Make it fast." in desktop.agents[0].got[0]
    without = await desktop.new("plain")
    assert desktop.host.list_sessions(without.id) == []


async def test_without_gh_the_prompt_has_the_issues_address(desktop, eventually):
    desktop.program("gh", "exit 4")
    await desktop.project(desktop.repository())
    await desktop.new(github_issue_url=ISSUE)
    await eventually(lambda: desktop.agents and desktop.agents[0].got)
    assert ISSUE in desktop.agents[0].got[0]


async def test_what_a_restart_finds_half_made_is_settled(desktop, eventually):
    await desktop.project(desktop.repository(files=configured("touch begun; sleep 60")))
    workspace = await desktop.order(github_issue_url=ISSUE)
    where = desktop.folder / "data" / "worktrees" / "proj" / f"workspace-{workspace.id}"
    await eventually((where / "begun").exists)
    host = await desktop.restart()
    after = host.workspace(workspace.id)
    assert (after.status, after.error.code) == (WorkspaceStatus.READY, "setup_interrupted")
    assert len(host.list_sessions(workspace.id)) == 1
    assert (await host.repository(workspace.id)).branch == after.branch


async def test_a_worktree_that_was_not_whole_is_cleared_away(desktop, eventually):
    path = desktop.repository(files={"a.txt": "a", ".gitattributes": "*.txt filter=slow\n"})
    desktop.git(path, "config", "filter.slow.smudge", f"touch {desktop.folder}/smudging; sleep 60")
    await desktop.project(path)
    workspace = await desktop.order()
    await eventually((desktop.folder / "smudging").exists)
    host = await desktop.restart()
    after = host.workspace(workspace.id)
    assert (after.status, after.error.code) == (WorkspaceStatus.FAILED, "preparation_interrupted")
    assert list((desktop.folder / "data" / "worktrees" / "proj").iterdir()) == []
    assert (await host.remove(workspace.id, force=False, wait_s=10)).status == "done"


async def test_a_removal_goes_on_after_a_restart(desktop):
    await desktop.project(desktop.repository())
    made = await desktop.new()
    with desktop.host.store.transaction() as tx:
        rows.move(tx, made.id, WorkspaceStatus.ARCHIVING, None, desktop.host.world.now())
    host = await desktop.restart()
    await host.workspaces.settled(made.id)
    assert host.workspace(made.id).status is WorkspaceStatus.ARCHIVED
    assert not there(made)


async def test_open_turns_are_interrupted_by_a_restart_and_prompts_that_wait_go_on(desktop, eventually):
    await desktop.project(desktop.repository())
    made = await desktop.new()
    session = await desktop.host.open_session(made.id, NewSession())
    for text in ("one", "two"):
        await desktop.host.sessions.send(session.id, NewMessage(text=text))
    await eventually(lambda: desktop.agents and desktop.agents[0].got)
    host = await desktop.restart()
    await eventually(lambda: len(desktop.agents) == 2 and desktop.agents[1].got)
    assert desktop.agents[1].got == ["two"]
    assert host.sessions.get(session.id).status is SessionStatus.RUNNING


async def test_nothing_runs_in_a_workspace_that_moves_or_lives_elsewhere_and_it_can_be_looked_at(desktop):
    host, handoff = desktop.host, HandoffId(desktop.host.world.new_id())
    await desktop.project(desktop.repository())
    made = await desktop.new()
    session = await host.open_session(made.id, NewSession())
    for error, change in (
        (WorkspaceMoving, lambda tx: rows.freeze(tx, made.id, handoff, host.world.now())),
        (WorkspaceElsewhere, lambda tx: rows.place(tx, made.id, Location.CLOUD, 1, host.world.now())),
    ):
        with host.store.transaction() as tx:
            change(tx)
        with pytest.raises(error):
            host.execute(made.id, ExecRequest(argv=["true"], env={}))
        with pytest.raises(error):
            await host.open_session(made.id, NewSession())
        with pytest.raises(error):
            host.require_alive(session.id)
        assert (await host.repository(made.id)).branch == made.branch
    assert host.workspace(made.id).location is Location.CLOUD
