"""Making, listing, showing and deleting workspaces."""

import json
import subprocess
from datetime import UTC, datetime

import pytest
from scripted_server import refused, reply

from ff_core.contract.base import ErrorView
from ff_core.contract.operation import OperationStatus
from ff_core.contract.problem import Problem
from ff_core.contract.workspace import VmStatus, VmView, WorkspaceStatus
from ff_core.world import uuid7


def test_new_waits_until_ready(logged_in, server):
    result = logged_in("new", "fix login 🚀", "--cloud", "--repo", "https://git.example.com/a.git", "--branch", "dev")
    assert result.exit_code == 0, result.output
    assert "READY" in result.stdout
    body = json.loads(server.seen("POST", "/v1/workspaces")[0][3])
    assert body == {"name": "fix login 🚀", "repo_url": "https://git.example.com/a.git", "branch": "dev"}


def test_the_repository_token_comes_from_standard_input_and_is_sent_whole(logged_in, server):
    args = ("new", "x", "--cloud", "--repo", "https://git.example.com/a.git", "--repo-token-stdin", "--json")
    result = logged_in(*args, stdin="tok en\n")
    assert json.loads(result.stdout)["status"] == "READY"
    assert json.loads(server.seen("POST", "/v1/workspaces")[0][3])["repo_token"] == "tok en"
    assert "tok en" not in result.output


def test_new_that_fails_says_code_and_sentence(logged_in, server):
    server.fail_provisioning = True
    result = logged_in("new", "x", "--cloud", "--json")
    assert result.exit_code == 1
    assert result.stderr == "error: There is no repository at that address. (repository_not_found)\n"
    assert json.loads(result.stdout)["status"] == "FAILED"


def test_new_without_waiting(logged_in, server):
    result = logged_in("new", "x", "--cloud", "--no-wait", "--json")
    assert json.loads(result.stdout)["status"] == "PROVISIONING"
    assert server.seen("GET", "/v1/workspaces") == []


@pytest.mark.parametrize("name", ["", "   ", "a/b", "..", "two\nlines", "x" * 101])
def test_a_bad_name_is_refused_before_anything_is_sent(logged_in, server, name):
    result = logged_in("new", name, "--cloud")
    assert result.exit_code == 2
    assert result.stderr.startswith("error: name: ")
    assert len(result.stderr.splitlines()) == 1
    assert server.requests == []


def test_ls_takes_all_pages(logged_in, server):
    for number in range(5):
        server.add_workspace(f"w{number}")
    listed = json.loads(logged_in("ls", "--json").stdout)["items"]
    assert [w["name"] for w in listed] == ["w0", "w1", "w2", "w3", "w4"]
    rows = [line.split("\t") for line in logged_in("ls").stdout.splitlines()]
    assert [row[0] for row in rows] == ["w0", "w1", "w2", "w3", "w4"]
    assert rows[0][1] == "READY"


def test_ls_is_empty(logged_in):
    result = logged_in("ls")
    assert (result.exit_code, result.stdout) == (0, "")
    assert "ff new" in result.stderr


def test_status_shows_sessions_requests_and_git(logged_in, server):
    workspace = server.add_workspace()
    session = server.add_session(workspace, "main", queued=2, error=ErrorView(code="overloaded", message="The model is busy."))
    request = server.ask(workspace, session)
    text = logged_in("status", "demo").stdout
    for part in ("demo: READY", "main", "2 queued", "rm -r x", str(request.id), "1 staged, 2 untracked", "The model is busy."):
        assert part in text
    shown = json.loads(logged_in("status", str(workspace.id), "--json").stdout)
    assert shown["repository"]["branch"] == "main"
    assert shown["sessions"][0]["pending"][0]["id"] == str(request.id)


def test_status_of_a_workspace_whose_git_cannot_answer(logged_in, server):
    server.add_workspace()
    server.refuse("repository", 503, "vm_unreachable", "The workspace does not answer.")
    result = logged_in("status", "demo", "--json")
    assert result.exit_code == 0
    shown = json.loads(result.stdout)
    assert shown["repository"] is None
    assert shown["repository_error"]["code"] == "vm_unreachable"
    assert "The workspace does not answer." in logged_in("status", "demo").stdout


def asleep(**more) -> VmView:
    at = datetime(2026, 11, 23, tzinfo=UTC)
    return VmView(id=uuid7(1, 1), status=VmStatus.SUSPENDED, generation=1, created_at=at, suspended_at=at, **more)


