"""The HTTP door of the scripted model: routes, credentials, failure counters, the log of requests."""

import asyncio
import contextlib
import re
import socket
import struct
from collections import deque
from collections.abc import AsyncIterator, Iterable
from pathlib import Path
from types import TracebackType
from typing import Any

from starlette.applications import Starlette
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from ff_core.testing.model_api import frames, reply
from ff_core.testing.model_api.record import RecordedRequest
from ff_core.testing.model_api.script import Json, Plan, ScriptError, next_step, parse
from ff_core.testing.serve import TRANSPORT, serving
from ff_core.world import SystemWorld, World

MODELS = {
    "claude-fable-5-2": "Claude Fable 5.2",
    "claude-opus-5-5": "Claude Opus 5.5",
    "claude-sonnet-5-5": "Claude Sonnet 5.5",
    "claude-haiku-5-5": "Claude Haiku 5.5",
}
REQUESTS_MAX = 500
QUEUED_REPLIES_MAX = 1_000
FAILURE_COUNTERS_MAX = 10_000
_METHODS = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE"]


class ModelApi:
    """Serves the scripted Messages API: ``async with ModelApi() as api`` and give the CLI ``api.url``.

    ``tokens`` are the credentials accepted as ``x-api-key`` or bearer (None: any, even none). ``log`` appends one JSON
    line per finished request, with credentials cut to their last four characters. Also answers
    ``POST /_scripted/next {"script": …}``, ``GET /_scripted/requests[?full=1]`` and ``POST /_scripted/reset``.
    """

    url: str = ""
    """The base URL, once entered."""

    def __init__(
        self,
        *,
        host: str = "127.0.0.1",
        port: int = 0,
        tokens: Iterable[str] | None = None,
        log: Path | None = None,
        world: World | None = None,
    ) -> None:
        self._host, self._port = host, port
        self._tokens = None if tokens is None else frozenset(tokens)
        self._log = log
        self._world = world or SystemWorld()
        self._requests: deque[RecordedRequest] = deque(maxlen=REQUESTS_MAX)
        self._queue: deque[Plan] = deque(maxlen=QUEUED_REPLIES_MAX)
        self._failures: dict[tuple[str, int], int] = {}
        self._exit = contextlib.AsyncExitStack()

    async def __aenter__(self) -> "ModelApi":
        self.url = await self._exit.enter_async_context(serving(self._app(), host=self._host, port=self._port))
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self._exit.aclose()

    @property
    def requests(self) -> list[RecordedRequest]:
        """The last :data:`REQUESTS_MAX` requests, oldest first, those under way included."""
        return list(self._requests)

    @property
    def prompts(self) -> list[str]:
        """The prompts of the agent's own requests, in order; one prompt repeats for every step of its turn."""
        return [request.prompt for request in self._requests if request.kind == "main"]

    def queue(self, script: str) -> None:
        """Play each reply of ``script`` once, for the next main requests whatever their prompt."""
        self._queue.extend(parse(script))

    def reset(self) -> None:
        """Forget requests, queued replies and failure counters."""
        self._requests.clear()
        self._queue.clear()
        self._failures.clear()

    def _app(self) -> Starlette:
        return Starlette(
            routes=[
                Route("/_scripted/next", self._scripted_next, methods=["POST"]),
                Route("/_scripted/requests", self._scripted_requests),
                Route("/_scripted/reset", self._scripted_reset, methods=["POST"]),
                Route("/{path:path}", self._answer, methods=_METHODS),
            ]
        )

    async def _scripted_next(self, request: Request) -> Response:
        self.queue((await request.json())["script"])
        return JSONResponse({"queued": len(self._queue)})

    async def _scripted_requests(self, request: Request) -> Response:
        full = bool(request.query_params.get("full"))
        return JSONResponse([record.summary(full=full) for record in self._requests])

    async def _scripted_reset(self, _request: Request) -> Response:
        self.reset()
        return JSONResponse({})

    async def _answer(self, request: Request) -> Response:
        record = RecordedRequest(
            at=self._world.now(),
            method=request.method,
            path=request.url.path + (f"?{request.url.query}" if request.url.query else ""),
            headers=dict(request.headers),
            body=await _json_body(request),
        )
        self._requests.append(record)
        try:
            response = await self._route(request, record)
        except ScriptError as error:
            response = _failed(reply.Failure(400, "invalid_request_error", f"bad script: {error}"), record)
        except asyncio.CancelledError:
            record.outcome = "client gone"
            raise
        if not isinstance(response, StreamingResponse):
            self._finish(record)
        return response

    async def _route(self, request: Request, record: RecordedRequest) -> Response:
        path = request.url.path
        match request.method, path:
            case "HEAD", _:
                record.outcome = "head"
                return Response(headers=_headers())
            case _ if not self._admits(record.headers):
                return _failed(reply.Failure(401, "authentication_error", reply.ERROR_TEXTS[401]), record)
            case "POST", "/v1/messages":
                return await self._messages(request, record)
            case "POST", "/v1/messages/count_tokens":
                record.outcome = "count_tokens"
                return JSONResponse({"input_tokens": frames.count_tokens(record.body)}, headers=_headers())
            case "GET", "/v1/models":
                record.outcome = "models"
                return JSONResponse(_models(), headers=_headers())
            case _:
                missing = reply.Failure(404, "not_found_error", f"no route {request.method} {path}")
                return _failed(missing, record)

    def _admits(self, headers: dict[str, str]) -> bool:
        if self._tokens is None:
            return True
        bearer = re.sub(r"^Bearer ", "", headers.get("authorization", ""))
        return headers.get("x-api-key") in self._tokens or bearer in self._tokens

    async def _messages(self, request: Request, record: RecordedRequest) -> Response:
        body = record.body
        step = next_step(body, self._queue[0] if self._queue else None)
        if step.kind == "main" and self._queue:
            self._queue.popleft()
        record.kind = step.kind
        record.plan = [(directive.verb, directive.argument) for directive in step.plan]

        def still_fails(number: int, times: int) -> bool:
            return self._count_failure((step.key, number)) <= times or times == 0

        await asyncio.sleep(reply.lag_s(step.plan))
        failure = reply.failure(step.plan, still_fails)
        if failure:
            return _failed(failure, record)
        said = reply.build(step.plan, body, still_fails)
        if not body.get("stream"):
            record.outcome = "message"
            return JSONResponse(frames.message(said, body), headers=_headers())
        stream = self._stream(said, record, request.scope[TRANSPORT])
        streaming = {"content-type": "text/event-stream; charset=utf-8", "cache-control": "no-cache"}
        return StreamingResponse(stream, headers=_headers(**streaming))

    async def _stream(self, said: reply.Reply, record: RecordedRequest, transport: asyncio.Transport) -> AsyncIterator[bytes]:
        loop = asyncio.get_running_loop()
        block_began, deltas = loop.time(), 0
        record.outcome = ""
        try:
            for output in frames.frames(said, record.body):
                match output:
                    case reply.Wait():
                        await asyncio.sleep(output.seconds)
                    case frames.Pace():
                        await asyncio.sleep(max(0.0, block_began + output.since_block_s - loop.time()))
                    case reply.Cut():
                        record.outcome = f"cut after {deltas} ({output.how})"
                        await _cut(transport, output.how)
                        return
                    case frames.Frame():
                        if output.name == "content_block_start":
                            block_began = loop.time()
                        deltas += output.name == "content_block_delta"
                        yield output.encode()
                        if output.name in ("error", "message_stop"):
                            record.outcome = f"stream {output.name} deltas={deltas}"
        finally:
            record.outcome = record.outcome or f"client gone after {deltas}"
            self._finish(record)

    def _count_failure(self, key: tuple[str, int]) -> int:
        if len(self._failures) >= FAILURE_COUNTERS_MAX:
            del self._failures[next(iter(self._failures))]
        self._failures[key] = self._failures.get(key, 0) + 1
        return self._failures[key]

    def _finish(self, record: RecordedRequest) -> None:
        record.seconds = round((self._world.now() - record.at).total_seconds(), 4)
        if self._log is None:
            return
        with self._log.open("a", encoding="utf-8") as file:
            file.write(record.log_line() + "\n")


async def _json_body(request: Request) -> Json:
    with contextlib.suppress(ValueError, ClientDisconnect):
        body: Any = await request.json()
        if isinstance(body, dict):
            return body
    return {}


async def _cut(transport: asyncio.Transport, how: str) -> None:
    """End the connection as a bad network would, without ending the response first."""
    if how == "rst":
        transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        transport.abort()
    else:
        transport.close()
    # Until the server has noticed, returning would still write the end of the response.
    await asyncio.sleep(0.05)


def _failed(failure: reply.Failure, record: RecordedRequest) -> Response:
    record.outcome = f"{failure.status} {failure.kind}"
    headers = _headers(**failure.headers)
    error = {"type": failure.kind, "message": failure.message}
    body = {"type": "error", "error": error, "request_id": headers["request-id"]}
    return JSONResponse(body, failure.status, headers)


def _headers(**more: str) -> dict[str, str]:
    return {"request-id": reply.new_id("req"), **more}


def _models() -> Json:
    created = "2026-01-01T00:00:00Z"
    models = [{"type": "model", "id": id_, "display_name": name, "created_at": created} for id_, name in MODELS.items()]
    return {"data": models, "has_more": False, "first_id": models[0]["id"], "last_id": models[-1]["id"]}
