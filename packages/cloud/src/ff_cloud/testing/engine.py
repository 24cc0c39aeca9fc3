"""An engine in memory, held to the same suite as Docker, and with a bad character when asked."""

import asyncio
import contextlib
import ipaddress
import itertools
from collections.abc import AsyncGenerator
from dataclasses import dataclass, replace
from typing import Literal

from ff_cloud.vms.engine.base import (
    Capacity,
    ContainerSeen,
    Endpoint,
    EngineEvent,
    EngineReport,
    ImageSeen,
    Limits,
    Observed,
    VmSpec,
)
from ff_cloud.vms.engine.errors import (
    ContainerMissing,
    ImageInUse,
    IsolationBroken,
    RuntimeMissing,
    StaleFence,
    VolumeMissing,
)
from ff_cloud.vms.errors import ImageMissing
from ff_core.contract.daemon import PORT
from ff_core.errors import FFError
from ff_core.ids import VmId
from ff_core.world import SystemWorld, World

EVENTS_MAX = 1000


ROOM = Capacity(
    memory_total_bytes=64 << 30,
    memory_available_bytes=48 << 30,
    cpus=16,
    disk_total_bytes=1 << 40,
    disk_free_bytes=1 << 39,
    containers_max=1000,
    pids=500,
    pids_max=4_000_000,
    disk_quota=True,
)
"""A machine that is not short of anything."""


@dataclass
class _Vm:
    container: ContainerSeen | None = None
    limits: Limits | None = None
    broken: str | None = None


class FakeEngine:
    """See :class:`~ff_cloud.vms.engine.base.Engine`. Addresses lead nowhere unless ``endpoint`` gives one that does."""

    def __init__(
        self,
        *images: str,
        endpoint: tuple[str, int] | None = None,
        world: World | None = None,
        runtimes: tuple[str, ...] = ("runc",),
    ) -> None:
        self.room = ROOM
        """What :meth:`capacity` says; the containers are counted."""
        self.calls: list[str] = []
        """Every method called, by name, in order."""
        self._endpoint = endpoint
        self._world = world or SystemWorld()
        self._runtimes = runtimes
        made_at = self._world.now()
        self._images = {name: ImageSeen(f"sha256:{name}", (name,), made_at, 800_000_000) for name in images}
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

    def lose_container(self, vm_id: VmId) -> None:
        """Let somebody remove the container of ``vm_id``, not its volume."""
        self._drop_container(vm_id)

    def lose_volume(self, vm_id: VmId) -> None:
        """Let somebody remove the container and the volume of ``vm_id``."""
        self._drop_container(vm_id)
        self._vms.pop(vm_id, None)

    def break_isolation(self, vm_id: VmId, why: str) -> None:
        """Let a wall of ``vm_id`` have a hole, until its container is made anew."""
        self._vms[vm_id].broken = why

    def limits_of(self, vm_id: VmId) -> Limits | None:
        """What the VM may use now."""
        return self._vms[vm_id].limits if vm_id in self._vms else None

    async def prepare(self, image: str) -> None:
        """See the protocol."""
        await self._enter("prepare")
        if image not in self._images:
            raise ImageMissing

    async def ensure(self, spec: VmSpec) -> Endpoint:
        """See the protocol."""
        await self._enter("ensure")
        vm = self._vms.get(spec.vm_id)
        seen = vm.container if vm else None
        if seen is not None and (seen.fence > spec.fence or seen.generation > spec.generation):
            raise StaleFence
        if seen is not None and seen.generation < spec.generation:
            self._drop_container(spec.vm_id)
            seen = None
        if vm is None and spec.volume == "existing":
            raise VolumeMissing
        if seen is None:
            if spec.image not in self._images:
                raise ImageMissing
            if spec.runtime is not None and spec.runtime not in self._runtimes:
                raise RuntimeMissing
            vm = self._vms.setdefault(spec.vm_id, _Vm())
            vm.broken = None
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
        grown = max((size for size in (vm.limits and vm.limits.disk_bytes, limits.disk_bytes) if size), default=None)
        vm.limits = replace(limits, disk_bytes=grown)

    async def remove(self, vm_id: VmId) -> None:
        """See the protocol."""
        await self._enter("remove")
        self._drop_container(vm_id)
        self._vms.pop(vm_id, None)

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
        return EngineReport("fake", "0", image in self._images, "fake", network_ready=True)

    async def capacity(self) -> Capacity:
        """See the protocol."""
        await self._enter("capacity")
        running = sum(vm.container is not None and vm.container.running for vm in self._vms.values())
        return replace(self.room, containers=(self.room.containers or 0) + running)

    async def isolation(self, vm_id: VmId) -> None:
        """See the protocol."""
        await self._enter("isolation")
        vm = self._vms.get(vm_id)
        if vm is None or vm.container is None:
            raise ContainerMissing
        if not vm.container.running:
            raise IsolationBroken("The VM does not run, so that its walls can't be looked at. Start it and ask again.")
        if vm.broken is not None:
            raise IsolationBroken(vm.broken)

    async def images(self) -> list[ImageSeen]:
        """See the protocol."""
        await self._enter("images")
        return list(self._images.values())

    async def remove_image(self, image_id: str) -> None:
        """See the protocol."""
        await self._enter("remove_image")
        mine = {tag for image in self._images.values() if image_id in {image.id, *image.tags} for tag in image.tags}
        if any(vm.container is not None and vm.container.image in mine for vm in self._vms.values()):
            raise ImageInUse
        for tag in mine:
            self._images.pop(tag, None)

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

    def _drop_container(self, vm_id: VmId) -> None:
        self._end(vm_id, 137)
        vm = self._vms.get(vm_id)
        if vm is not None and vm.container is not None:
            vm.container = None
            self._tell(vm_id, "destroy")

    def _tell(self, vm_id: VmId, kind: Literal["start", "oom", "die", "destroy"]) -> None:
        for listener in self._listeners:
            with contextlib.suppress(asyncio.QueueFull):  # events may be missed
                listener.put_nowait(EngineEvent(vm_id, kind))
