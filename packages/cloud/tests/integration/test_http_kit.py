"""What every app has: problem documents, ids, limits, repeated requests."""

import asyncio
import json
from typing import Annotated

import httpx2
import pytest
from fastapi import APIRouter, Body, Depends, Request
from pydantic import BaseModel, SecretStr
from sqlalchemy import text
from starlette.responses import StreamingResponse
from structlog.testing import capture_logs

from ff_cloud.errors import TooManyRequests
from ff_cloud.kit.caller import Caller, caller
from ff_cloud.kit.http import Db
from ff_cloud.kit.idempotency import Answer, IdempotencyKey, fingerprint_of, forget_old, once
from ff_cloud.testing.accounts import accounts_app
from ff_core.contract.problem import Problem, RemoteProblem
from ff_core.testing.world import FakeWorld
from ff_core.world import SystemWorld

router = APIRouter()
LIMIT = 2000


class Secretive(BaseModel):
    token: SecretStr
    count: int = 0


@router.post("/echo")
async def echo(body: Secretive):
    return {"count": body.count}


@router.post("/length")
async def length(request: Request):
    return {"bytes": len(b"".join([piece async for piece in request.stream()]))}


@router.get("/numbers/{number}")
async def number(number: int):
    return number


@router.get("/fails")
async def fails():
    raise RuntimeError("the password is hunter2")


@router.get("/busy")
async def busy():
    raise TooManyRequests(retry_after_s=2.1)


@router.get("/remote")
async def remote():
    raise RemoteProblem(Problem(title="Gone", status=410, code="daemon_says_so", detail="It went.", workspace="w"))


@router.get("/breaks-off")
async def breaks_off():
    async def pieces():
        yield b"one"
        raise RuntimeError("in the middle")

    return StreamingResponse(pieces())


@router.post("/stores")
async def stores(db: Db, value: Annotated[str, Body(embed=True)]):
    async with db.system_transaction() as tx:
        await tx.execute(text("select cast(:value as text)"), {"value": value})
    return {}


@router.post("/stores-quickly")
async def stores_quickly(db: Db, value: Annotated[str, Body(embed=True)]):
    async with db.system_transaction() as tx:
        await tx.fetch("select %(value)s::text", {"value": value})
    return {}


class Effects:
    def __init__(self):
        self.count = 0
        self.begun = asyncio.Event()
        self.slow = asyncio.Event()
        self.slow.set()


@router.post("/things", status_code=201)
async def things(
    request: Request,
    who: Annotated[Caller, Depends(caller())],
    db: Db,
    key: IdempotencyKey,
    value: Annotated[int, Body(embed=True)],
):
    effects = request.app.state.effects

    async def make():
        effects.count += 1
        effects.begun.set()
        await effects.slow.wait()
        if value < 0:
            raise TooManyRequests
        return Answer(201, {"value": value, "nth": effects.count})

    fingerprint = await fingerprint_of(request, request.app.state.secrets.fingerprint_key)
    async with db.transaction(who.user_id) as tx:
        answer = await once(tx, key, fingerprint, make)
    return {**answer.body, "replayed": answer.replayed}


@pytest.fixture
def world():
    return FakeWorld()


@pytest.fixture
async def app(db, world):
    app = accounts_app(db, world, routers=(router,), body_bytes_max=LIMIT)
    app.state.effects = Effects()
    return app


@pytest.fixture
async def http(app):
    async with httpx2.AsyncClient(transport=httpx2.ASGITransport(app), base_url="http://cloud") as client:
        yield client


def problem(answer, status, code):
    assert (answer.status_code, answer.json()["code"]) == (status, code), answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    body = answer.json()
    assert body["status"] == status
    assert body["title"]
    assert body["detail"].endswith(".") or body["errors"]
    assert body["request_id"] == answer.headers["x-request-id"]
    return body


