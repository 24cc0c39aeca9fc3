"""The daemon's endpoints: read the request, call the engine, say the answer."""

import time
from uuid import UUID

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from ff_core.contract.daemon import Bind, Health, PrepareRepository
from ff_core.contract.execution import MEDIA_TYPE, ExecRequest
from ff_core.contract.session import Answer, Interrupt, NewMessage, NewSession
from ff_core.daemon.bodies import cursor, read, say
from ff_core.daemon.errors import NotBound
from ff_core.daemon.execution import Execution
from ff_core.daemon.following import HEARTBEAT_S, frames
from ff_core.daemon.settings import DaemonSettings
from ff_core.engine import Engine
from ff_core.ids import RequestId, SessionId, WorkspaceId
from ff_core.settings import VERSION
from ff_core.streaming import Stream


class Endpoints:
    """One method for each route. All but ``health`` and ``bind`` need a bound daemon."""

    def __init__(
        self, engine: Engine, execution: Execution, settings: DaemonSettings, *, heartbeat_s: float = HEARTBEAT_S
    ) -> None:
        self._engine = engine
        self._execution = execution
        self._settings = settings
        self._heartbeat_s = heartbeat_s
        self._started_s = time.monotonic()

    def routes(self) -> list[Route]:
        """Which address is which method."""
        session = "/v1/sessions/{session_id:uuid}"
        return [
            Route("/v1/health", self.health, methods=["GET"]),
            Route("/v1/bind", self.bind, methods=["POST"]),
            Route("/v1/repository", self.prepare, methods=["PUT"]),
            Route("/v1/repository", self.repository, methods=["GET"]),
            Route("/v1/sessions", self.create_session, methods=["POST"]),
            Route("/v1/sessions", self.list_sessions, methods=["GET"]),
            Route(session, self.get_session, methods=["GET"]),
            Route(f"{session}/messages", self.send, methods=["POST"]),
            Route(f"{session}/interrupt", self.interrupt, methods=["POST"]),
            Route(f"{session}/requests/{{request_id:uuid}}", self.answer, methods=["POST"]),
            Route("/v1/exec", self.execute, methods=["POST"]),
            Route("/v1/events", self.events, methods=["GET"]),
        ]

    async def health(self, _request: Request) -> Response:
        """The daemon lives."""
        return say(self._health())

    async def bind(self, request: Request) -> Response:
        """Whose VM this is, and how its agents reach the model."""
        await self._engine.bind(await read(request, Bind))
        return say(self._health())

    async def prepare(self, request: Request) -> Response:
        """Make the checkout; answers when it is there."""
        workspace_id = self._workspace()
        return say(await self._engine.prepare(workspace_id, await read(request, PrepareRepository)))

    async def repository(self, _request: Request) -> Response:
        """The checkout as it stands."""
        return say(await self._engine.workspaces.status(self._workspace()))

    async def create_session(self, request: Request) -> Response:
        """Open a conversation."""
        workspace_id = self._workspace()
        self._engine.workspaces.require_ready(workspace_id)
        return say(await self._engine.sessions.create(workspace_id, await read(request, NewSession)), 201)

    async def list_sessions(self, _request: Request) -> Response:
        """All conversations."""
        views = self._engine.sessions.list(self._workspace())
        return Response(f"[{','.join(view.model_dump_json() for view in views)}]", media_type="application/json")

    async def get_session(self, request: Request) -> Response:
        """One conversation."""
        self._workspace()
        return say(self._engine.sessions.get(_session(request)))

    async def send(self, request: Request) -> Response:
        """Take a prompt."""
        self._workspace()
        return say(await self._engine.sessions.send(_session(request), await read(request, NewMessage)), 202)

    async def interrupt(self, request: Request) -> Response:
        """Stop the turn."""
        self._workspace()
        return say(await self._engine.sessions.interrupt(_session(request), await read(request, Interrupt)))

    async def answer(self, request: Request) -> Response:
        """Answer what the agent asked."""
        self._workspace()
        request_id = RequestId(_uuid(request, "request_id"))
        return say(await self._engine.sessions.answer(_session(request), request_id, await read(request, Answer)))

    async def execute(self, request: Request) -> Response:
        """Run a command."""
        self._workspace()
        return Stream(self._execution.run(await read(request, ExecRequest)), MEDIA_TYPE)

    async def events(self, request: Request) -> Response:
        """Follow the journal."""
        follower = self._engine.journal.follow(self._workspace(), cursor(request))
        return Stream(frames(follower, self._heartbeat_s), "text/event-stream")

    def _workspace(self) -> WorkspaceId:
        workspace = self._engine.workspaces.current() if self._engine.bound else None
        if workspace is None:
            raise NotBound
        return workspace.id

    def _health(self) -> Health:
        workspace_id, seq = self._engine.last_seq()
        return Health(
            vm_id=self._settings.vm_id,
            generation=self._settings.generation,
            version=VERSION,
            uptime_s=round(time.monotonic() - self._started_s, 3),
            bound=self._engine.bound,
            workspace_id=workspace_id,
            journal_seq=seq,
            working=self._engine.sessions.working(),
            use=self._engine.use(),
        )


def _uuid(request: Request, name: str) -> UUID:
    value = request.path_params[name]
    assert isinstance(value, UUID)  # noqa: S101  (the route's convertor made it)
    return value


def _session(request: Request) -> SessionId:
    return SessionId(_uuid(request, "session_id"))
