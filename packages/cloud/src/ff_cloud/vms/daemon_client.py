"""Calling the daemon of one VM. What comes back was written in a VM, so it is bounded and checked like any input."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Mapping
from contextlib import aclosing, asynccontextmanager, suppress
from typing import Any, TypeVar

import structlog
from pydantic import BaseModel, SecretStr, TypeAdapter, ValidationError
from pydantic_core import to_json

from ff_cloud.kit.correlation import outgoing_headers
from ff_cloud.vms.daemon_http import Answer as HttpAnswer
from ff_cloud.vms.daemon_http import Broken, DaemonHttp
from ff_core.contract.base import dump
from ff_core.contract.checkpoint import CheckpointRequest, Restored, RestoreRequest
from ff_core.contract.daemon import GENERATION_HEADER, Bind, Health, PrepareRepository, Probe, Repository, Rest, Seeded
from ff_core.contract.daemon_handoff import Arrived, Export, Exported, Freeze, Incoming, OneHandoff, Outgoing, Thaw
from ff_core.contract.events import Event
from ff_core.contract.execution import EXEC_FRAME, ExecError, ExecExit, ExecFrame, ExecRequest
from ff_core.contract.problem import Problem, RemoteProblem
from ff_core.contract.session import Answer, Interrupt, Interrupted, MessageView, NewMessage, NewSession, SessionView
from ff_core.errors import FFError
from ff_core.ids import HandoffId, RequestId, SessionId

log = structlog.get_logger(__name__)

T = TypeVar("T")

HEALTH_TIMEOUT_S = 5.0
PROBE_TIMEOUT_S = 30.0
ANSWER_TIMEOUT_S = 30.0
INTERRUPT_TIMEOUT_S = 60.0
"""The agent is given time to stop by itself."""
SEED_TIMEOUT_S = 300.0
RESTORE_TIMEOUT_S = 1500.0
HANDOFF_TIMEOUT_S = 1800.0
"""For a workspace to be packed, or sent and unpacked."""
NO_CONTENT = 204
GRACE_S = 15.0
"""What a daemon gets beyond a time limit that it keeps itself."""
FAREWELL_S = 0.5
"""From the last frame of a command to the end of its response."""
SILENCE_S_MAX = 40.0
"""Without a byte on the event stream; the daemon sends a comment every 10 s."""
POLL_S = 0.005
KNOCK_S = 0.02
"""For a connection to a VM that was just started: what is sent before its network cable works is lost without a word, and the
kernel itself would try again after a second. Doubled each time, up to :data:`KNOCK_S_MAX`, for one that is far away."""
KNOCK_S_MAX = 1.0
RESPONSE_BYTES_MAX = 16 * 1024 * 1024
EVENT_BYTES_MAX = 4 * 1024 * 1024
FRAME_BYTES_MAX = 4 * 1024 * 1024

HEALTH: TypeAdapter[Health] = TypeAdapter(Health)
ARRIVED: TypeAdapter[Arrived] = TypeAdapter(Arrived)
EXPORTED: TypeAdapter[Exported] = TypeAdapter(Exported)
RESTORED: TypeAdapter[Restored] = TypeAdapter(Restored)
PROBE: TypeAdapter[Probe] = TypeAdapter(Probe)
REPOSITORY: TypeAdapter[Repository] = TypeAdapter(Repository)
SEEDED: TypeAdapter[Seeded] = TypeAdapter(Seeded)
SESSION: TypeAdapter[SessionView] = TypeAdapter(SessionView)
SESSIONS: TypeAdapter[list[SessionView]] = TypeAdapter(list[SessionView])
MESSAGE: TypeAdapter[MessageView] = TypeAdapter(MessageView)
EVENT: TypeAdapter[Event] = TypeAdapter(Event)
INTERRUPTED: TypeAdapter[Interrupted] = TypeAdapter(Interrupted)


class VmUnreachable(FFError):
    """The workspace's VM does not answer; it is probably being restarted. Try again in a few seconds."""

    code = "vm_unreachable"
    status = 503


