"""Workspaces from order to deletion, and what goes wrong in between."""

import asyncio
from contextlib import ExitStack

import pytest
from api_user import User
from stack import Stack, scratch

from ff_cloud.testing.server import running_server
from ff_cloud.testing.vm_image import image_running
from ff_core.testing.git_server import GitServer

pytestmark = [pytest.mark.docker, pytest.mark.asyncio(loop_scope="session")]


async def test_an_order_is_answered_at_once_and_becomes_ready(user: User) -> None:
    ordered = await user.order(name="🦀 my first workspace")
    assert ordered.status == "PROVISIONING"
    assert ordered.operation_id is not None
    ready = await user.settled(ordered.id)
    assert ready.status == "READY"
    assert ready.vm is not None
    operation = await user.call("GET", f"/v1/operations/{ordered.operation_id}")
    assert (operation["status"], operation["step"], operation["error"]) == ("done", None, None)
    assert (
        await user.shell(ready.id, "git status --porcelain=v2 --branch | head -2")
        == "# branch.oid (initial)\n# branch.head main\n"
    )
    await user.delete(ready.id)


async def test_nothing_is_left_of_a_deleted_workspace(stack: Stack, user: User) -> None:
    workspace = await user.ready()
    assert workspace.vm is not None
    mine = str(workspace.vm.id)
    assert await _of_vm("ps", "-aq", mine)
    assert await _of_vm("volume", "ls", "-q", mine)
    await user.delete(workspace.id)
    assert not await _of_vm("ps", "-aq", mine)
    assert not await _of_vm("volume", "ls", "-q", mine)
    listed = await user.call("GET", "/v1/workspaces")
    assert listed["items"] == []
    for path in ("", "/events", "/sessions", "/repository"):
        assert (await user.refused("GET", f"/v1/workspaces/{workspace.id}{path}")).status == 404


async def test_a_workspace_can_be_deleted_while_it_is_made(user: User) -> None:
    for delay_s in (0.0, 0.2, 0.6):
        ordered = await user.order()
        await asyncio.sleep(delay_s)  # a different moment of the provisioning each time
        await user.call("DELETE", f"/v1/workspaces/{ordered.id}")
        await user.call("DELETE", f"/v1/workspaces/{ordered.id}")
        await user.gone(ordered.id)
        if ordered.vm is not None:
            assert not await _of_vm("ps", "-aq", str(ordered.vm.id))
            assert not await _of_vm("volume", "ls", "-q", str(ordered.vm.id))


async def test_a_repository_with_a_password(stack: Stack, user: User, tmp_path) -> None:
    token = "ghp_e2e_token_that_must_not_leak"
    credentials = ("x-access-token", token)
    async with GitServer(tmp_path, host=stack.network.gateway, port=stack.git_port, credentials=credentials) as git:
        url = await git.create("private", {"README.md": "# private\n"}, branch="trunk")
        workspace = await user.ready(repo_url=url, repo_token=token, branch="trunk")
        assert await user.shell(workspace.id, "cat README.md; git branch --show-current; git remote get-url origin") == (
            f"# private\ntrunk\n{url}\n"
        )
        assert token not in (
            await user.shell(workspace.id, "cat .git/config; env; cat /proc/*/environ /proc/*/cmdline 2>/dev/null || true")
        )
        found = await user.run(workspace.id, "grep", "-rl", token, "/workspace", "/tmp", "/run")
        assert found.stdout == b""
        await user.delete(workspace.id)

        wrong = await user.settled((await user.order(repo_url=url, repo_token="wrong")).id)
        assert (wrong.status, wrong.error and wrong.error.code) == ("FAILED", "repo_auth_failed")
        assert "wrong" not in wrong.error.message
        await user.delete(wrong.id)


