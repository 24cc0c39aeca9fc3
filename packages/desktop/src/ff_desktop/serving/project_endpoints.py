"""Projects over HTTP."""

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from ff_core.contract.local import NewProject
from ff_core.host import Host
from ff_core.ids import ProjectId
from ff_desktop.serving.http import identity, read, say, say_all


class ProjectEndpoints:
    """One method for each route."""

    def __init__(self, host: Host) -> None:
        self._host = host

    def routes(self) -> list[Route]:
        """Which address is which method."""
        return [
            Route("/v1/projects", self.page, methods=["GET"]),
            Route("/v1/projects", self.add, methods=["POST"]),
            Route("/v1/projects/{project:uuid}", self.remove, methods=["DELETE"]),
        ]

    async def page(self, _request: Request) -> Response:
        """All of them."""
        return say_all(self._host.list_projects())

    async def add(self, request: Request) -> Response:
        """Know a repository; the same one again is the same project."""
        return say(await self._host.add_project(await read(request, NewProject)), 201)

    async def remove(self, request: Request) -> Response:
        """Forget a project."""
        self._host.remove_project(ProjectId(identity(request, "project")))
        return Response(status_code=204)