class VmMisbehaved(FFError):
    """The workspace's VM answered with something we don't understand. Try again; if it stays, make a new workspace."""

    code = "vm_misbehaved"
    status = 502


class DaemonClient:
    """The daemon at ``address``; cheap to make, keeps nothing but the shared pool ``http``.

    All methods raise :class:`VmUnreachable` when there is no answer in time (what was asked may have happened),
    ``RemoteProblem`` with the daemon's own code when it refuses, and :class:`VmMisbehaved` for an answer out of bounds.
    Requests with an id (sessions, messages) may be repeated, as may everything else but ``execute``.
    """

    def __init__(self, address: str, port: int, token: str, generation: int, http: DaemonHttp) -> None:
        self._place = (address, port)
        host = f"[{address}]" if ":" in address else address
        self._base = f"http://{host}:{port}/v1"
        self._headers = {"Authorization": f"Bearer {token}", "Accept-Encoding": "identity"}
        self._generation = {GENERATION_HEADER: str(generation)}
        self._http = http

    async def health(self, *, timeout_s: float = HEALTH_TIMEOUT_S) -> Health:
        """The daemon is alive; the only call that a daemon of another generation answers too."""
        return await self._call(HEALTH, "GET", "/health", timeout_s=timeout_s, headers={})

    async def wait_healthy(self, timeout_s: float) -> Health:
        """Ask for ``health`` until there is an answer. Raises :class:`VmUnreachable` after ``timeout_s``."""
        try:
            async with asyncio.timeout(timeout_s):
                await self._knock()
                while True:
                    try:
                        return await self.health()
                    except VmUnreachable:
                        await asyncio.sleep(POLL_S)
        except TimeoutError as exc:
            raise VmUnreachable(f"The workspace's VM did not answer within {timeout_s:g} s of its start. Try again.") from exc

    async def _knock(self) -> None:
        """Return once somebody listens: a daemon does so long before it can answer."""
        patience_s = KNOCK_S
        while True:
            try:
                async with asyncio.timeout(patience_s):
                    _, writer = await asyncio.open_connection(*self._place)
            except OSError:  # TimeoutError is one
                patience_s = min(2 * patience_s, KNOCK_S_MAX)
                await asyncio.sleep(POLL_S)
            else:
                writer.close()
                return

    async def bind(self, wanted: Bind, *, timeout_s: float = ANSWER_TIMEOUT_S) -> Health:
        """Give the VM to a workspace, or renew how its agents reach the model."""
        return await self._call(HEALTH, "POST", "/bind", wanted, timeout_s=timeout_s)

    async def probe(self) -> Probe:
        """Have everything tried that an agent needs."""
        return await self._call(PROBE, "POST", "/probe", timeout_s=PROBE_TIMEOUT_S)

    async def rest(self, wanted: Rest) -> Health:
        """Have it take nothing new, if nothing goes on (or in any case). ``vm_in_use`` when something does."""
        return await self._call(HEALTH, "POST", "/rest", wanted)

    async def end_rest(self) -> Health:
        """Have it take work again."""
        return await self._call(HEALTH, "DELETE", "/rest")

    async def seed(self, stream: AsyncIterable[bytes]) -> Seeded:
        """Give it what is known of its repository, in the format of ``ff_core.git.seed``, for the checkout that is made next.

        Sent as slowly as it is taken, for :data:`SEED_TIMEOUT_S` at most. A stream that raises ends as :class:`VmUnreachable`.
        """
        return await self._call(SEEDED, "PUT", "/repository/seed", stream, timeout_s=SEED_TIMEOUT_S)

    async def prepare_repository(self, wanted: PrepareRepository) -> Repository:
        """Make the checkout; takes as long as the clone does, at most ``wanted.timeout_s`` and some grace."""
        return await self._call(REPOSITORY, "PUT", "/repository", wanted, timeout_s=wanted.timeout_s + GRACE_S)

    async def repository(self) -> Repository:
        """The checkout as it stands."""
        return await self._call(REPOSITORY, "GET", "/repository")

    @asynccontextmanager
    async def checkpoint(self, wanted: CheckpointRequest) -> AsyncIterator[AsyncGenerator[bytes, None] | None]:
        """The archive, for the length of the block; None when nothing changed since ``wanted.base``. Entered when it begins.

        Leaving before its end stops the packing; a slow reader slows it down. It is whole only when it ends with its trailer.
        """
        async with self._open("POST", "/checkpoint", wanted, silence_s_max=wanted.timeout_s + GRACE_S) as response:
            if response.status == NO_CONTENT:
                yield None
                return
            async with aclosing(_pieces(response)) as pieces:
                yield pieces

    async def restore(self, wanted: RestoreRequest, body: AsyncIterable[bytes]) -> Restored:
        """Put a checkpoint into the VM, which is empty; ``body`` as :class:`RestoreRequest` says, sent as slowly as it is taken.

        All of it or nothing; at most :data:`RESTORE_TIMEOUT_S`. A body that raises ends as :class:`VmUnreachable`.
        """
        async with self._open("PUT", "/restore", body, params=_parameters(wanted), silence_s_max=RESTORE_TIMEOUT_S) as response:
            return _parse(RESTORED, await _read(response))

    async def receive(self, wanted: Incoming, body: AsyncIterable[bytes]) -> Arrived:
        """Have the VM become what a bundle holds, and stay inert; sent as slowly as it is taken, then unpacked and compared.

        At most :data:`HANDOFF_TIMEOUT_S`. A body that raises ends as :class:`VmUnreachable`.
        """
        async with self._open("PUT", "/handoff", body, params=_parameters(wanted), silence_s_max=HANDOFF_TIMEOUT_S) as response:
            return _parse(ARRIVED, await _read(response))

    async def freeze(self, wanted: Freeze) -> Health:
        """Have nothing new begin: the workspace is about to leave. ``turn_running``, ``fixer_active``, ``command_running``."""
        return await self._call(HEALTH, "POST", "/handoff/freeze", wanted, timeout_s=INTERRUPT_TIMEOUT_S)

    async def thaw(self, wanted: Thaw) -> Health:
        """Have it go on, if it was that handoff that froze it."""
        return await self._call(HEALTH, "DELETE", "/handoff/freeze", params=_parameters(wanted))

    async def export(self, wanted: Export) -> Exported:
        """Have the workspace packed; at most :data:`HANDOFF_TIMEOUT_S`."""
        return await self._call(EXPORTED, "POST", "/handoff/export", wanted, timeout_s=HANDOFF_TIMEOUT_S)

    @asynccontextmanager
    async def bundle(self, wanted: Outgoing) -> AsyncIterator[AsyncGenerator[bytes, None]]:
        """What was packed, from an offset on, for the length of the block. It is whole when it has the size that was told."""
        async with (
            self._open("GET", "/handoff/bundle", params=_parameters(wanted), silence_s_max=SILENCE_S_MAX) as response,
            aclosing(_pieces(response)) as pieces,
        ):
            yield pieces

    async def forget_handoff(self, handoff_id: HandoffId) -> None:
        """Have nothing of it lie there any more."""
        params = _parameters(OneHandoff(id=handoff_id))
        async with self._open("DELETE", "/handoff", params=params, silence_s_max=ANSWER_TIMEOUT_S) as response:
            await _read(response)

    async def create_session(self, wanted: NewSession) -> SessionView:
        """Open a conversation."""
        return await self._call(SESSION, "POST", "/sessions", wanted)

    async def sessions(self) -> list[SessionView]:
        """All conversations."""
        return await self._call(SESSIONS, "GET", "/sessions")

    async def session(self, session_id: SessionId) -> SessionView:
        """One conversation."""
        return await self._call(SESSION, "GET", f"/sessions/{session_id}")

    async def send(self, session_id: SessionId, message: NewMessage) -> MessageView:
        """Hand over a prompt; when this returns it is durable in the VM."""
        return await self._call(MESSAGE, "POST", f"/sessions/{session_id}/messages", message)

    async def interrupt(self, session_id: SessionId, wanted: Interrupt) -> Interrupted:
        """Stop the running turn."""
        path = f"/sessions/{session_id}/interrupt"
        return await self._call(INTERRUPTED, "POST", path, wanted, timeout_s=INTERRUPT_TIMEOUT_S)

    async def answer(self, session_id: SessionId, request_id: RequestId, answer: Answer) -> SessionView:
        """Answer a permission request or a question."""
        return await self._call(SESSION, "POST", f"/sessions/{session_id}/requests/{request_id}", answer)

    @asynccontextmanager
    async def execute(self, wanted: ExecRequest) -> AsyncIterator[AsyncGenerator[ExecFrame, None]]:
        """Run a command for as long as the block lasts; entered when it runs, which may be long before it writes anything.

        Frames as they come, the last is an ``ExecExit`` or an ``ExecError``; leaving before kills the command. A stream
        that breaks before the last frame raises :class:`VmUnreachable`. A slow reader slows the command down.
        """
        async with (
            self._open("POST", "/exec", wanted, silence_s_max=wanted.timeout_s + GRACE_S) as response,
            aclosing(_exec_frames(response)) as frames,
        ):
            yield frames

    async def events(self, after: int, *, copy: bool = False) -> AsyncGenerator[Event, None]:
        """The journal from ``after`` on, then what happens, until the daemon ends it; then resume from the last ``seq``.

        The daemon ends it when it stops, and when this reader is too slow. ``copy``: nobody looks on, so it keeps no VM awake.
        """
        params = {"after": str(after), **({"copy": "1"} if copy else {})}
        async with (
            self._open("GET", "/events", params=params, silence_s_max=SILENCE_S_MAX) as response,
            aclosing(_event_data(response)) as found,
        ):
            async for data in found:
                yield _parse(EVENT, data)

    async def _call(
        self,
        answer: TypeAdapter[T],
        method: str,
        path: str,
        body: BaseModel | AsyncIterable[bytes] | None = None,
        *,
        timeout_s: float = ANSWER_TIMEOUT_S,
        params: Mapping[str, str] | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> T:
        try:
            async with (
                asyncio.timeout(timeout_s),  # the pool's limits are per read, and a VM may drip
                self._open(method, path, body, silence_s_max=timeout_s, params=params, headers=headers) as response,
            ):
                content = await _read(response)
        except TimeoutError as exc:
            raise VmUnreachable(f"The workspace's VM did not answer within {timeout_s:g} s. Try again.") from exc
        return _parse(answer, content)

    @asynccontextmanager
    async def _open(
        self,
        method: str,
        path: str,
        body: BaseModel | AsyncIterable[bytes] | None = None,
        *,
        silence_s_max: float,
        params: Mapping[str, str] | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> AsyncIterator[HttpAnswer]:
        """A response that is no refusal, its body not read yet; closed with the block, however that is left."""
        try:
            async with self._http.request(
                method,
                self._base + path,
                params=params,
                content=to_json(revealed(body)) if isinstance(body, BaseModel) else body,
                headers={
                    **self._headers,
                    **(self._generation if headers is None else headers),
                    **_media_type(body),
                    **outgoing_headers(),
                },
                silence_s_max=silence_s_max,
            ) as response:
                if not 200 <= response.status < 300:
                    raise _refusal(response, await _read(response))
                yield response
        except Broken as exc:
            raise VmUnreachable from exc


def _parameters(wanted: BaseModel) -> dict[str, str]:
    return {name: str(value) for name, value in dump(wanted).items()}


def _media_type(body: object) -> dict[str, str]:
    if body is None:
        return {}
    return {"Content-Type": "application/json" if isinstance(body, BaseModel) else "application/octet-stream"}


_NEWER: Mapping[type[BaseModel], frozenset[str]] = {Bind: frozenset({"location", "epoch", "handoff_id"})}
"""Members that daemons of an older image refuse: not sent while they say what those take for granted."""


def revealed(value: Any) -> Any:
    """``value`` as it goes over the wire: models as dictionaries, secrets in clear (pydantic's own dump masks them)."""
    match value:
        case BaseModel():
            fields = type(value).model_fields
            silent = {name for name in _NEWER.get(type(value), ()) if getattr(value, name) == fields[name].default}
            return {name: revealed(getattr(value, name)) for name in fields if name not in silent}
        case SecretStr():
            return value.get_secret_value()
        case dict():
            return {key: revealed(item) for key, item in value.items()}
        case list() | tuple():
            return [revealed(item) for item in value]
        case _:
            return value


def _refusal(response: HttpAnswer, content: bytes) -> FFError:
    """The error that a refusing response stands for."""
    if response.status == 401:
        # Only this VM's daemon knows its token: the VM is gone, and its address belongs to another one by now.
        log.warning("daemon.token_refused", url=response.url)
        return VmUnreachable()
    try:
        problem = Problem.model_validate_json(content)
        return RemoteProblem(problem.model_copy(update={"status": response.status}))
    except ValidationError:
        log.warning("daemon.no_problem_document", url=response.url, status=response.status)
        return VmMisbehaved()


async def _read(response: HttpAnswer) -> bytes:
    content = bytearray()
    while chunk := await response.some():
        content += chunk
        if len(content) > RESPONSE_BYTES_MAX:
            raise VmMisbehaved
    return bytes(content)


async def _pieces(response: HttpAnswer) -> AsyncGenerator[bytes, None]:
    try:
        while chunk := await response.some():
            yield chunk
    except Broken as exc:
        raise VmUnreachable from exc


async def _exec_frames(response: HttpAnswer) -> AsyncGenerator[ExecFrame, None]:
    try:
        async with aclosing(_lines(response)) as lines:
            async for line in lines:
                frame = _parse(EXEC_FRAME, line)
                yield frame
                if isinstance(frame, ExecExit | ExecError):
                    await _hear_out(lines)
                    return
    except Broken as exc:
        raise VmUnreachable from exc
    raise VmUnreachable("The connection to the workspace's VM broke before the command ended.")


async def _hear_out(lines: AsyncGenerator[bytes, None]) -> None:
    """Wait a moment for the end of a body that has said all: only then its connection serves again."""
    with suppress(TimeoutError, Broken, VmMisbehaved):
        async with asyncio.timeout(FAREWELL_S):
            await anext(lines, None)


async def _lines(response: HttpAnswer) -> AsyncGenerator[bytes, None]:
    """The complete lines of a body."""
    rest = b""
    while chunk := await response.some():
        *lines, rest = (rest + chunk).split(b"\n")
        for line in lines:
            yield line
        if len(rest) > FRAME_BYTES_MAX:
            raise VmMisbehaved


async def _event_data(response: HttpAnswer) -> AsyncGenerator[bytes, None]:
    """The data of each server-sent event; what else an event has is in the data too. One that does not end is dropped."""
    data: list[bytes] = []
    size = 0
    async with aclosing(_lines(response)) as lines:
        async for line in lines:
            name, _, value = line.removesuffix(b"\r").partition(b":")
            if name == b"data":
                data.append(value.removeprefix(b" "))
                size += len(value)
                if size > EVENT_BYTES_MAX:
                    raise VmMisbehaved
            elif not name and not value and data:
                yield b"\n".join(data)
                data, size = [], 0


def _parse(expected: TypeAdapter[T], content: bytes | str) -> T:
    try:
        return expected.validate_json(content)
    except ValidationError as exc:
        raise VmMisbehaved from exc
