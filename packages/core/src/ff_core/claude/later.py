"""Importing the rest of this room no earlier than an agent is near: the SDK takes half a second, and half our memory."""

import asyncio
import importlib
from types import ModuleType

BACKEND = "ff_core.claude.backend"


class Later:
    """One per process. The import runs in a thread: what goes on, goes on."""

    def __init__(self) -> None:
        self._importing: asyncio.Task[ModuleType] | None = None

    def expect(self) -> asyncio.Task[ModuleType]:
        """Begin, since an agent is about to be asked for. May be repeated."""
        if self._importing is None:
            self._importing = asyncio.create_task(asyncio.to_thread(importlib.import_module, BACKEND))
        return self._importing

    async def imported(self) -> None:
        """Return when the room can be imported from at once."""
        await asyncio.shield(self.expect())
