"""A stranger neither sees, guesses, follows, runs, talks, nor deletes."""

import pytest
from api_user import User, new_id
from stack import Stack

OURS = ("/v1/workspaces", "/v1/sessions", "/v1/operations", "/v1/api-keys")
"""What leads to VMs, and to whoever may; every other route is in packages/cloud/tests/tenancy."""

pytestmark = [pytest.mark.docker, pytest.mark.asyncio(loop_scope="session")]


async def test_a_stranger_meets_404_everywhere(stack: Stack, user: User, stranger: User) -> None:
    workspace = await user.ready(name="private matters")
    session = await user.session(workspace.id)
    openapi = await user.call("GET", "/openapi.json")
    ids = {
        "workspace_id": str(workspace.id),
        "session_id": str(session.id),
        "request_id": str(new_id()),
        "operation_id": str(workspace.operation_id),
        "key_id": (await user.call("POST", "/v1/api-keys", {"name": "mine"}))["id"],
    }
    bodies = {
        "/v1/workspaces/{workspace_id}/exec": {"argv": ["id"]},
        "/v1/workspaces/{workspace_id}/sessions": {},
        "/v1/workspaces/{workspace_id}/takeover": {"epoch": 2, "desktop_id": str(new_id())},
        "/v1/sessions/{session_id}/messages": {"text": "hello"},
        "/v1/sessions/{session_id}/interrupt": {},
        "/v1/sessions/{session_id}/permissions/{request_id}": {"decision": "allow"},
    }
    tried = 0
    for path, operations in openapi["paths"].items():
        if "{" not in path or not path.startswith(OURS):
            continue
        for method in operations:
            there = path.format(**{**ids, "id": ids["key_id"], "api_key_id": ids["key_id"]})
            body = bodies.get(path) if method == "post" else None
            refused = await stranger.refused(method.upper(), there, body)
            assert refused.status == 404, f"{method} {path}: {refused}"
            nobodys = path.format_map(_AnyId())
            guessed = await stranger.refused(method.upper(), nobodys, body)
            assert guessed.problem["detail"] == refused.problem["detail"], "another's and nobody's look the same"
            tried += 1
    assert tried >= 10
    assert (await stranger.call("GET", "/v1/workspaces"))["items"] == []
    assert (await stranger.call("GET", "/v1/workspaces?name=private%20matters"))["items"] == []
    assert (await stranger.call("GET", "/v1/api-keys"))["items"] == []
    assert (await user.workspace(workspace.id)).status == "READY"
    await user.delete(workspace.id)


async def test_names_and_session_ids_of_others_are_free(user: User, stranger: User) -> None:
    mine, theirs = await user.ready(name="same name"), await stranger.ready(name="same name")
    session_id = str(new_id())
    await user.session(mine.id, id=session_id, name="of the user")
    await stranger.session(theirs.id, id=session_id, name="of the stranger")
    assert (await user.call("GET", f"/v1/sessions/{session_id}"))["name"] == "of the user"
    assert (await stranger.call("GET", f"/v1/sessions/{session_id}"))["name"] == "of the stranger"
    await user.delete(mine.id)
    await stranger.delete(theirs.id)


async def test_nothing_without_a_credential(stack: Stack, user: User) -> None:
    openapi = await user.call("GET", "/openapi.json")
    del user.http.headers["Authorization"]
    for path, operations in openapi["paths"].items():
        for method in operations:
            if not path.startswith(OURS):
                continue
            refused = await user.refused(method.upper(), path.format_map(_AnyId()))
            assert (refused.status, refused.code) == (401, "not_logged_in"), f"{method} {path}"


class _AnyId(dict[str, str]):
    def __missing__(self, key: str) -> str:
        return str(new_id())
