"""What a VM is asked once it works, or to be made ready for that: its checkout, sessions, journal and checkpoints.

All of this is imported with the first request for any of it: a VM listens, is bound and runs its first command before that.
"""

import asyncio
from uuid import UUID

from ff_core.contract.checkpoint import MEDIA_TYPE as CHECKPOINT
from ff_core.contract.checkpoint import CheckpointRequest, RestoreRequest
from ff_core.contract.daemon import COPY_PARAMETER, PrepareRepository, Rest
from ff_core.contract.session import Answer, Interrupt, NewMessage, NewSession
from ff_core.daemon.bodies import cursor, parameters, read, say
from ff_core.daemon.endpoints import Endpoints, require_bound
from ff_core.daemon.errors import NotBound
from ff_core.daemon.http import Reply, Request, Response, Route, Stream
from ff_core.daemon.probing import probe
from ff_core.engine import Engine
from ff_core.ids import RequestId, SessionId
from ff_core.store.following import HEARTBEAT_S, frames


class WorkEndpoints:
    """One method for each route; see :class:`ff_core.daemon.endpoints.Endpoints`."""

    def __init__(self, engine: Engine, vm: Endpoints, *, heartbeat_s: float = HEARTBEAT_S) -> None:
        self._engine = engine
        self._vm = vm
        self._gate = engine.gate
        self._heartbeat_s = heartbeat_s
        self._ready = False

    def routes(self) -> list[Route]:
        """Which address is which method."""
        session = "/v1/sessions/{session_id:uuid}"
        return [
            Route("/v1/probe", self.probe, methods=["POST"]),
            Route("/v1/rest", self.rest, methods=["POST"]),
            Route("/v1/rest", self.end_rest, methods=["DELETE"]),
            Route("/v1/repository/seed", self.seed, methods=["PUT"]),
            Route("/v1/repository", self.prepare, methods=["PUT"]),
            Route("/v1/repository", self.repository, methods=["GET"]),
            Route("/v1/sessions", self.create_session, methods=["POST"]),
            Route("/v1/sessions", self.list_sessions, methods=["GET"]),
            Route(session, self.get_session, methods=["GET"]),
            Route(f"{session}/messages", self.send, methods=["POST"]),
            Route(f"{session}/interrupt", self.interrupt, methods=["POST"]),
            Route(f"{session}/requests/{{request_id:uuid}}", self.answer, methods=["POST"]),
            Route("/v1/events", self.events, methods=["GET"]),
            Route("/v1/checkpoint", self.checkpoint, methods=["POST"]),
            Route("/v1/restore", self.restore, methods=["PUT"]),
        ]

    async def probe(self, _request: Request) -> Response:
        """All that an agent works with is there. Whoever is asked this is to be warm, so it gets ready for its first day."""
        found = await probe(self._engine.settings)
        if not self._ready:
            await asyncio.to_thread(_get_ready)
            self._ready = True
        return say(found)

    async def rest(self, request: Request) -> Response:
        """Take nothing new."""
        self._engine.rest(await read(request, Rest))
        return self._vm.condition()

    async def end_rest(self, _request: Request) -> Response:
        """Take work again."""
        await self._engine.end_rest()
        return self._vm.condition()

    async def prepare(self, request: Request) -> Response:
        """Make the checkout; answers when it is there."""
        workspace_id = require_bound(self._engine)
        wanted = await read(request, PrepareRepository)
        with self._gate.request():
            return say(await self._engine.prepare(workspace_id, wanted))

    async def seed(self, request: Request) -> Response:
        """Something for the checkout to start from. Whatever is wrong with it, the checkout can be made without."""
        require_bound(self._engine)
        with self._gate.request():
            return say(await self._engine.workspaces.take_seed(request.stream()))

    async def repository(self, _request: Request) -> Response:
        """The checkout as it stands."""
        workspace_id = require_bound(self._engine)
        self._gate.touch()
        return say(await self._engine.workspaces.status(workspace_id))

    async def create_session(self, request: Request) -> Response:
        """Open a conversation."""
        workspace_id = require_bound(self._engine)
        self._engine.workspaces.require_ready(workspace_id)
        wanted = await read(request, NewSession)
        self._engine.expect_agents()
        with self._gate.request():
            return say(await self._engine.sessions.create(workspace_id, wanted), 201)

    async def list_sessions(self, _request: Request) -> Response:
        """All conversations."""
        workspace_id = require_bound(self._engine)
        self._gate.touch()
        views = self._engine.sessions.list(workspace_id)
        return Response(f"[{','.join(view.model_dump_json() for view in views)}]", media_type="application/json")

    async def get_session(self, request: Request) -> Response:
        """One conversation."""
        require_bound(self._engine)
        self._gate.touch()
        return say(self._engine.sessions.get(_session(request)))

    async def send(self, request: Request) -> Response:
        """Take a prompt."""
        require_bound(self._engine)
        wanted = await read(request, NewMessage)
        with self._gate.request():
            return say(await self._engine.sessions.send(_session(request), wanted), 202)

    async def interrupt(self, request: Request) -> Response:
        """Stop the turn."""
        require_bound(self._engine)
        wanted = await read(request, Interrupt)
        with self._gate.request():
            return say(await self._engine.sessions.interrupt(_session(request), wanted))

    async def answer(self, request: Request) -> Response:
        """Answer what the agent asked."""
        require_bound(self._engine)
        wanted = await read(request, Answer)
        request_id = RequestId(_uuid(request, "request_id"))
        with self._gate.request():
            return say(await self._engine.sessions.answer(_session(request), request_id, wanted))

    async def events(self, request: Request) -> Stream:
        """Follow the journal."""
        follower = self._engine.journal.follow(require_bound(self._engine), cursor(request))
        watching = None if request.query_params.get(COPY_PARAMETER) == "1" else self._gate.follower()
        return Stream(frames(follower, self._heartbeat_s, watching=watching), "text/event-stream")

    async def checkpoint(self, request: Request) -> Reply:
        """Everything, or what changed; 204 when nothing did. Also while it rests, and before it is bound after a restart."""
        current = self._engine.workspaces.current()
        if current is None:
            raise NotBound
        self._engine.workspaces.require_ready(current.id)
        archive = await self._engine.checkpoints.make(await read(request, CheckpointRequest))
        return Response(b"", 204) if archive is None else Stream(archive, CHECKPOINT)

    async def restore(self, request: Request) -> Response:
        """Become what a checkpoint holds. The only call but ``bind`` that an empty machine takes."""
        wanted = parameters(request, RestoreRequest)
        return say(await self._engine.restore(wanted, request.stream()))


def _uuid(request: Request, name: str) -> UUID:
    value = request.path_params[name]
    assert isinstance(value, UUID)  # noqa: S101  (the route's convertor made it)
    return value


def _session(request: Request) -> SessionId:
    return SessionId(_uuid(request, "session_id"))


def _get_ready() -> None:
    from ff_core.daemon.preload import build  # noqa: PLC0415  (it imports us)

    build()
