"""Handoffs over HTTP."""

from collections.abc import Callable
from typing import TYPE_CHECKING
from uuid import UUID

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from ff_core.contract.local import BeginHandoff, PlanHandoff
from ff_core.contract.page import PAGE_ITEMS_DEFAULT, PAGE_ITEMS_MAX
from ff_core.errors import InvalidInput
from ff_core.ids import HandoffId
from ff_desktop.serving.http import flag, identity, read, say

if TYPE_CHECKING:
    from ff_desktop.handoffs.service import DesktopHandoffs


class HandoffEndpoints:
    """One method for each route."""

    def __init__(self, handoffs: Callable[[], "DesktopHandoffs"]) -> None:
        self._handoffs = handoffs

    def routes(self) -> list[Route]:
        """Which address is which method."""
        one = "/v1/handoffs/{handoff:uuid}"
        return [
            Route("/v1/handoffs/plan", self.plan, methods=["POST"]),
            Route("/v1/handoffs", self.begin, methods=["POST"]),
            Route("/v1/handoffs", self.page, methods=["GET"]),
            Route(one, self.get, methods=["GET"]),
            Route(f"{one}/abort", self.abort, methods=["POST"]),
            Route(f"{one}/resume", self.resume, methods=["POST"]),
        ]

    async def plan(self, request: Request) -> Response:
        """What would a send take along?"""
        return say(await self._handoffs().plan(await read(request, PlanHandoff)))

    async def begin(self, request: Request) -> Response:
        """Begin one, or find it as it stands."""
        return say(await self._handoffs().begin(await read(request, BeginHandoff)), 201)

    async def page(self, request: Request) -> Response:
        """The newest first."""
        before, limit = request.query_params.get("cursor"), request.query_params.get("limit", str(PAGE_ITEMS_DEFAULT))
        if not limit.isdigit() or not 1 <= int(limit) <= PAGE_ITEMS_MAX:
            raise InvalidInput(f"limit must be a number from 1 to {PAGE_ITEMS_MAX}.")
        try:
            after = None if before is None else HandoffId(UUID(before))
        except ValueError as error:
            raise InvalidInput("The cursor is none of ours.") from error
        return say(self._handoffs().page(open_only=flag(request, "open"), before=after, limit=int(limit)))

    async def get(self, request: Request) -> Response:
        """One as it stands."""
        return say(self._handoffs().get(_handoff(request)))

    async def abort(self, request: Request) -> Response:
        """Undo one that is not decided yet."""
        return say(self._handoffs().abort(_handoff(request)), 202)

    async def resume(self, request: Request) -> Response:
        """Try one that stopped again now."""
        return say(self._handoffs().resume(_handoff(request)), 202)


def _handoff(request: Request) -> HandoffId:
    return HandoffId(identity(request, "handoff"))
