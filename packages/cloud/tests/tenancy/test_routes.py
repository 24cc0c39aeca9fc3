"""Every route of the API, asked by a stranger: ids of others do not exist, lists hold his own things only.

A route is one of four, and the first test fails for one that is none: it has no caller (``OPEN``, each with what keeps it safe),
it is for administrators, it names a thing (``NAMED``, asked with the owner's ids), or it concerns the caller alone and has no id
to name.
"""

from collections.abc import AsyncIterator
from typing import Any
from uuid import UUID

import httpx2
import pytest
from fastapi import FastAPI
from fastapi.routing import APIRoute, iter_route_contexts

from ff_cloud.kit.caller import has_caller
from ff_cloud.kit.db import Database
from ff_cloud.testing.tenants import MARK, Estate, add_user, belongings, furnish
from ff_cloud.testing.whole_app import whole_app
from ff_core.ids import UserId
from ff_core.testing.world import FakeWorld

ANN = UserId(UUID(int=0xA))
REQUEST_ID = UUID(int=0xFF)

PRINT = {"repositories": [], "conversations": [], "records": "0" * 64}
COUNTS = ("commits", "files", "file_bytes", "deleted", "stashes", "submodules", "sessions", "queued", "events")
SENT = {
    "workspace": {"name": "his"},
    "bundle": {"size": 1, "sha256": "0" * 64, "fingerprint": PRINT},
    "contents": dict.fromkeys(COUNTS, 0),
}

NAMED: dict[str, tuple[Any, int]] = {
    "DELETE /v1/api-keys/{api_key}": (None, 404),
    "DELETE /v1/auth/sessions/{login}": (None, 404),
    "DELETE /v1/me/identities/{provider}": (None, 404),
    "PUT /v1/me/credentials/{kind}": ({"value": "a-secret-of-his-own"}, 200),
    "DELETE /v1/me/credentials/{kind}": (None, 204),  # the one he set a line above
    "GET /v1/workspaces/{workspace}": (None, 404),
    "DELETE /v1/workspaces/{workspace}": (None, 404),
    "GET /v1/workspaces/{workspace}/repository": (None, 404),
    "GET /v1/workspaces/{workspace}/events": (None, 404),
    "GET /v1/workspaces/{workspace}/turns": (None, 404),
    "POST /v1/workspaces/{workspace}/suspend": (None, 404),
    "POST /v1/workspaces/{workspace}/exec": ({"argv": ["true"]}, 404),
    "POST /v1/workspaces/{workspace}/sessions": ({}, 404),
    "GET /v1/workspaces/{workspace}/sessions": (None, 404),
    "GET /v1/sessions/{session}": (None, 404),
    "POST /v1/sessions/{session}/messages": ({"text": "hello"}, 404),
    "POST /v1/sessions/{session}/interrupt": ({}, 404),
    "POST /v1/sessions/{session}/permissions/{request}": ({"decision": "allow"}, 404),
    "GET /v1/operations/{operation}": (None, 404),
    "POST /v1/workspaces/{workspace}/takeover": ({"epoch": 2, "desktop_id": str(REQUEST_ID)}, 404),
    "GET /v1/handoffs/{handoff}": (None, 404),
    "PUT /v1/handoffs/{handoff}/bundle": ({}, 404),
    "GET /v1/handoffs/{handoff}/bundle": (None, 404),
    "POST /v1/handoffs/{handoff}/bundle": ({name: SENT[name] for name in ("bundle", "contents")}, 404),
    "POST /v1/handoffs/{handoff}/commit": ({}, 404),
    "POST /v1/handoffs/{handoff}/abort": (None, 404),
}
"""With the body of the request and what a stranger is answered."""

QUERY = {"PUT /v1/handoffs/{handoff}/bundle": "?offset=0"}

BODIES = {
    "POST /v1/handoffs": [
        ({"direction": "PULL", "workspace_id": "{workspace}"}, 404),
        ({"direction": "SEND", "workspace_id": "{workspace}", **SENT}, 409),
        ({"id": "{handoff}", "direction": "PULL", "workspace_id": "{workspace}"}, 404),
    ],
}
"""Where a thing is named in the body: some bodies, and what a stranger is answered."""

QUERIES = [
    "/v1/me/audit?cursor={login}",
    "/v1/me/usage?workspace_id={workspace}",
    "/v1/workspaces?cursor={workspace}",
    f"/v1/workspaces?name={MARK}",
    "/v1/handoffs?workspace_id={workspace}",
    "/v1/handoffs?cursor={handoff}",
]
"""Lists that are asked for somebody else's things."""

OPEN = {
    "/healthz": "says nothing of anybody",
    "/readyz": "says nothing of anybody",
    "/metrics": "this machine or a token; numbers of nobody",
    "/.well-known/jwks.json": "public keys",
    "/.well-known/oauth-authorization-server": "addresses",
    "/v1/auth/signup": "makes an account",
    "/v1/auth/login": "password",
    "/v1/auth/refresh": "refresh token",
    "/v1/auth/forgot": "mail to the owner",
    "/v1/auth/reset": "link of a mail",
    "/v1/auth/verify": "link of a mail",
    "/v1/auth/verify/request": "mail to the owner",
    "/v1/auth/token": "code of the browser",
    "/v1/auth/device": "gives out codes",
    "/v1/auth/device/token": "device code",
    "/v1/auth/github/start": "state in a cookie",
    "/v1/auth/github/callback": "state in a cookie",
    "/authorize": "page; cookie of the browser",
    "/account": "page; cookie of the browser",
    "/verify": "page; link of a mail",
    "/reset": "page; link of a mail",
    "/device": "page; cookie of the browser",
    "/login": "page; password",
    "/logout": "page; cookie of the browser",
}


