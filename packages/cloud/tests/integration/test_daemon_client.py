"""The client against a server on loopback that speaks as the daemon does, and as a broken one would."""

import asyncio
import json
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from urllib.parse import urlsplit
from uuid import UUID

import pytest
from pydantic import SecretStr
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from ff_cloud.vms.daemon_client import FRAME_BYTES_MAX, RESPONSE_BYTES_MAX, DaemonClient, VmMisbehaved, VmUnreachable, revealed
from ff_cloud.vms.daemon_http import Broken, DaemonHttp
from ff_core.contract.base import Channel
from ff_core.contract.daemon import Bind, Health, ModelAccess, PrepareRepository, Use
from ff_core.contract.events import Event, Notice, sse_frame
from ff_core.contract.execution import ExecExit, ExecOutput, ExecRequest
from ff_core.contract.places import Location
from ff_core.contract.problem import Problem, RemoteProblem
from ff_core.contract.session import NewMessage
from ff_core.ids import SessionId, VmId, WorkspaceId
from ff_core.testing.serve import TRANSPORT, serving

TOKEN = "t0ken"
VM = VmId(UUID("01890000-0000-7000-8000-000000000001"))
WORKSPACE = WorkspaceId(UUID("01890000-0000-7000-8000-000000000002"))
SESSION = SessionId(UUID("01890000-0000-7000-8000-000000000003"))
USE = Use(turns=0, commands=0, processes=0, followers=0, active_at=datetime(2026, 8, 1, tzinfo=UTC))
HEALTH = Health(
    vm_id=VM, generation=4, version="1", uptime_s=1, bound=False, workspace_id=None, journal_seq=0, working=0, use=USE
)
RUN = ExecRequest(argv=["true"], timeout_s=10)

Handler = Callable[[Request], Awaitable[Response]]


@asynccontextmanager
async def daemon(method: str, path: str, handler: Handler, *, token: str = TOKEN) -> AsyncIterator[DaemonClient]:
    app = Starlette(routes=[Route(path, handler, methods=[method])])
    async with serving(app) as url, DaemonHttp() as http:
        at = urlsplit(url)
        yield DaemonClient(at.hostname, at.port, token, 4, http)


def lines(*frames) -> bytes:
    return b"".join(frame.model_dump_json().encode() + b"\n" for frame in frames)


def event(seq: int | None, text: str) -> Event:
    body = Notice(name="note", message=text)
    return Event(workspace_id=WORKSPACE, seq=seq, at=datetime(2026, 1, 1, tzinfo=UTC), body=body)


def answering(content: bytes, media_type: str = "application/json", status: int = 200) -> Handler:
    async def answer(_: Request) -> Response:
        return Response(content, status_code=status, media_type=media_type)

    return answer


async def test_health_carries_the_token_and_no_generation():
    async def health(request: Request) -> Response:
        assert request.headers["authorization"] == f"Bearer {TOKEN}"
        assert "ff-generation" not in request.headers
        return Response(HEALTH.model_dump_json(), media_type="application/json")

    async with daemon("GET", "/v1/health", health) as client:
        assert await client.health() == HEALTH


async def test_secrets_are_sent_in_clear_and_the_generation_with_them():
    seen = {}

    async def bind(request: Request) -> Response:
        seen.update(await request.json())
        assert request.headers["ff-generation"] == "4"
        return Response(HEALTH.model_dump_json(), media_type="application/json")

    model = ModelAccess(base_url="http://ff-host:1", api_key=SecretStr("sk-1"))
    async with daemon("POST", "/v1/bind", bind) as client:
        await client.bind(Bind(workspace_id=WORKSPACE, name="näme", model=model))
    assert seen == {
        "workspace_id": str(WORKSPACE),
        "name": "näme",
        "model": {"base_url": "http://ff-host:1", "api_key": "sk-1"},
        "git": None,
        "existing": False,
    }
    assert Bind.model_validate(seen).model.api_key.get_secret_value() == "sk-1"


def test_what_an_older_daemon_does_not_know_is_told_only_when_it_says_something():
    usual = Bind(workspace_id=WORKSPACE, name="x", model=ModelAccess())
    assert {"location", "epoch", "handoff_id"} & revealed(usual).keys() == set()
    moved = usual.model_copy(update={"location": Location.DESKTOP, "epoch": 0, "handoff_id": WORKSPACE})
    assert Bind.model_validate(revealed(moved)) == moved


async def test_a_refusal_keeps_the_daemons_words():
    problem = Problem(title="Not bound", status=500, code="not_bound", detail="Bind me first.", hint="x")
    refuse = answering(problem.model_dump_json().encode(), "application/problem+json", 409)
    async with daemon("POST", "/v1/sessions/{id}/messages", refuse) as client:
        with pytest.raises(RemoteProblem, match="Bind me first") as caught:
            await client.send(SESSION, NewMessage(text="hello"))
    assert (caught.value.problem.code, caught.value.problem.status) == ("not_bound", 409)
    assert caught.value.extra == {"hint": "x"}


