"""Sessions over HTTP, as at the server."""

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from ff_core.contract.session import Answer, Interrupt, NewMessage, NewSession
from ff_core.host import Host
from ff_core.ids import MessageId, RequestId, SessionId, WorkspaceId
from ff_desktop.serving.http import identity, key, read, say, say_all


class SessionEndpoints:
    """One method for each route."""

    def __init__(self, host: Host) -> None:
        self._host = host

    def routes(self) -> list[Route]:
        """Which address is which method."""
        of_workspace, session = "/v1/workspaces/{workspace:uuid}/sessions", "/v1/sessions/{session:uuid}"
        return [
            Route(of_workspace, self.page, methods=["GET"]),
            Route(of_workspace, self.create, methods=["POST"]),
            Route(session, self.get, methods=["GET"]),
            Route(f"{session}/messages", self.send, methods=["POST"]),
            Route(f"{session}/interrupt", self.interrupt, methods=["POST"]),
            Route(f"{session}/permissions/{{request:uuid}}", self.answer, methods=["POST"]),
        ]

    async def page(self, request: Request) -> Response:
        """All conversations of a workspace."""
        return say_all(self._host.list_sessions(WorkspaceId(identity(request, "workspace"))))

    async def create(self, request: Request) -> Response:
        """Open a conversation."""
        wanted = await read(request, NewSession)
        named = key(request)
        if wanted.id is None and named is not None:
            wanted = wanted.model_copy(update={"id": SessionId(named)})
        return say(await self._host.open_session(WorkspaceId(identity(request, "workspace")), wanted), 201)

    async def get(self, request: Request) -> Response:
        """One as it stands, with what it waits for."""
        return say(self._host.sessions.get(_session(request)))

    async def send(self, request: Request) -> Response:
        """Take a prompt; it is durable when this answers."""
        wanted = await read(request, NewMessage)
        named = key(request)
        if wanted.id is None and named is not None:
            wanted = wanted.model_copy(update={"id": MessageId(named)})
        self._host.require_alive(_session(request))
        self._host.expect_agents()
        return say(await self._host.sessions.send(_session(request), wanted), 202)

    async def interrupt(self, request: Request) -> Response:
        """Stop the turn; harmless when there is none."""
        return say(await self._host.sessions.interrupt(_session(request), await read(request, Interrupt)))

    async def answer(self, request: Request) -> Response:
        """Answer what the agent asked."""
        wanted = await read(request, Answer)
        asked = RequestId(identity(request, "request"))
        return say(await self._host.sessions.answer(_session(request), asked, wanted))


def _session(request: Request) -> SessionId:
    return SessionId(identity(request, "session"))
