"""A user of the HTTP API, as the tests need one: plain requests, waits with limits, and an event reader with a cursor."""

import asyncio
import json
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, Self
from uuid import UUID

import httpx2

from ff_core.contract.account import TokenView
from ff_core.contract.events import Event
from ff_core.contract.execution import EXEC_FRAME, ExecExit, ExecNotice, ExecOutput
from ff_core.contract.session import MessageView, PendingRequest, SessionView
from ff_core.contract.workspace import WorkspaceStatus, WorkspaceView
from ff_core.world import SystemWorld

PASSWORD = "quartz-lantern-39-umbrella"
LIMIT_S = 60.0
TLS = ssl.create_default_context()
"""Made once: a client that makes its own takes longer for it than for a request. Nothing here uses it."""

new_id = SystemWorld().new_id


class Refused(Exception):
    """The server answered with a problem document."""

    def __init__(self, status: int, problem: dict[str, Any]) -> None:
        super().__init__(f"{status} {problem}")
        self.status = status
        self.problem = problem

    @property
    def code(self) -> str:
        return self.problem["code"]


@dataclass
class Ran:
    """A command that ended."""

    exit_code: int
    stdout: bytes
    stderr: bytes
    notices: list[str] = field(default_factory=list)


@dataclass
class Watch:
    """Everything heard so far of one workspace, with ways to wait for more."""

    events: list[Event] = field(default_factory=list)
    hints: list[Event] = field(default_factory=list)
    news: asyncio.Event = field(default_factory=asyncio.Event)
    failure: BaseException | None = None

    @property
    def cursor(self) -> int:
        return self.events[-1].seq or 0 if self.events else 0

    def hear(self, event: Event) -> None:
        (self.events if event.seq is not None else self.hints).append(event)
        self.news.set()

    def of(self, kind: str) -> list[Any]:
        return [event.body for event in self.events if event.body.kind == kind]

    async def until(self, done: Callable[["Watch"], Any], *, limit_s: float = LIMIT_S) -> Any:
        """The first true value of ``done``, looked at after every event."""
        try:
            async with asyncio.timeout(limit_s):
                while True:
                    self.news.clear()
                    if value := done(self):
                        return value
                    if self.failure is not None:
                        raise self.failure
                    await self.news.wait()
        except TimeoutError:
            heard = "\n".join(f"{event.seq} {event.body.model_dump_json()[:300]}" for event in self.events)
            raise AssertionError(f"not within {limit_s} s; heard:\n{heard}") from None

    async def turn(self, count: int = 1, *, limit_s: float = LIMIT_S) -> Any:
        """The ``count``-th end of a turn."""
        return await self.until(lambda heard: (heard.of("turn.finished") + [None] * count)[count - 1], limit_s=limit_s)


