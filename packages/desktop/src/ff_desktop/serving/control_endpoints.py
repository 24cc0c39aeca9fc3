"""``ff serve`` itself: that it is there, and its end."""

import os
from collections.abc import Callable

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from ff_core.contract.local import LocalHealth, StopServing
from ff_core.host import Host
from ff_desktop import __version__
from ff_desktop.errors import ServeBusy
from ff_desktop.serving.http import read, say


class ControlEndpoints:
    """``stop`` has the process end, soon and in order."""

    def __init__(self, host: Host, stop: Callable[[], None]) -> None:
        self._host, self._stop = host, stop
        self._started_at = host.world.now()

    def routes(self) -> list[Route]:
        """Which address is which method."""
        return [Route("/v1/health", self.health, methods=["GET"]), Route("/v1/stop", self.stop, methods=["POST"])]

    async def health(self, _request: Request) -> Response:
        """It lives."""
        return say(self._health())

    async def stop(self, request: Request) -> Response:
        """End. Between the look whether something runs and the end nothing new begins."""
        wanted = await read(request, StopServing)
        if wanted.only_idle and self._host.busy:
            raise ServeBusy
        self._host.gate.close()
        self._stop()
        return say(self._health())

    def _health(self) -> LocalHealth:
        return LocalHealth(version=__version__, pid=os.getpid(), started_at=self._started_at, busy=self._host.busy)
