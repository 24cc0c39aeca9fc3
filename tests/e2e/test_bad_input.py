"""Each mistake is answered with a problem document: a stable code and a sentence that helps; nothing half-made stays."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import ExitStack, asynccontextmanager
from typing import Any

import pytest
from api_user import User
from stack import Stack, scratch

from ff_cloud.testing.server import running_server

pytestmark = [pytest.mark.docker, pytest.mark.asyncio(loop_scope="session")]

BAD_ORDERS: list[tuple[str, dict[str, Any], str]] = [
    ("name of 10 kB", {"name": "x" * 10_240}, "invalid_input"),
    ("empty name", {"name": "   "}, "invalid_input"),
    ("path as name", {"name": "../../etc/passwd"}, "invalid_input"),
    ("dots as name", {"name": ".."}, "invalid_input"),
    ("line break in name", {"name": "a\nb"}, "invalid_input"),
    ("terminal escape in name", {"name": "a\x1b[2Jb"}, "invalid_input"),
    ("no name", {}, "invalid_input"),
    ("number as name", {"name": 7}, "invalid_input"),
    ("unknown field", {"name": "ok", "colour": "blue"}, "invalid_input"),
    ("not a URL", {"name": "ok", "repo_url": "not a url"}, "repo_url_invalid"),
    ("local file", {"name": "ok", "repo_url": "file:///etc"}, "repo_url_invalid"),
    ("option as URL", {"name": "ok", "repo_url": "--upload-pack=touch /tmp/x"}, "repo_url_invalid"),
    ("token in the URL", {"name": "ok", "repo_url": "https://u:secret-in-url@example.com/r.git"}, "repo_url_invalid"),
    ("ssh", {"name": "ok", "repo_url": "git@example.com:r.git"}, "repo_url_invalid"),
    ("option as branch", {"name": "ok", "repo_url": "https://example.com/r.git", "branch": "--force"}, "branch_invalid"),
    ("path trick as branch", {"name": "ok", "repo_url": "https://example.com/r.git", "branch": "a/../b"}, "branch_invalid"),
    ("token without URL", {"name": "ok", "repo_token": "t"}, "invalid_input"),
    ("issue that is none", {"name": "ok", "github_issue_url": "javascript:alert(1)"}, "invalid_input"),
]


@pytest.mark.parametrize(("body", "code"), [pytest.param(body, code, id=name) for name, body, code in BAD_ORDERS])
async def test_a_bad_order(user: User, body: dict[str, Any], code: str) -> None:
    refused = await user.refused("POST", "/v1/workspaces", body)
    assert refused.status == 422
    assert refused.code == code
    assert len(refused.problem["detail"]) > 20
    assert refused.problem["request_id"]
    assert "secret-in-url" not in json.dumps(refused.problem)
    assert (await user.call("GET", "/v1/workspaces"))["items"] == []


async def test_bodies_that_are_none(user: User) -> None:
    for content in (b"{", b"[]", b'"text"', b"\xff\xfe", b"null", b'{"name": 1e999}', b'{"name": "a", "name": ' + b"[" * 5000):
        response = await user.http.post("/v1/workspaces", content=content, headers={"Content-Type": "application/json"})
        assert response.status_code == 422, content[:20]
        assert response.json()["code"] == "invalid_input"
    huge = await user.http.post("/v1/workspaces", content=b"x" * (2 << 20), headers={"Content-Type": "application/json"})
    assert (huge.status_code, huge.json()["code"]) == (413, "body_too_large")

    async def drops() -> Any:
        for _ in range(40):
            yield b"x" * 65_536

    chunked = await user.http.post("/v1/workspaces", content=drops(), headers={"Content-Type": "application/json"})
    assert (chunked.status_code, chunked.json()["code"]) == (413, "body_too_large")


async def test_addresses_that_are_none(user: User) -> None:
    for path in ("/v1/workspaces/not-a-uuid", "/v1/sessions/%2e%2e%2fetc", "/v1/operations/0"):
        refused = await user.refused("GET", path)
        assert refused.status in {404, 422}
        assert len(refused.problem["detail"]) > 20
    assert (await user.refused("GET", "/v1/nothing")).code == "not_found"
    assert (await user.refused("PUT", "/v1/workspaces", {})).code == "method_not_allowed"
    assert (await user.refused("GET", "/v1/workspaces?limit=0")).code == "invalid_input"
    assert (await user.refused("GET", "/v1/workspaces?cursor=garbage")).code == "cursor_invalid"


async def test_bad_requests_in_a_workspace(user: User) -> None:
    workspace = await user.ready(name="good 🦀 name with spaces")
    base = f"/v1/workspaces/{workspace.id}"
    for path, body in [
        (f"{base}/sessions", {"permissions": "EVERYTHING"}),
        (f"{base}/sessions", {"model": "--dangerous flag"}),
        (f"{base}/exec", {"argv": []}),
        (f"{base}/exec", {"argv": ["a\x00b"]}),
        (f"{base}/exec", {"argv": "ls -l"}),
        (f"{base}/exec", {"argv": ["true"], "timeout_s": -1}),
        (f"{base}/exec", {"argv": ["true"], "env": {"1BAD": "x"}}),
    ]:
        assert (await user.refused("POST", path, body)).code == "invalid_input", body
    session = await user.session(workspace.id)
    for body in ({"text": ""}, {"text": " \n "}, {"text": "x" * 200_001}, {"txt": "typo"}):
        assert (await user.refused("POST", f"/v1/sessions/{session.id}/messages", body)).code == "invalid_input"
    for after in ("-1", "x", "99999999999999999999"):
        assert (await user.refused("GET", f"{base}/events?after={after}")).code == "invalid_input"
    nothing = await user.refused("POST", f"/v1/sessions/{session.id}/permissions/{workspace.id}", {"decision": "allow"})
    assert nothing.status == 404
    assert (await user.refused("POST", f"/v1/sessions/{session.id}/permissions/{workspace.id}", {})).code == "invalid_input"
    await user.delete(workspace.id)


@asynccontextmanager
async def _without_a_pool(stack: Stack, settings: dict[str, str]) -> AsyncIterator[User]:
    deployment = {"FF_DEPLOYMENT": f"{stack.network.deployment}-d", "FF_VM_NETWORK": stack.network.name, "FF_POOL_SIZE": "0"}
    with scratch() as folder, running_server(folder, stack.settings | deployment | settings) as server:
        async with User.sign_up(server.url) as user:
            yield user


async def test_a_workspace_waits_while_docker_is_away(stack: Stack) -> None:
    """Nobody knows yet what the machine has room for, so it stands in the queue and does not fail."""
    async with _without_a_pool(stack, {"FF_DOCKER_HOST": "unix:///nonexistent/docker.sock"}) as user:
        ordered = await user.order()
        async with asyncio.timeout(30):
            while (waiting := await user.workspace(ordered.id)).queue_place is None:
                await asyncio.sleep(0.05)
        assert (waiting.queue_place, waiting.error) == (1, None)


async def test_image_missing(stack: Stack) -> None:
    async with _without_a_pool(stack, {"FF_VM_IMAGE": "ff-workspace:no-such-tag"}) as user:
        failed = await user.settled((await user.order()).id)
        assert (failed.status, failed.error.code) == ("FAILED", "image_missing")
        assert "ff-cloud" in failed.error.message or "bootstrap" in failed.error.message
        await user.delete(failed.id)


async def test_a_full_disk(stack: Stack) -> None:
    """The volume is a tmpfs of 24 MB here; a full one is told in plain words, and room made again is enough to go on."""
    options = json.dumps({"type": "tmpfs", "device": "tmpfs", "o": "size=24m"})
    settings = {
        "FF_VM_VOLUME_OPTIONS": options,
        "FF_DEPLOYMENT": f"{stack.network.deployment}-f",
        "FF_VM_NETWORK": stack.network.name,
        "FF_POOL_SIZE": "0",
    }
    big = await stack.git.create("too-big", {"blob.bin": bytes(range(256)) * 4096 * 30})
    with ExitStack() as exits:
        server = exits.enter_context(running_server(exits.enter_context(scratch()), stack.settings | settings))
        async with User.sign_up(server.url) as user:
            failed = await user.settled((await user.order(repo_url=big)).id)
            assert (failed.status, failed.error.code) == ("FAILED", "clone_disk_full")
            await user.delete(failed.id)

            workspace = await user.ready()
            session = await user.session(workspace.id, permissions="YOLO")
            filled = await user.run(workspace.id, "dd", "if=/dev/zero", "of=/workspace/repo/fill", "bs=1M")
            assert b"No space left" in filled.stderr
            refused = await user.refused("POST", f"/v1/sessions/{session.id}/messages", {"text": "x" * 150_000})
            assert (refused.status, refused.code) == (507, "disk_full")
            await user.shell(workspace.id, "rm fill")
            async with user.watch(workspace.id) as heard:
                await user.say(session.id, "%say room again")
                assert (await heard.turn()).outcome == "done"
            await user.delete(workspace.id)


async def test_the_database_away(stack: Stack) -> None:
    """Requests say so while it is away, and it is started again by itself."""
    with ExitStack() as exits:
        folder = exits.enter_context(scratch())
        deployment = {"FF_DEPLOYMENT": f"{stack.network.deployment}-b", "FF_VM_NETWORK": stack.network.name, "FF_POOL_SIZE": "0"}
        server = exits.enter_context(running_server(folder, stack.settings | deployment))
        async with User.sign_up(server.url) as user:
            pid = int((folder / "data/postgres/cluster/postmaster.pid").read_text().split()[0])
            kill = await asyncio.create_subprocess_exec("kill", "-KILL", str(pid))
            await kill.wait()
            codes = set()
            async with asyncio.timeout(60):
                while True:
                    response = await user.http.get("/v1/me")
                    if response.status_code == 200 and codes:
                        break
                    if response.status_code != 200:
                        codes.add((response.status_code, response.json()["code"]))
                    await asyncio.sleep(0.01)
            assert codes == {(503, "database_unavailable")}
