"""Telling a daemon that is slow from one that can't answer, because its container has ended."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from ff_cloud.operations.errors import StartOver
from ff_cloud.vms.access import Daemons
from ff_cloud.vms.daemon_client import VmUnreachable
from ff_cloud.vms.engine.base import Engine
from ff_cloud.vms.engine.errors import ContainerMissing
from ff_cloud.vms.model import AnyVm
from ff_cloud.vms.plan import runs
from ff_core.contract.daemon import Health

CONTAINER = "container"
"""The step that makes a VM's container, in every operation that has one."""
DAEMON_TIMEOUT_S = 60.0
"""For a daemon to come up."""
DAEMON_STEP_TIMEOUT_S = 120.0
"""The same with the looks at its container in between."""
LOOK_S = 1.0
"""A daemon that has not answered for so long: it is looked whether its container runs."""


class Footing:
    """What steps stand on that talk to a daemon: a container that runs."""

    def __init__(self, engine: Engine, daemons: Daemons) -> None:
        self._engine = engine
        self._daemons = daemons

    async def healthy(self, vm: AnyVm) -> Health:
        """Wait until the daemon answers. Raises ``StartOver`` when its container has ended, else ``VmUnreachable``."""
        for left in reversed(range(round(DAEMON_TIMEOUT_S / LOOK_S))):
            try:
                async with self.under(vm):
                    return await self._daemons.client(vm).wait_healthy(timeout_s=LOOK_S)
            except VmUnreachable:
                if not left:
                    raise
        raise AssertionError  # the last one returned or raised

    @asynccontextmanager
    async def under(self, vm: AnyVm) -> AsyncIterator[None]:
        """Talk to the daemon, or about its container, in the block. Raises ``StartOver`` when that has ended meanwhile."""
        try:
            yield
        except (VmUnreachable, ContainerMissing):
            await self.require(vm)
            raise

    async def require(self, vm: AnyVm) -> None:
        """Raise ``StartOver`` when the container has ended."""
        if not runs(vm, await self._engine.observe(vm.id)):
            raise StartOver(CONTAINER, "The VM stopped while it was being prepared; it is started again.")