class User:
    """One account, logged in."""

    def __init__(self, http: httpx2.AsyncClient, email: str) -> None:
        self.http = http
        self.email = email

    @classmethod
    @asynccontextmanager
    async def sign_up(cls, base_url: str) -> AsyncIterator[Self]:
        email = f"{new_id().hex[-12:]}@example.com"
        timeout = httpx2.Timeout(30, read=LIMIT_S)
        async with httpx2.AsyncClient(base_url=base_url, timeout=timeout, trust_env=False, verify=TLS) as http:
            user = cls(http, email)
            await user.log_in("/v1/auth/signup")
            yield user

    async def log_in(self, path: str = "/v1/auth/login") -> None:
        """Take a fresh access token; they live for ten minutes only."""
        self.http.headers.pop("Authorization", None)
        token = TokenView.model_validate(await self.call("POST", path, {"email": self.email, "password": PASSWORD}))
        self.http.headers["Authorization"] = f"Bearer {token.access_token}"

    async def call(self, method: str, path: str, body: Any = None, *, headers: dict[str, str] | None = None) -> Any:
        response = await self.http.request(method, path, json=body, headers=headers)
        if response.status_code >= 400:
            assert response.headers["content-type"].startswith("application/problem+json"), response.text
            raise Refused(response.status_code, response.json())
        return response.json() if response.content else None

    async def refused(self, method: str, path: str, body: Any = None) -> Refused:
        """The refusal that this request must meet."""
        try:
            answer = await self.call(method, path, body)
        except Refused as refused:
            return refused
        raise AssertionError(f"{method} {path} was not refused: {answer}")

    async def order(self, **wanted: Any) -> WorkspaceView:
        wanted.setdefault("name", f"ws {new_id().hex[-8:]}")
        return WorkspaceView.model_validate(await self.call("POST", "/v1/workspaces", wanted))

    async def workspace(self, workspace_id: UUID) -> WorkspaceView:
        return WorkspaceView.model_validate(await self.call("GET", f"/v1/workspaces/{workspace_id}"))

    async def suspend(self, workspace_id: UUID, *, limit_s: float = LIMIT_S) -> None:
        """By force, once nothing else is being done with it, such as saving it."""
        async with asyncio.timeout(limit_s):
            while True:
                try:
                    await self.call("POST", f"/v1/workspaces/{workspace_id}/suspend?force=true")
                    return
                except Refused as refused:
                    if refused.code != "operation_active":
                        raise
                await asyncio.sleep(0.05)

    async def settled(self, workspace_id: UUID, *, limit_s: float = LIMIT_S) -> WorkspaceView:
        """The workspace once it is READY or FAILED."""
        async with asyncio.timeout(limit_s):
            while True:
                found = await self.workspace(workspace_id)
                if found.status in {WorkspaceStatus.READY, WorkspaceStatus.FAILED}:
                    return found
                await asyncio.sleep(0.05)

    async def ready(self, **wanted: Any) -> WorkspaceView:
        found = await self.settled((await self.order(**wanted)).id)
        assert found.status is WorkspaceStatus.READY, found
        return found

    async def delete(self, workspace_id: UUID, *, limit_s: float = LIMIT_S) -> None:
        """Delete and wait until it is gone."""
        await self.call("DELETE", f"/v1/workspaces/{workspace_id}")
        await self.gone(workspace_id, limit_s=limit_s)

    async def gone(self, workspace_id: UUID, *, limit_s: float = LIMIT_S) -> None:
        async with asyncio.timeout(limit_s):
            while True:
                try:
                    await self.workspace(workspace_id)
                except Refused as refused:
                    assert refused.status == 404
                    return
                await asyncio.sleep(0.05)

    async def run(self, workspace_id: UUID, *argv: str, **more: Any) -> Ran:
        """Run a command in the workspace to its end."""
        ran = Ran(-999, b"", b"")
        path = f"/v1/workspaces/{workspace_id}/exec"
        async with self.http.stream("POST", path, json={"argv": list(argv), **more}) as response:
            if response.status_code >= 400:
                raise Refused(response.status_code, json.loads(await response.aread()))
            async for line in response.aiter_lines():
                frame = EXEC_FRAME.validate_json(line)
                match frame:
                    case ExecOutput(channel="stdout"):
                        ran.stdout += frame.data
                    case ExecOutput():
                        ran.stderr += frame.data
                    case ExecNotice(message=message):
                        ran.notices.append(message)
                    case ExecExit():
                        ran.exit_code = frame.exit_code
                    case _:
                        raise AssertionError(frame)
        assert ran.exit_code != -999, "the stream ended without an exit frame"
        return ran

    async def shell(self, workspace_id: UUID, script: str) -> str:
        """What a script prints; it must succeed."""
        ran = await self.run(workspace_id, "bash", "-c", script)
        assert ran.exit_code == 0, ran
        return ran.stdout.decode()

    async def session(self, workspace_id: UUID, **wanted: Any) -> SessionView:
        return SessionView.model_validate(await self.call("POST", f"/v1/workspaces/{workspace_id}/sessions", wanted))

    async def say(self, session_id: UUID, text: str) -> MessageView:
        return MessageView.model_validate(await self.call("POST", f"/v1/sessions/{session_id}/messages", {"text": text}))

    async def pending(self, session_id: UUID) -> list[PendingRequest]:
        view = SessionView.model_validate(await self.call("GET", f"/v1/sessions/{session_id}"))
        return list(view.pending)

    async def answer(self, session_id: UUID, request_id: UUID, **answer: Any) -> None:
        await self.call("POST", f"/v1/sessions/{session_id}/permissions/{request_id}", answer)

    @asynccontextmanager
    async def watch(self, workspace_id: UUID, *, after: int = 0) -> AsyncIterator[Watch]:
        """Listen from a cursor for the length of the block."""
        heard = Watch()

        async def listen() -> None:
            try:
                async for event in self.events(workspace_id, after=after):
                    heard.hear(event)
            except Exception as error:  # noqa: BLE001  (told to whoever waits)
                heard.failure = error
                heard.news.set()

        task = asyncio.create_task(listen())
        try:
            yield heard
        finally:
            task.cancel()
            await asyncio.wait({task})

    async def events(self, workspace_id: UUID, *, after: int = 0, resume: int | None = None) -> AsyncIterator[Event]:
        """The server-sent events, one request."""
        headers = {"Accept": "text/event-stream"} | ({"Last-Event-ID": str(resume)} if resume is not None else {})
        path = f"/v1/workspaces/{workspace_id}/events?after={after}"
        async with self.http.stream("GET", path, headers=headers) as response:
            if response.status_code >= 400:
                raise Refused(response.status_code, json.loads(await response.aread()))
            fields: dict[str, str] = {}
            async for line in response.aiter_lines():
                if line.startswith(":"):
                    continue
                if line:
                    name, _, value = line.partition(": ")
                    fields[name] = value
                    continue
                if "data" in fields:
                    event = Event.model_validate_json(fields["data"])
                    assert fields.get("id") == (None if event.seq is None else str(event.seq))
                    yield event
                fields = {}


class Accounts:
    """Accounts of one server, lent again when a test gave them back as clean as new: sign-ups are limited, as they should be."""

    def __init__(self, url: str, exits: AsyncExitStack) -> None:
        self._url = url
        self._exits = exits
        self._clean: list[User] = []

    @asynccontextmanager
    async def lent(self) -> AsyncIterator[User]:
        if self._clean:
            user = self._clean.pop()
            await user.log_in()
        else:
            user = await self._exits.enter_async_context(User.sign_up(self._url))
        yield user
        await user.log_in()
        left = [await user.call("GET", path) for path in ("/v1/workspaces", "/v1/api-keys")]
        if not any(page["items"] for page in left):
            self._clean.append(user)
