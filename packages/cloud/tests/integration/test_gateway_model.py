"""The gateway to the model, over real sockets and a real PostgreSQL: whose key goes out, what passes, and who ends whom."""

import asyncio
import json
from contextlib import AsyncExitStack, asynccontextmanager
from types import SimpleNamespace
from typing import Any

import httpx2
import pytest
from pydantic import SecretStr
from sqlalchemy import text
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route

from ff_cloud.credentials.keyring import Keyring
from ff_cloud.credentials.service import Credentials
from ff_cloud.gateway.app import make_gateway
from ff_cloud.gateway.door import Door
from ff_cloud.gateway.model import ModelGateway
from ff_cloud.gateway.recorder import Recorder
from ff_cloud.gateway.relay import REQUEST_BYTES_MAX, model_client
from ff_cloud.gateway.tokens import gateway_token
from ff_cloud.kit.origin import Origin
from ff_cloud.users import service as users
from ff_core.contract.credentials import CredentialKind
from ff_core.ids import UserId, VmId, WorkspaceId
from ff_core.testing.model_api import ModelApi
from ff_core.testing.serve import serving
from ff_core.world import SystemWorld

WORLD = SystemWorld()
TOKEN_KEY = b"g" * 32
SERVER_KEY = "sk-ant-the-servers-own-key-0000"
HERE = Origin("192.0.2.7", "192.0.2.7", "test")
ASK = {
    "model": "claude-haiku-4-5",
    "max_tokens": 100,
    "tools": [{"name": "Bash"}],
    "messages": [{"role": "user", "content": "%say hello"}],
}
SPEAK = [{"role": "user", "content": "%stream 40"}]
LIMIT_S = 20
FLOOD_BYTES_MAX = 256 * 1024 * 1024


class Machine:
    """A user with a running VM, and its token."""

    def __init__(self, db, credentials):
        self.db, self.credentials = db, credentials
        self.user_id = UserId(WORLD.new_id())
        self.workspace_id = WorkspaceId(WORLD.new_id())
        self.vm_id = VmId(WORLD.new_id())
        self.token = gateway_token(TOKEN_KEY, self.vm_id, 1)

    async def make(self):
        async with self.db.system_transaction() as tx:
            email = f"{self.user_id}@example.com"
            await users.open_account(tx, user_id=self.user_id, email=email, name=None, now=WORLD.now())
            ids = {"user": self.user_id, "workspace": self.workspace_id, "vm": self.vm_id}
            await tx.execute(
                text(
                    "insert into workspaces (id, user_id, name, status, location, epoch, desired, last_active_at, created_at,"
                    " updated_at) values (:workspace, :user, 'w', 'READY', 'CLOUD', 1, 'PRESENT', now(), now(), now())"
                ),
                ids,
            )
            await tx.execute(
                text(
                    "insert into vms (id, user_id, workspace_id, status, generation, health_failures, created_at)"
                    " values (:vm, :user, :workspace, 'RUNNING', 1, 0, now())"
                ),
                ids,
            )
        return self

    async def set(self, kind, value):
        async with self.db.transaction(self.user_id) as tx:
            await self.credentials.put(tx, kind, SecretStr(value), "derived:1", HERE)

    async def sql(self, statement):
        async with self.db.system_transaction() as tx:
            await tx.execute(text(statement), {"vm": self.vm_id, "user": self.user_id})


@pytest.fixture
def credentials(db):
    return Credentials(db=db, keyring=Keyring(b"r" * 32), world=WORLD, server_has_model_key=False)


@pytest.fixture
async def machine(db, credentials):
    return await Machine(db, credentials).make()


@asynccontextmanager
async def gateway(db, credentials, upstream, *, server_key=None):
    recorder = Recorder(db=db, world=WORLD)
    async with AsyncExitStack() as stack:
        http = await stack.enter_async_context(model_client())
        await stack.enter_async_context(recorder.recording())
        models = ModelGateway(
            door=Door(db=db, token_key=TOKEN_KEY, credentials=credentials),
            http=http,
            recorder=recorder,
            base_url=upstream,
            server_key=SecretStr(server_key) if server_key else None,
        )
        url = await stack.enter_async_context(serving(make_gateway(models=models, world=WORLD)))
        yield await stack.enter_async_context(httpx2.AsyncClient(base_url=f"{url}/anthropic", timeout=LIMIT_S, trust_env=False))


@pytest.fixture
async def model():
    async with ModelApi() as api:
        yield api


@pytest.fixture
async def http(db, credentials, model):
    async with gateway(db, credentials, model.url) as client:
        yield client