async def test_unknown_addresses_and_methods_are_problems(http):
    problem(await http.get("/nowhere"), 404, "not_found")
    answer = await http.delete("/v1/me")
    problem(answer, 405, "method_not_allowed")
    assert answer.headers["allow"] == "GET"
    assert problem(await http.get("/numbers/x"), 422, "invalid_input")["errors"][0]["field"] == "number"


JSON = {"Content-Type": "application/json"}


@pytest.mark.parametrize(
    ("content", "headers", "field"),
    [
        (b"{", JSON, "body"),
        (b"", JSON, "body"),
        (b"[]", JSON, "body"),
        (b'"hunter2"', JSON, "body"),
        (b'{"token": "hunter2", "count": 1}', {"Content-Type": "text/plain"}, "body"),
        (b'{"token": "hunter2", "count": "hunter2"}', JSON, "count"),
        (b'{"token": ["hunter2"]}', JSON, "token"),
        (b'{"count": 1}', JSON, "token"),
    ],
)
async def test_a_body_that_does_not_fit_is_told_without_repeating_it(http, content, headers, field):
    answer = await http.post("/echo", content=content, headers=headers)
    told = problem(answer, 422, "invalid_input")
    assert told["errors"][0]["field"] == field
    assert "hunter2" not in answer.text


@pytest.mark.parametrize("content", [b"\xff\xfe{}", b"[" * 1900, b'{"token": "\xc3"}'])
async def test_a_body_that_is_not_json_at_all(http, content):
    problem(await http.post("/echo", content=content, headers=JSON), 422, "invalid_input")


async def test_names_of_unknown_fields_can_not_break_the_answer(http):
    for name in ("\\ud800", "\\u0000", "n" * 500, "é"):
        content = f'{{"email": "a@example.com", "password": "{"x" * 15}", "{name}": 1}}'.encode()
        told = problem(await http.post("/v1/auth/signup", content=content, headers=JSON), 422, "invalid_input")
        assert len(told["errors"][0]["field"]) <= 100


@pytest.mark.parametrize("value", ["nul \0 inside", "half \ud83d pair"])
@pytest.mark.parametrize("path", ["/stores", "/stores-quickly"])
async def test_text_that_can_not_be_stored_is_the_senders_fault(http, value, path):
    answer = await http.post(path, content=json.dumps({"value": value}), headers=JSON)
    problem(answer, 422, "invalid_input")


async def test_the_unexpected_is_logged_under_the_request_id_and_not_shown(http):
    with capture_logs() as logs:
        answer = await http.get("/fails", headers={"X-Request-Id": "req-1"})
    problem(answer, 500, "internal_error")
    assert "hunter2" not in answer.text
    assert answer.headers["x-request-id"] == "req-1"
    assert answer.headers["x-content-type-options"] == "nosniff"
    events = {line["event"]: line for line in logs}
    assert events["http.unexpected"]["exc_info"]
    assert events["http.request"]["status"] == 500


async def test_a_stream_that_breaks_off_is_not_made_to_look_whole(http):
    with pytest.raises(RuntimeError, match="in the middle"):
        await http.get("/breaks-off")


async def test_retry_after_and_remote_problems(http):
    answer = await http.get("/busy")
    problem(answer, 429, "too_many_requests")
    assert answer.headers["retry-after"] == "3"
    told = problem(await http.get("/remote"), 410, "daemon_says_so")
    assert told["workspace"] == "w"


@pytest.mark.parametrize("bad", ["", "a b", "x" * 65, 'a"b', "é".encode().decode("latin-1")])
async def test_a_request_id_is_taken_when_it_is_well_formed_else_made(http, bad):
    assert (await http.get("/numbers/1", headers={"X-Request-Id": "abc-1.2_3"})).headers["x-request-id"] == "abc-1.2_3"
    made = (await http.get("/numbers/1", headers={"X-Request-Id": bad.encode("latin-1")})).headers["x-request-id"]
    assert made != bad
    assert len(made) == 32


async def test_the_log_line_has_the_path_and_not_the_query(http):
    with capture_logs() as logs:
        await http.get("/numbers/1?token=hunter2")
    assert [(line["path"], line["status"]) for line in logs if line["event"] == "http.request"] == [("/numbers/1", 200)]
    assert "hunter2" not in str(logs)