async def test_a_refused_token_means_that_the_address_is_anothers_by_now():
    body = Problem(title="x", status=401, code="unauthorized", detail="who are you").model_dump_json()
    refuse = answering(body.encode(), status=401)
    async with daemon("GET", "/v1/repository", refuse) as client:
        with pytest.raises(VmUnreachable):
            await client.repository()


@pytest.mark.parametrize(
    ("content", "status"),
    [(b"<html>", 200), (b'{"branch": 3}', 200), (b"oops", 500), (b" " * (RESPONSE_BYTES_MAX + 1), 200)],
    ids=["no JSON", "wrong shape", "no problem document", "too large"],
)
async def test_nonsense_is_named_so(content: bytes, status: int):
    async with daemon("GET", "/v1/repository", answering(content, status=status)) as client:
        with pytest.raises(VmMisbehaved):
            await client.repository()


async def test_nobody_there():
    async with DaemonHttp() as http, asyncio.timeout(3):
        client = DaemonClient("127.0.0.1", 9, TOKEN, 1, http)
        with pytest.raises(VmUnreachable):
            await client.health()
        with pytest.raises(VmUnreachable, match=r"0\.2 s"):
            await client.wait_healthy(0.2)


async def test_an_answer_that_drips_is_cut():
    async def drip(_: Request) -> Response:
        async def body() -> AsyncIterator[bytes]:
            while True:
                yield b" "
                await asyncio.sleep(0.01)

        return StreamingResponse(body())

    async with daemon("GET", "/v1/health", drip) as client, asyncio.timeout(5):
        with pytest.raises(VmUnreachable, match=r"0\.3 s"):
            await client.health(timeout_s=0.3)


async def test_waiting_ends_with_the_first_answer():
    tries = 0

    async def starting(request: Request) -> Response:
        nonlocal tries
        tries += 1
        if tries < 3:
            request.scope[TRANSPORT].abort()
        return Response(HEALTH.model_dump_json(), media_type="application/json")

    async with daemon("GET", "/v1/health", starting) as client:
        assert await client.wait_healthy(5) == HEALTH
    assert tries == 3


async def test_the_limit_of_a_clone_is_the_requests_own():
    async def prepare(request: Request) -> Response:
        assert (await request.json())["token"] == "pw"
        return JSONResponse({"branch": "main", "head": None, "staged": 0, "unstaged": 0, "untracked": 0, "conflicted": 0})

    async with daemon("PUT", "/v1/repository", prepare) as client:
        done = await client.prepare_repository(PrepareRepository(url="https://git.example/a", token=SecretStr("pw")))
    assert done.branch == "main"


async def test_frames_come_as_they_were_written_however_they_are_cut():
    frames = [
        ExecOutput(channel=Channel.STDOUT, data=b"\x00\xff\n" * 100),
        ExecOutput(channel=Channel.STDERR, data=b"e"),
        ExecExit(exit_code=-9),
    ]

    async def execute(_: Request) -> Response:
        async def body() -> AsyncIterator[bytes]:
            whole = lines(*frames)
            for start in range(0, len(whole), 7):
                yield whole[start : start + 7]

        return StreamingResponse(body())

    async with daemon("POST", "/v1/exec", execute) as client, client.execute(RUN) as heard:
        assert [frame async for frame in heard] == frames


@pytest.mark.parametrize("abort", [True, False], ids=["cut", "ended"])
async def test_a_stream_without_an_end_is_a_broken_one(abort: bool):
    first = ExecOutput(channel=Channel.STDOUT, data=b"so far")

    async def execute(request: Request) -> Response:
        async def body() -> AsyncIterator[bytes]:
            yield lines(first) + b'{"kind": "ou'
            if abort:
                await asyncio.sleep(0.05)  # let it out before the line is cut
                request.scope[TRANSPORT].abort()

        return StreamingResponse(body())

    async with daemon("POST", "/v1/exec", execute) as client, client.execute(RUN) as frames:
        assert await anext(frames) == first
        with pytest.raises(VmUnreachable):
            await anext(frames)


async def test_a_line_without_end_is_refused():
    async with daemon("POST", "/v1/exec", answering(b"x" * (FRAME_BYTES_MAX + 100_000))) as client, client.execute(RUN) as frames:
        with pytest.raises(VmMisbehaved):
            await anext(frames)


