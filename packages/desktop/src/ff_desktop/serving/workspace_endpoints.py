"""Workspaces over HTTP, as at the server: made, looked at, followed, worked in, removed."""

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from ff_core.contract.execution import MEDIA_TYPE, ExecRequest
from ff_core.contract.local import NewLocalWorkspace
from ff_core.host import Host
from ff_core.ids import OperationId, WorkspaceId
from ff_desktop.serving.http import EVENTS, Stream, cursor, flag, identity, key, read, say, say_all

REMOVAL_WAIT_S = 10.0
"""Most removals have ended by then; of others it is said that they go on."""


class WorkspaceEndpoints:
    """One method for each route."""

    def __init__(self, host: Host) -> None:
        self._host = host

    def routes(self) -> list[Route]:
        """Which address is which method."""
        workspace = "/v1/workspaces/{workspace:uuid}"
        return [
            Route("/v1/workspaces", self.page, methods=["GET"]),
            Route("/v1/workspaces", self.create, methods=["POST"]),
            Route(workspace, self.get, methods=["GET"]),
            Route(workspace, self.delete, methods=["DELETE"]),
            Route(f"{workspace}/repository", self.repository, methods=["GET"]),
            Route(f"{workspace}/events", self.events, methods=["GET"]),
            Route(f"{workspace}/exec", self.execute, methods=["POST"]),
            Route("/v1/operations/{operation:uuid}", self.operation, methods=["GET"]),
        ]

    async def page(self, request: Request) -> Response:
        """Those that are not archived, newest first; ``name`` finds those of exactly that name."""
        return say_all(self._host.list_workspaces(name=request.query_params.get("name")))

    async def create(self, request: Request) -> Response:
        """Begin to make one; follow its events to READY or FAILED."""
        wanted = await read(request, NewLocalWorkspace)
        workspace_id = WorkspaceId(key(request) or self._host.world.new_id())
        return say(await self._host.create(workspace_id, wanted), 201)

    async def get(self, request: Request) -> Response:
        """One as it stands."""
        return say(self._host.workspace(_workspace(request)))

    async def delete(self, request: Request) -> Response:
        """Remove it with its worktree; ``force=true`` also with work that is nowhere else."""
        removal = await self._host.remove(_workspace(request), force=flag(request, "force"), wait_s=REMOVAL_WAIT_S)
        return say(removal, 202)

    async def operation(self, request: Request) -> Response:
        """How a removal goes."""
        return say(self._host.operation(OperationId(identity(request, "operation"))))

    async def repository(self, request: Request) -> Response:
        """The checkout as git sees it."""
        return say(await self._host.repository(_workspace(request)))

    async def events(self, request: Request) -> Response:
        """The journal after a cursor, then live."""
        return Stream(self._host.follow(_workspace(request), cursor(request)), EVENTS)

    async def execute(self, request: Request) -> Response:
        """Run a command; going away ends it."""
        wanted = await read(request, ExecRequest)
        return Stream(self._host.execute(_workspace(request), wanted), MEDIA_TYPE)


def _workspace(request: Request) -> WorkspaceId:
    return WorkspaceId(identity(request, "workspace"))
