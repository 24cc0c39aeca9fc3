"""An engine in memory, held to the same suite as Docker, and with a bad character when asked."""

import asyncio
import contextlib
import ipaddress
import itertools
from collections.abc import AsyncGenerator
from dataclasses import dataclass, replace
from typing import Literal

from ff_cloud.vms.engine.base import ContainerSeen, Endpoint, EngineEvent, EngineReport, Limits, Observed, VmSpec
from ff_cloud.vms.engine.errors import ContainerMissing, StaleFence
from ff_cloud.vms.errors import ImageMissing
from ff_core.contract.daemon import PORT
from ff_core.errors import FFError
from ff_core.ids import VmId
from ff_core.world import SystemWorld, World

EVENTS_MAX = 1000


@dataclass
class _Vm:
    container: ContainerSeen | None = None
    limits: Limits | None = None


class FakeEngine:
    """See :class:`~ff_cloud.vms.engine.base.Engine`. Addresses lead nowhere unless ``endpoint`` gives one that does."""

    def __init__(self, *images: str, endpoint: tuple[str, int] | None = None, world: World | None = None) -> None:
        self.images = set(images)
        self.calls: list[str] = []
        """Every method called, by name, in order."""
        self._endpoint = endpoint
        self._world = world or SystemWorld()
        self._vms: dict[VmId, _Vm] = {}
        self._count = itertools.count(1)
        self._failures: dict[str, list[FFError]] = {}
        self._listeners: set[asyncio.Queue[EngineEvent]] = set()

    def misbehave(self, method: str, *errors: FFError) -> None:
        """Let the next calls of ``method`` raise these, one each."""
        self._failures.setdefault(method, []).extend(errors)

    def lose(self, vm_id: VmId, *, exit_code: int = 137, oom: bool = False) -> None:
        """Let the container of ``vm_id`` die by itself."""
        self._end(vm_id, exit_code, oom=oom)

    def limits_of(self, vm_id: VmId) -> Limits | None:
        """What the VM may use now."""
        return self._vms[vm_id].limits if vm_id in self._vms else None

    async def ensure(self, spec: VmSpec) -> Endpoint:
        """See the protocol."""
        await self._enter("ensure")
        if spec.image not in self.images:
            raise ImageMissing
        vm = self._vms.setdefault(spec.vm_id, _Vm())
        seen = vm.container
        if seen is not None and (seen.fence > spec.fence or seen.generation > spec.generation):
            raise StaleFence
        if seen is not None and seen.generation < spec.generation:
            self._end(spec.vm_id, 137)
            self._tell(spec.vm_id, "destroy")
            seen = None
        if seen is None:
            name = f"{next(self._count):064x}"
            vm.container = ContainerSeen(name, "created", None, spec.generation, spec.fence, None, False, None, spec.image)
            vm.limits = spec.limits
        return self._run(spec.vm_id)

    async def observe(self, vm_id: VmId) -> Observed:
        """See the protocol."""
        await self._enter("observe")
        vm = self._vms.get(vm_id)
        return Observed(vm_id, vm.container if vm else None, vm is not None)

    async def observe_all(self) -> list[Observed]:
        """See the protocol."""
        await self._enter("observe_all")
        return [Observed(vm_id, vm.container, volume=True) for vm_id, vm in self._vms.items()]

    async def stop(self, vm_id: VmId) -> None:
        """See the protocol."""
        await self._enter("stop")
        self._end(vm_id, 143)

    async def start(self, vm_id: VmId) -> Endpoint:
        """See the protocol."""
        await self._enter("start")
        return self._run(vm_id)

    async def update_limits(self, vm_id: VmId, limits: Limits) -> None:
        """See the protocol."""
        await self._enter("update_limits")
        vm = self._vms.get(vm_id)
        if vm is None or vm.container is None:
            raise ContainerMissing
        vm.limits = limits

    async def remove(self, vm_id: VmId) -> None:
        """See the protocol."""
        await self._enter("remove")
        self._end(vm_id, 137)
        if self._vms.pop(vm_id, None) is not None:
            self._tell(vm_id, "destroy")

    async def events(self) -> AsyncGenerator[EngineEvent, None]:
        """See the protocol."""
        await self._enter("events")
        mine: asyncio.Queue[EngineEvent] = asyncio.Queue(EVENTS_MAX)
        self._listeners.add(mine)
        try:
            while True:
                yield await mine.get()
        finally:
            self._listeners.discard(mine)

    async def check(self, image: str) -> EngineReport:
        """See the protocol."""
        await self._enter("check")
        return EngineReport("fake", "0", image in self.images, "fake", network_ready=True)

    async def _enter(self, method: str) -> None:
        self.calls.append(method)
        await asyncio.sleep(0)
        if self._failures.get(method):
            raise self._failures[method].pop(0)

    def _run(self, vm_id: VmId) -> Endpoint:
        vm = self._vms.get(vm_id)
        if vm is None or vm.container is None:
            raise ContainerMissing
        if vm.container.address is None:
            address = self._endpoint[0] if self._endpoint else str(ipaddress.IPv4Address("192.0.2.0") + next(self._count) % 255)
            now = self._world.now()
            vm.container = replace(
                vm.container, state="running", address=address, started_at=now, exit_code=None, oom_killed=False
            )
            self._tell(vm_id, "start")
        assert vm.container.address is not None  # noqa: S101  (a running one has one)
        return Endpoint(vm.container.id, vm.container.address, self._endpoint[1] if self._endpoint else PORT)

    def _end(self, vm_id: VmId, exit_code: int, *, oom: bool = False) -> None:
        vm = self._vms.get(vm_id)
        if vm is None or vm.container is None or vm.container.state != "running":
            return
        vm.container = replace(vm.container, state="exited", address=None, exit_code=exit_code, oom_killed=oom)
        if oom:
            self._tell(vm_id, "oom")
        self._tell(vm_id, "die")

    def _tell(self, vm_id: VmId, kind: Literal["start", "oom", "die", "destroy"]) -> None:
        for listener in self._listeners:
            with contextlib.suppress(asyncio.QueueFull):  # events may be missed
                listener.put_nowait(EngineEvent(vm_id, kind))