@pytest.mark.parametrize("ends", [True, False], ids=["ends", "hangs"])
async def test_a_connection_serves_again_when_its_answer_was_heard_out(ends: bool):
    seen = set()

    async def execute(request: Request) -> Response:
        seen.add(request.client)

        async def body() -> AsyncIterator[bytes]:
            yield lines(ExecExit(exit_code=0))
            if not ends:
                await asyncio.Event().wait()

        return StreamingResponse(body())

    async with daemon("POST", "/v1/exec", execute) as client, asyncio.timeout(5):
        for _ in range(3):
            async with client.execute(RUN) as heard:
                assert [frame async for frame in heard] == [ExecExit(exit_code=0)]
    assert len(seen) == (1 if ends else 3)


async def test_a_kept_connection_that_died_is_not_taken():
    seen = set()

    async def health(request: Request) -> Response:
        seen.add(request.client)
        asyncio.get_running_loop().call_later(0.02, request.scope[TRANSPORT].close)
        return Response(HEALTH.model_dump_json(), media_type="application/json")

    async with daemon("GET", "/v1/health", health) as client:
        for _ in range(2):
            assert await client.health() == HEALTH
            await asyncio.sleep(0.1)
    assert len(seen) == 2


async def test_a_peer_that_takes_nothing_is_left():
    with socket.create_server(("127.0.0.1", 0)) as never_accepts:
        url = f"http://127.0.0.1:{never_accepts.getsockname()[1]}/"
        async with DaemonHttp() as http, asyncio.timeout(5):
            with pytest.raises(Broken):
                async with http.request("POST", url, headers={}, content=b"x" * 20_000_000, silence_s_max=0.3):
                    pass


async def test_a_body_may_be_sent_in_pieces():
    async def echo(request: Request) -> Response:
        return Response(await request.body(), headers={"X-Pieces": "yes"})

    async def pieces() -> AsyncIterator[bytes]:
        for number in range(3):
            yield str(number).encode()

    app = Starlette(routes=[Route("/", echo, methods=["PUT"])])
    async with (
        serving(app, host="::1") as url,
        DaemonHttp() as http,
        http.request("PUT", url, headers={}, content=pieces(), silence_s_max=5) as answer,
    ):
        assert (await answer.some(), await answer.some()) == (b"012", b"")
        assert (answer.status, answer.headers["x-pieces"]) == (200, "yes")


@pytest.mark.parametrize("cancel", [True, False], ids=["cancelled", "closed"])
async def test_leaving_a_stream_is_seen_at_the_other_end(cancel: bool):
    gone = asyncio.Event()

    async def execute(request: Request) -> Response:
        async def body() -> AsyncIterator[bytes]:
            try:
                yield lines(ExecOutput(channel=Channel.STDOUT, data=b"x"))
                await asyncio.Event().wait()
            finally:
                gone.set()

        return StreamingResponse(body())

    async with daemon("POST", "/v1/exec", execute) as client:
        heard = asyncio.Event()

        async def read() -> None:
            async with client.execute(RUN) as frames:
                async for _ in frames:
                    heard.set()
                    if not cancel:
                        return

        reader = asyncio.create_task(read())
        async with asyncio.timeout(5):
            await heard.wait()
            if cancel:
                reader.cancel()
            await asyncio.wait({reader})
            await gone.wait()


async def test_events_from_a_cursor():
    sent = [event(8, "one\nline"), event(None, "hint ü"), event(9, "last")]

    async def events(request: Request) -> Response:
        assert request.query_params["after"] == "7"

        async def body() -> AsyncIterator[bytes]:
            whole = b": hello\n\n" + b"".join(sse_frame(item) for item in sent)
            # The same event as another server may write it: data over several lines, CR LF, no space.
            spread = json.dumps(json.loads(event(10, "spread").model_dump_json()), indent=1)
            whole += b"".join(f"data:{line}\r\n".encode() for line in spread.splitlines()) + b"id: 10\r\n\r\n"
            whole += b"data: {unfinished"
            for start in range(0, len(whole), 11):
                yield whole[start : start + 11]

        return StreamingResponse(body(), media_type="text/event-stream")

    async with daemon("GET", "/v1/events", events) as client:
        assert [item async for item in client.events(after=7)] == [*sent, event(10, "spread")]


@pytest.mark.parametrize("content", [b"data: {}\n\n", b"data: " + b"x" * 5_000_000], ids=["no event", "endless line"])
async def test_events_that_are_none(content: bytes):
    async with daemon("GET", "/v1/events", answering(content, "text/event-stream")) as client:
        with pytest.raises(VmMisbehaved):
            await anext(client.events(after=0))


async def test_a_cut_event_stream_says_so():
    async def events(request: Request) -> Response:
        async def body() -> AsyncIterator[bytes]:
            yield sse_frame(event(1, "x"))
            await asyncio.sleep(0.05)  # let it out before the line is cut
            request.scope[TRANSPORT].abort()

        return StreamingResponse(body(), media_type="text/event-stream")

    async with daemon("GET", "/v1/events", events) as client:
        with pytest.raises(VmUnreachable):
            [item async for item in client.events(after=0)]