def test_status_says_when_it_sleeps_and_was_saved_and_does_not_wake_it(logged_in, server):
    server.add_workspace(vm=asleep(), last_saved_at=datetime(2026, 11, 25, 12, 30, tzinfo=UTC))
    text = logged_in("status", "demo").stdout
    assert "READY (asleep)" in text
    assert "last saved: 2026-11-25 12:30:00 UTC" in text
    assert server.seen("GET", "/repository") == []
    assert "READY (asleep)" in logged_in("ls").stdout


def test_a_workspace_that_waits_for_room_shows_its_place(logged_in, server):
    server.add_workspace(status=WorkspaceStatus.PROVISIONING, queue_place=3)
    assert "number 3 in the queue" in logged_in("ls").stdout


def test_suspend_waits_until_it_sleeps(logged_in, server):
    server.add_workspace()
    result = logged_in("suspend", "demo", "--force", "--json")
    assert json.loads(result.stdout)["status"] == "done"
    assert server.queries["suspend"] == {"force": "true"}


def test_suspend_waits_for_what_is_being_done_with_it(logged_in, server):
    workspace = server.add_workspace()
    suspend = server.suspend
    busy = [True, True]

    async def refuse(request):
        if busy and busy.pop():
            return refused(409, "operation_active", "It is being saved.")
        return await suspend(request)

    server.suspend = refuse
    result = logged_in("suspend", "demo")
    assert result.exit_code == 0, result.output
    assert len(server.seen("POST", f"/v1/workspaces/{workspace.id}/suspend")) == 3


def test_a_workspace_in_use_is_not_suspended_and_says_so(logged_in, server):
    server.add_workspace()
    server.suspend_error = ErrorView(code="vm_in_use", message="A turn runs.")
    result = logged_in("suspend", "demo")
    assert result.exit_code == 1
    assert result.stderr.endswith("error: A turn runs. (vm_in_use)\n")


def test_names_are_exact_and_ambiguity_is_said(logged_in, server):
    first, second = server.add_workspace("same"), server.add_workspace("same")
    server.add_workspace("gone", WorkspaceStatus.ARCHIVED)
    result = logged_in("status", "same")
    assert result.exit_code == 2
    assert str(first.id) in result.stderr
    assert str(second.id) in result.stderr
    assert logged_in("status", str(second.id)).exit_code == 0
    assert logged_in("status", "gone").exit_code == 4
    assert logged_in("status", str(server.new_id())).exit_code == 4


def test_rm_waits_until_gone(logged_in, server):
    server.add_workspace()
    result = logged_in("rm", "demo", "--yes", "--json")
    assert json.loads(result.stdout)["status"] == "done"
    assert server.workspaces == {}
    assert logged_in("rm", "demo", "--yes").exit_code == 4


@pytest.mark.parametrize("kind", ["checkpoint", "provision"])
def test_rm_waits_for_the_deletion_itself_after_what_ran_before_it(logged_in, server, kind):
    workspace = server.add_workspace()
    delete, before = server.delete, server.new_operation(kind, workspace)
    undone = {"status": OperationStatus.UNDONE, "error": ErrorView(code="cancelled", message="It was cancelled.")}

    async def cancel_first(request):
        server.delete, server.operations[str(before.id)] = delete, before.model_copy(update=undone)
        return reply(before, 202)

    server.delete = cancel_first
    result = logged_in("rm", "demo", "--yes", "--json")
    assert (result.exit_code, json.loads(result.stdout)["kind"]) == (0, "terminate")
    assert server.workspaces == {}
    assert len(server.seen("DELETE", f"/v1/workspaces/{workspace.id}")) == 2


def test_rm_when_the_operation_goes_with_the_workspace(logged_in, server):
    server.add_workspace()
    remove = server.operation

    async def forget(request):
        await remove(request)
        raise KeyError

    server.operation = forget
    result = logged_in("rm", "demo", "--yes")
    assert result.exit_code == 0, result.output


def test_rm_does_not_delete_unasked(logged_in, server):
    server.add_workspace()
    result = logged_in.run("rm", "demo", stdin=subprocess.DEVNULL)
    assert result.returncode == 2
    assert b"--yes" in result.stderr
    assert server.seen("DELETE", "/v1/workspaces") == []


def test_a_refusal_of_the_server_is_one_line(logged_in, server):
    server.fail_next.append(Problem(title="No", status=409, code="workspace_busy", detail="It is \x1b[31mbusy\nnow."))
    result = logged_in("ls")
    assert result.exit_code == 5
    assert result.stderr == "error: It is ␛[31mbusy now. (workspace_busy)\n"
