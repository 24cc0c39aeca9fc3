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
DAEMON = "daemon"
"""The steps that make a VM's container and wait for its daemon, in every operation that has them."""
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
        """Wait until the daemon answers. Raises ``StartOver`` when its container has ended, or is silent and was stopped."""
        for _ in range(round(DAEMON_TIMEOUT_S / LOOK_S)):
            try:
                return await self._daemons.client(vm).wait_healthy(timeout_s=LOOK_S)
            except VmUnreachable:
                await self.require(vm)
        await self._engine.stop(vm.id)
        silent = f"The workspace's VM did not answer within {DAEMON_TIMEOUT_S:g} s of its start. Try again."
        raise StartOver(CONTAINER, VmUnreachable.code, silent)

    @asynccontextmanager
    async def under(self, vm: AnyVm) -> AsyncIterator[None]:
        """Talk to the daemon, or about its container, in the block. Raises ``StartOver`` when it has ended, or falls silent."""
        try:
            yield
        except ContainerMissing:
            await self.require(vm)
            raise
        except VmUnreachable as error:
            await self.require(vm)
            raise StartOver(DAEMON, error.code, error.detail) from error

    async def require(self, vm: AnyVm) -> None:
        """Raise ``StartOver`` when the container has ended."""
        if not await self.stands(vm):
            raise StartOver(CONTAINER, "vm_stopped", "The workspace's VM stopped while it was being prepared. Try again.")

    async def stands(self, vm: AnyVm) -> bool:
        """Whether the container runs, answering or not."""
        return runs(vm, await self._engine.observe(vm.id))