@pytest.mark.parametrize("path", ["/echo", "/length", "/nowhere"])
async def test_a_declared_length_over_the_limit_is_refused_at_once(http, path):
    problem(await http.post(path, content=b"x" * (LIMIT + 1), headers=JSON), 413, "body_too_large")


@pytest.mark.parametrize("path", ["/echo", "/length"])
async def test_a_body_in_pieces_over_the_limit_is_refused(http, path):
    async def pieces():
        for _ in range(LIMIT // 100 + 1):
            yield b"x" * 100

    problem(await http.post(path, content=pieces(), headers=JSON), 413, "body_too_large")


async def test_a_body_of_exactly_the_limit_passes(http):
    assert (await http.post("/length", content=b"x" * LIMIT)).json() == {"bytes": LIMIT}


@pytest.mark.parametrize("declared", ["-1", "1e3", "x"])
async def test_a_length_that_is_no_number_is_refused(http, declared):
    answer = await http.post("/length", content=b"", headers={"Content-Length": declared})
    problem(answer, 413, "body_too_large")


class User:
    def __init__(self, http, token):
        self.http, self.token = http, token

    async def post(self, value, key=None):
        headers = {"Authorization": f"Bearer {self.token}", **({} if key is None else {"Idempotency-Key": key})}
        return await self.http.post("/things", json={"value": value}, headers=headers)


async def user(http, email):
    answer = await http.post("/v1/auth/signup", json={"email": email, "password": "tangerine lamp over the river"})
    return User(http, answer.json()["access_token"])


async def test_a_repeated_request_takes_effect_once(app, http):
    alice, bob = await user(http, "alice@example.com"), await user(http, "bob@example.com")
    assert (await alice.post(1, "k")).json() == {"value": 1, "nth": 1, "replayed": False}
    assert (await alice.post(1, "k")).json() == {"value": 1, "nth": 1, "replayed": True}
    problem(await alice.post(2, "k"), 409, "idempotency_mismatch")
    assert (await bob.post(2, "k")).json()["nth"] == 2
    assert (await alice.post(1)).json()["nth"] == 3
    assert (await alice.post(1)).json()["nth"] == 4, "without a key every request counts"


async def test_a_request_that_failed_leaves_its_key_free(http):
    alice = await user(http, "alice@example.com")
    problem(await alice.post(-1, "k"), 429, "too_many_requests")
    assert (await alice.post(2, "k")).status_code == 201


async def test_of_requests_at_once_one_does_the_work(app, http):
    alice = await user(http, "alice@example.com")
    app.state.effects.slow.clear()
    waiting = [asyncio.create_task(alice.post(7, "k")) for _ in range(4)]
    await asyncio.wait_for(app.state.effects.begun.wait(), 10)
    app.state.effects.slow.set()
    answers = [answer.json() for answer in await asyncio.gather(*waiting)]
    assert app.state.effects.count == 1
    assert sorted(answer.pop("replayed") for answer in answers) == [False, True, True, True]
    assert answers == [{"value": 7, "nth": 1}] * 4


@pytest.mark.parametrize("key", ["", "a b", "k" * 201, "tab\tin"])
async def test_a_malformed_key_is_refused(http, key):
    alice = await user(http, "alice@example.com")
    problem(await alice.post(1, key), 422, "idempotency_key_invalid")


async def test_answers_are_forgotten_after_a_day(http, db):
    alice = await user(http, "alice@example.com")
    await alice.post(1, "old")
    await alice.post(1, "new")
    async with db.system_transaction() as tx:
        await tx.execute(text("update idempotency_keys set created_at = now() - interval '25 hours' where key = 'old'"))
        assert await forget_old(tx, SystemWorld().now()) == 1
    assert (await alice.post(1, "old")).json()["replayed"] is False
    assert (await alice.post(1, "new")).json()["replayed"] is True
