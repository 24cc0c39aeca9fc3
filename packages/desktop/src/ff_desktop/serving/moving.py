"""Handoffs in ``ff serve``: made, with all they import, when one is asked for, or when there is one to go on with."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from functools import cached_property
from typing import TYPE_CHECKING

from starlette.routing import Route

from ff_core.host import Host
from ff_desktop.connection import Connection
from ff_desktop.serving.handoff_endpoints import HandoffEndpoints

if TYPE_CHECKING:
    from ff_desktop.handoffs.service import DesktopHandoffs

Connect = Callable[[], AbstractContextManager[Connection]]
"""See ``ff_desktop.handoffs.trip.Connect``."""


class Moving:
    """Of one host. Call :meth:`recover` once before anything else, :meth:`close` at the end."""

    def __init__(self, host: Host, connect: Connect) -> None:
        self._host, self._connect = host, connect

    def routes(self) -> list[Route]:
        """Their addresses."""
        return HandoffEndpoints(lambda: self._handoffs).routes()

    def recover(self) -> None:
        """Go on with what a process that ended has left."""
        from ff_core.handoff.repository import any_left  # noqa: PLC0415  (see the module)

        if any_left(self._host.store):
            _ = self._handoffs

    async def close(self) -> None:
        """Stop where it is. May be repeated."""
        if "_handoffs" in self.__dict__:
            await self._handoffs.close()

    @cached_property
    def _handoffs(self) -> "DesktopHandoffs":
        from ff_desktop.handoffs.setup import handoffs_of  # noqa: PLC0415  (see the module)

        made = handoffs_of(self._host, self._connect)
        made.recover()
        return made
