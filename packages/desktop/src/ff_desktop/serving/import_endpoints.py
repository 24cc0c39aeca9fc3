"""Importing from Factory Factory over HTTP."""

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from ff_core.contract.local import ImportRequest
from ff_core.host import Host
from ff_desktop.serving.http import read, say


class ImportEndpoints:
    """One method for each route."""

    def __init__(self, host: Host) -> None:
        self._host = host

    def routes(self) -> list[Route]:
        """Which address is which method."""
        return [Route("/v1/import", self.run, methods=["POST"])]

    async def run(self, request: Request) -> Response:
        """Say what an import does, or do it. May be repeated, and may take minutes."""
        return say(await self._host.import_from(await read(request, ImportRequest)))