async def ask(http, machine, *, token=None, headers=None, **more):
    sent = {"x-api-key": token or machine.token, **(headers or {})}
    return await http.post("/v1/messages?beta=true", json={**ASK, **more}, headers=sent)


def refused(answer, status, kind, words=""):
    assert answer.status_code == status, answer.text
    body = answer.json()
    assert (body["type"], body["error"]["type"]) == ("error", kind)
    assert words in body["error"]["message"]
    return answer.headers.get("x-should-retry")


async def test_each_user_reaches_the_model_with_his_own_key(db, credentials, http, model, machine):
    other = await Machine(db, credentials).make()
    await machine.set(CredentialKind.ANTHROPIC_API_KEY, "sk-ant-anns-own-key-11111111")
    await other.set(CredentialKind.ANTHROPIC_API_KEY, "sk-ant-bobs-own-key-22222222")
    answers = await asyncio.gather(*(ask(http, who, metadata={"who": str(who.vm_id)}) for who in [machine, other] * 5))
    assert {answer.status_code for answer in answers} == {200}
    seen = {(request.body["metadata"]["who"], request.headers["x-api-key"]) for request in model.requests}
    assert seen == {
        (str(machine.vm_id), "sk-ant-anns-own-key-11111111"),
        (str(other.vm_id), "sk-ant-bobs-own-key-22222222"),
    }
    assert not any("ffv_" in json.dumps(request.headers) for request in model.requests)


async def test_everything_but_the_key_passes_unchanged(http, model, machine):
    await machine.set(CredentialKind.ANTHROPIC_API_KEY, "sk-ant-anns-own-key-11111111")
    body = json.dumps({**ASK, "odd": "ü\u2028 \\u0000"}, indent=3).encode()
    headers = {
        "authorization": f"Bearer {machine.token}",
        "anthropic-beta": "one,two",
        "anthropic-version": "2023-06-01",
        "x-claude-code-session-id": "s-1",
        "x-stainless-lang": "js",
        "user-agent": "claude-cli/1",
        "content-type": "application/json",
        "connection": "keep-alive, x-private",
        "x-private": "for this hop only",
        "proxy-authorization": "Basic eDp5",
        "te": "trailers",
    }
    answer = await http.post("/v1/messages?beta=true&x=%2F", content=body, headers=headers)
    assert answer.status_code == 200
    (seen,) = model.requests
    assert seen.path == "/v1/messages?beta=true&x=%2F"
    assert seen.body["odd"] == "ü\u2028 \\u0000"
    assert seen.headers["content-length"] == str(len(body))
    own = {"authorization", "connection", "x-private", "proxy-authorization", "te"}
    for name in set(headers) - own:
        assert seen.headers[name] == headers[name]
    assert not {"x-private", "proxy-authorization", "te", "authorization"} & set(seen.headers)
    assert seen.headers["x-api-key"] == "sk-ant-anns-own-key-11111111"
    assert answer.headers["request-id"], "the answer's own headers come back"


async def test_a_token_of_a_subscription_goes_out_as_bearer(http, model, machine):
    await machine.set(CredentialKind.ANTHROPIC_OAUTH_TOKEN, "sk-ant-oat01-abcdefgh")
    await ask(http, machine, headers={"anthropic-beta": "one"})
    (seen,) = model.requests
    assert seen.headers["authorization"] == "Bearer sk-ant-oat01-abcdefgh"
    assert seen.headers["anthropic-beta"] == "one,oauth-2025-04-20"
    assert "x-api-key" not in seen.headers


@pytest.mark.parametrize(
    "undo",
    [
        "update vms set generation = 2 where id = :vm",
        "update vms set status = 'TERMINATING' where id = :vm",
        "delete from vms where id = :vm",
        "update users set disabled_at = now() where id = :user",
    ],
)
async def test_a_revoked_token_is_refused_at_once_and_for_good(http, model, machine, undo):
    await machine.set(CredentialKind.ANTHROPIC_API_KEY, "sk-ant-anns-own-key-11111111")
    assert (await ask(http, machine)).status_code == 200
    await machine.sql(undo)
    assert refused(await ask(http, machine), 401, "authentication_error") == "false"
    assert len(model.requests) == 1


@pytest.mark.parametrize("token", ["x", "sk-ant-anns-own-key-11111111", "ffv_" + "0" * 32 + "_1_" + "0" * 64])
async def test_no_stranger_gets_in(http, model, machine, token):
    assert refused(await ask(http, machine, token=token), 401, "authentication_error") == "false"
    bare = await http.post("/v1/messages", json=ASK)
    assert refused(bare, 401, "authentication_error") == "false"
    assert model.requests == []