@pytest.mark.parametrize(
    ("repository", "branch", "code"),
    [("no-such-repository", None, "repo_not_found"), ("has-main", "no-such-branch", "branch_not_found")],
)
async def test_a_clone_that_can_not_be(stack: Stack, user: User, repository: str, branch: str | None, code: str) -> None:
    if repository == "has-main" and not (stack.git._root / "has-main.git").exists():
        await stack.git.create("has-main", {"a": "b"})
    ordered = await user.order(repo_url=stack.git.url(repository), branch=branch)
    failed = await user.settled(ordered.id)
    assert (failed.status, failed.error.code) == ("FAILED", code)
    assert failed.error.message.endswith((".", "!"))
    assert failed.vm is None, "what was half made is gone"
    refused = await user.refused("POST", f"/v1/workspaces/{ordered.id}/sessions", {})
    assert (refused.status, refused.code) == (409, "workspace_not_ready")
    await user.delete(ordered.id)


async def test_a_repeated_order_makes_one_workspace(user: User) -> None:
    key = {"Idempotency-Key": "order-1"}
    first = await user.call("POST", "/v1/workspaces", {"name": "twice"}, headers=key)
    second = await user.call("POST", "/v1/workspaces", {"name": "twice"}, headers=key)
    assert first["id"] == second["id"]
    taken = await user.refused("POST", "/v1/workspaces", {"name": "twice"})
    assert taken.code == "workspace_name_taken"
    await user.delete(first["id"])


async def test_commands_in_a_workspace(user: User) -> None:
    workspace = await user.ready()
    ran = await user.run(workspace.id, "bash", "-c", "printf 'out\\xff'; printf err >&2; exit 7")
    assert (ran.exit_code, ran.stdout, ran.stderr) == (7, b"out\xff", b"err")
    assert (await user.run(workspace.id, "cat", stdin="over stdin")).stdout == b"over stdin"
    assert (await user.run(workspace.id, "sh", "-c", 'echo "$GREETING"', env={"GREETING": "hi"})).stdout == b"hi\n"
    outside = await user.refused("POST", f"/v1/workspaces/{workspace.id}/exec", {"argv": ["ls"], "cwd": "../../etc"})
    assert outside.code == "exec_cwd_outside"
    missing = await user.refused("POST", f"/v1/workspaces/{workspace.id}/exec", {"argv": ["no-such-program"]})
    assert missing.code == "program_missing"
    big = await user.run(workspace.id, "head", "-c", "20000000", "/dev/zero")
    assert len(big.stdout) == 20_000_000
    await user.delete(workspace.id)


async def _of_vm(*arguments: str) -> list[str]:
    *command, vm = arguments
    process = await asyncio.create_subprocess_exec(
        "docker", *command, "--filter", f"label=ff.vm={vm}", stdout=asyncio.subprocess.PIPE
    )
    out, _ = await asyncio.wait_for(process.communicate(), 30)
    assert process.returncode == 0
    return out.decode().split()


async def test_a_workspace_that_never_gets_ready_fails_at_its_deadline(stack: Stack) -> None:
    """A container that runs and whose daemon never answers."""
    with ExitStack() as exits:
        deaf = exits.enter_context(image_running(["sleep", "infinity"]))
        settings = stack.settings | {
            "FF_VM_IMAGE": deaf,
            "FF_PROVISION_DEADLINE_S": "3",
            "FF_VM_NETWORK": stack.network.name,
            "FF_POOL_SIZE": "0",
        }
        settings["FF_DEPLOYMENT"] = f"{stack.network.deployment}-deaf"
        server = exits.enter_context(running_server(exits.enter_context(scratch()), settings))
        async with User.sign_up(server.url) as user:
            failed = await user.settled((await user.order()).id)
            assert (failed.status, failed.error.code, failed.vm) == ("FAILED", "provision_timed_out", None)
            await user.delete(failed.id)


async def test_a_client_that_goes_away_ends_its_command(user: User) -> None:
    workspace = await user.ready()
    body = {"argv": ["sleep", "4242"]}
    async with user.http.stream("POST", f"/v1/workspaces/{workspace.id}/exec", json=body) as response:
        assert response.status_code == 200, "a silent command is answered at once"
        assert (await user.run(workspace.id, "pgrep", "-f", "sleep 4242")).exit_code == 0
    async with asyncio.timeout(20):
        while (await user.run(workspace.id, "pgrep", "-x", "sleep")).exit_code == 0:
            pass
    await user.delete(workspace.id)