def names(path: str) -> str:
    """A path as in ``NAMED``: ids without ``_id``."""
    return path.replace("_id}", "}").replace("{key}", "{api_key}").replace("/auth/sessions/{session}", "/auth/sessions/{login}")


def routes(app: FastAPI) -> list[tuple[str, APIRoute]]:
    """Every route with its method and path."""
    found = []
    for context in iter_route_contexts(app.routes):
        if isinstance(context.original_route, APIRoute):
            found += [(f"{method} {names(context.path)}", context.original_route) for method in sorted(context.methods)]
    return found


def place(path: str, estate: Estate) -> str:
    """The path with the owner's ids."""
    return path.format(
        workspace=estate.workspace_id,
        session=estate.session_id,
        login=estate.login_id,
        api_key=estate.api_key_id,
        operation=estate.operation_id,
        handoff=estate.handoff_id,
        request=REQUEST_ID,
        provider="github",
        kind="anthropic_api_key",
        user=estate.user_id,
    )


@pytest.fixture
async def app(db: Database) -> AsyncIterator[FastAPI]:
    async with whole_app(db, FakeWorld()) as app:
        yield app


@pytest.fixture
async def estate(db: Database, app: FastAPI) -> Estate:
    async with db.system_transaction() as tx:
        await add_user(tx, UserId(UUID(int=1)), "administrator")
        await add_user(tx, ANN, f"ann-{MARK}")
    return await furnish(db, ANN)


@pytest.fixture
async def stranger(app: FastAPI, estate: Estate) -> AsyncIterator[httpx2.AsyncClient]:
    async with httpx2.AsyncClient(transport=httpx2.ASGITransport(app), base_url="http://cloud") as http:
        answer = await http.post(
            "/v1/auth/signup", json={"email": "bob@example.com", "password": "tangerine lamp over the river"}
        )
        http.headers["Authorization"] = f"Bearer {answer.json()['access_token']}"
        yield http


def test_every_route_is_of_a_kind_that_is_tested(app: FastAPI) -> None:
    undecided, named, opened = [], set(), set()
    for name, route in routes(app):
        path = name.split(" ")[1]
        if not has_caller(route.dependant):
            opened.add(path)
            undecided += [] if path in OPEN else [name]
        elif "{" in path and not path.startswith("/v1/admin/"):
            named.add(name)
        elif body := route.body_field:
            # Without an id in its path a request could name a thing in its body.
            schema = str(getattr(body.field_info.annotation, "model_json_schema", dict)())
            undecided += [name] if "'uuid'" in schema and name not in BODIES else []
    assert undecided == [], "these have no stranger case"
    assert named - set(NAMED) == set(), "these have no stranger case"
    assert (set(NAMED) - named) | (set(OPEN) - opened) == set(), "these are gone"


async def test_without_a_credential_nothing_answers(app: FastAPI, stranger: httpx2.AsyncClient, estate: Estate) -> None:
    del stranger.headers["Authorization"]
    for name, route in routes(app):
        if has_caller(route.dependant):
            method, path = name.split(" ")
            answer = await stranger.request(method, place(path, estate))
            assert (answer.status_code, answer.json()["code"]) == (401, "not_logged_in"), name


async def test_things_of_others_do_not_exist(db: Database, stranger: httpx2.AsyncClient, estate: Estate) -> None:
    before = await belongings(db, ANN)
    for name, (body, status) in NAMED.items():
        method, path = name.split(" ")
        answer = await stranger.request(method, place(path, estate) + QUERY.get(name, ""), json=body)
        assert answer.status_code == status, f"{name}: {answer.text}"
        assert MARK not in answer.text, name
    assert await belongings(db, ANN) == before


async def test_things_of_others_that_a_body_names_do_not_exist(
    db: Database, stranger: httpx2.AsyncClient, estate: Estate
) -> None:
    before = await belongings(db, ANN)
    for name, bodies in BODIES.items():
        method, path = name.split(" ")
        for body, status in bodies:
            new = {"id": str(REQUEST_ID), "epoch": 0, "desktop_id": str(REQUEST_ID), "desktop_name": "his"} | body
            filled = {key: place(value, estate) if isinstance(value, str) else value for key, value in new.items()}
            answer = await stranger.request(method, path, json=filled)
            assert answer.status_code == status, f"{name} {filled}: {answer.text}"
            assert MARK not in answer.text, name
    assert await belongings(db, ANN) == before


async def test_lists_hold_the_callers_own_things(app: FastAPI, stranger: httpx2.AsyncClient, estate: Estate) -> None:
    own = [name.split(" ")[1] for name, _ in routes(app) if name.startswith("GET /v1/") and "{" not in name]
    asked = [path for path in own if not path.startswith("/v1/admin/") and path not in OPEN]
    assert len(asked) >= 7
    for path in asked + [place(query, estate) for query in QUERIES]:
        answer = await stranger.get(path)
        assert answer.status_code == 200, f"{path}: {answer.text}"
        assert MARK not in answer.text, path
        assert str(estate.user_id) not in answer.text, path


async def test_administration_is_closed_to_others(
    db: Database, app: FastAPI, stranger: httpx2.AsyncClient, estate: Estate
) -> None:
    before = await belongings(db, ANN)
    admin = [name for name, _ in routes(app) if " /v1/admin/" in name]
    assert len(admin) >= 5
    for name in admin:
        method, path = name.split(" ")
        answer = await stranger.request(method, place(path, estate), json={"plan": "pro"} if method == "PATCH" else None)
        assert (answer.status_code, answer.json()["code"]) == (403, "scope_missing"), name
    assert await belongings(db, ANN) == before