async def test_without_a_key_the_answer_says_what_to_do(http, model, machine):
    assert refused(await ask(http, machine), 401, "authentication_error", "ff credential set anthropic_api_key") == "false"
    await machine.set(CredentialKind.ANTHROPIC_API_KEY, "sk-ant-anns-own-key-11111111")
    assert (await ask(http, machine)).status_code == 200
    await machine.sql("delete from credentials where user_id = :user")
    assert refused(await ask(http, machine), 401, "authentication_error") == "false"


async def test_the_servers_key_is_for_those_without_one(db, credentials, model, machine):
    async with gateway(db, credentials, model.url, server_key=SERVER_KEY) as http:
        await ask(http, machine)
        await machine.set(CredentialKind.ANTHROPIC_API_KEY, "sk-ant-anns-own-key-11111111")
        await ask(http, machine)
    assert [seen.headers["x-api-key"] for seen in model.requests] == [SERVER_KEY, "sk-ant-anns-own-key-11111111"]


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/v1/messages"),
        ("POST", "/v1/files"),
        ("POST", "/v1/messages/batches"),
        ("GET", "/v1/organizations/me"),
        ("GET", "/v1/models/../files"),
        ("GET", "/v1/models/%2e%2e%2ffiles"),
        ("POST", "//v1/messages"),
        ("POST", "/"),
    ],
)
async def test_other_paths_lead_nowhere(http, model, machine, method, path):
    await machine.set(CredentialKind.ANTHROPIC_API_KEY, "sk-ant-anns-own-key-11111111")
    url = httpx2.URL(http.base_url).copy_with(raw_path=b"/anthropic" + path.encode())
    answer = await http.request(method, url, headers={"x-api-key": machine.token})
    assert refused(answer, 404, "not_found_error") == "false"
    assert model.requests == []


async def test_counting_models_and_hello_work(http, model, machine):
    await machine.set(CredentialKind.ANTHROPIC_API_KEY, "sk-ant-anns-own-key-11111111")
    headers = {"x-api-key": machine.token}
    assert (await http.post("/v1/messages/count_tokens?beta=true", json=ASK, headers=headers)).json()["input_tokens"] > 0
    assert (await http.get("/v1/models", headers=headers)).json()["data"]
    assert (await http.head("/api/hello")).status_code == 200
    assert (await http.head(str(http.base_url).replace("/anthropic", "") + "api/hello")).status_code == 200


async def test_a_failure_of_the_model_comes_back_as_it_is(http, machine):
    await machine.set(CredentialKind.ANTHROPIC_API_KEY, "sk-ant-anns-own-key-11111111")
    messages = [{"role": "user", "content": "%error 429 retry-after=7"}]
    answer = await ask(http, machine, messages=messages)
    assert (answer.status_code, answer.headers["retry-after"], answer.json()["error"]["type"]) == (429, "7", "rate_limit_error")


async def test_a_model_that_is_not_there_is_tried_again(db, credentials, machine):
    await machine.set(CredentialKind.ANTHROPIC_API_KEY, "sk-ant-anns-own-key-11111111")
    async with gateway(db, credentials, "http://127.0.0.1:9") as http:
        assert refused(await ask(http, machine), 502, "api_error") is None


class Upstream:
    """A model's API that the test holds by the hand."""

    def __init__(self):
        self.go = asyncio.Event()
        self.began = asyncio.Event()
        self.gone = asyncio.Event()
        self.sent = 0
        self.received = 0
        self.pieces: Any = self.one_then_another

    async def one_then_another(self):
        yield b"event: ping\ndata: {}\n\n"
        await self.go.wait()
        yield b"event: message_stop\ndata: {}\n\n"

    async def breaks(self):
        yield b"event: ping\ndata: {}\n\n"
        raise ConnectionError

    async def floods(self):
        while self.sent < FLOOD_BYTES_MAX:
            yield b"x" * 65536
            self.sent += 65536
            await asyncio.sleep(0)  # once the other side is gone, a send waits for nothing

    async def answer(self, request: Request) -> Response:
        async for piece in request.stream():
            self.received += len(piece)
        return StreamingResponse(self._told(), media_type="text/event-stream")

    async def _told(self):
        self.began.set()
        try:
            async for piece in self.pieces():
                yield piece
        finally:
            self.gone.set()


@pytest.fixture
async def held(db, credentials, machine):
    """The gateway before an upstream that the test controls."""
    await machine.set(CredentialKind.ANTHROPIC_API_KEY, "sk-ant-anns-own-key-11111111")
    upstream = Upstream()
    app = Starlette(routes=[Route("/v1/messages", upstream.answer, methods=["POST"])])
    async with serving(app) as url, gateway(db, credentials, url) as http:

        def stream(**more):
            return http.stream("POST", "/v1/messages", headers={"x-api-key": machine.token}, **({"json": ASK} | more))

        yield SimpleNamespace(upstream=upstream, http=http, stream=stream)


async def test_a_piece_is_passed_on_before_the_next_one_is_there(held):
    async with held.stream() as answer:
        pieces = answer.aiter_raw()
        assert b"ping" in await anext(pieces)
        held.upstream.go.set()
        assert b"message_stop" in await anext(pieces)


async def test_an_agent_that_leaves_ends_the_request_to_the_model(held):
    async with held.stream() as answer:
        await anext(answer.aiter_raw())
    await asyncio.wait_for(held.upstream.gone.wait(), LIMIT_S)


async def test_an_agent_that_leaves_before_the_first_word_does_too(held):
    async def silent():
        await held.upstream.go.wait()
        yield b""

    held.upstream.pieces = silent
    async with AsyncExitStack() as stack:
        waiting = asyncio.create_task(stack.enter_async_context(held.stream()))
        await asyncio.wait_for(held.upstream.began.wait(), LIMIT_S)
        waiting.cancel()
        await asyncio.wait({waiting})
    await asyncio.wait_for(held.upstream.gone.wait(), LIMIT_S)


async def test_a_cut_answer_is_cut_for_the_agent_too(held):
    held.upstream.pieces = held.upstream.breaks
    with pytest.raises(httpx2.RemoteProtocolError):
        async with held.stream() as answer:
            async for _ in answer.aiter_raw():
                pass


async def test_an_agent_that_does_not_read_holds_the_model_up(held):
    held.upstream.pieces = held.upstream.floods
    async with held.stream() as answer:
        pieces = answer.aiter_raw()
        await anext(pieces)
        seen = -1
        async with asyncio.timeout(LIMIT_S):
            while seen != held.upstream.sent:  # until it stands still
                seen = held.upstream.sent
                await asyncio.sleep(0.3)
        assert held.upstream.sent < 32 * 1024 * 1024, "it waits in no buffer of ours"
        async with asyncio.timeout(LIMIT_S):
            while held.upstream.sent < seen + 8 * 1024 * 1024:
                await anext(pieces)


async def test_a_body_over_the_limit_is_refused_declared_or_not(held):
    async def pieces():
        for _ in range(REQUEST_BYTES_MAX // 1_000_000 + 2):
            yield b"x" * 1_000_000

    async with held.stream(json=None, content=pieces()) as answer:
        await answer.aread()
        assert refused(answer, 413, "request_too_large") == "false"
    assert held.upstream.received <= REQUEST_BYTES_MAX
    declared = await held.http.post("/v1/messages", content=b"{}", headers={"x-api-key": "none", "content-length": "2"})
    assert declared.status_code == 401, "who asks comes first"


async def test_what_was_used_is_written_down(db, credentials, model, machine):
    await machine.set(CredentialKind.ANTHROPIC_API_KEY, "sk-ant-anns-own-key-11111111")
    async with gateway(db, credentials, model.url) as http:
        answer = await ask(http, machine, stream=True, headers={"x-claude-code-session-id": "s-1"}, messages=SPEAK)
        (told,) = (json.loads(line[6:]) for line in answer.text.splitlines() if line.startswith('data: {"type": "message_delta"'))
        whole = (await ask(http, machine)).json()["usage"]
        await http.post("/v1/messages/count_tokens", json=ASK, headers={"x-api-key": machine.token})
        await ask(http, machine, messages=[{"role": "user", "content": "%error 400"}])
    async with db.transaction(machine.user_id) as tx:
        rows = (await tx.execute(text("select * from usage order by at"))).mappings().all()
    assert [row["agent_session"] for row in rows] == ["s-1", None]
    for row, said in zip(rows, [told["usage"], whole], strict=True):
        assert (row["user_id"], row["workspace_id"], row["model"]) == (machine.user_id, machine.workspace_id, ASK["model"])
        assert (row["input_tokens"], row["output_tokens"]) == (said["input_tokens"], said["output_tokens"])
        assert row["cost_micro_usd"] > 0
