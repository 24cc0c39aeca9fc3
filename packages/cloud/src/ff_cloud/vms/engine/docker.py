"""VMs as Docker containers."""

import asyncio
import re
from collections.abc import AsyncGenerator, AsyncIterator, Iterable, Mapping
from contextlib import aclosing, asynccontextmanager
from dataclasses import replace
from ipaddress import IPv4Address
from pathlib import Path
from typing import Any

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
from ff_cloud.vms.engine.client import DockerClient, docker_client, door, filters
from ff_cloud.vms.engine.errors import ContainerMissing, EngineFailed, ImageInUse, IsolationBroken, StaleFence, VolumeMissing
from ff_cloud.vms.engine.ground import Ground, Net
from ff_cloud.vms.engine.hardening import (
    LABEL_DEPLOYMENT,
    LABEL_VM,
    container_body,
    hole,
    is_direct,
    limits_body,
    name_of,
    network_name_of,
    volume_labels,
)
from ff_cloud.vms.engine.options import EngineOptions
from ff_cloud.vms.engine.reading import Refused, container_seen, endpoint_of, event_of, image_seen, vm_id_of
from ff_cloud.vms.engine.trial import Abilities
from ff_cloud.vms.errors import DockerUnreachable
from ff_cloud.vms.host import capacity, network
from ff_cloud.vms.host.crash import Crash, no_crash
from ff_cloud.vms.host.network import BridgeMissing
from ff_core.errors import InvalidInput
from ff_core.ids import VmId

DEPLOYMENT = re.compile(r"[a-z0-9][a-z0-9-]{0,39}")
IMAGES = "ff-workspace"
"""The repository whose images are ours to list and remove."""

QUESTION_TIMEOUT_S = 15.0
STOP_TIMEOUT_S = 40.0
ENSURE_TIMEOUT_S = 120.0
REMOVE_TIMEOUT_S = 120.0
INSPECTIONS_MAX = 8
RETRY_S = 0.02
"""Between looks while another caller, or Docker itself, is in the middle of the same container."""


@asynccontextmanager
async def docker_engine(
    deployment: str, *, url: str | None = None, options: EngineOptions | None = None, crash: Crash = no_crash
) -> AsyncIterator["DockerEngine"]:
    """The VMs of ``deployment`` on the Docker Engine at ``url``, else DOCKER_HOST, else the local socket.

    Nothing is asked yet, so an engine that is down shows in the first call. Raises ``InvalidInput`` for a name or an
    address that can't be one.
    """
    if DEPLOYMENT.fullmatch(deployment) is None:
        raise InvalidInput(f"{deployment!r} can't name a deployment: use up to 40 of a-z, 0-9 and '-'.")
    async with docker_client(url) as client:
        yield DockerEngine(client, Ground(client, deployment, options or EngineOptions(), crash), crash)


class DockerEngine:
    """See :class:`~ff_cloud.vms.engine.base.Engine`, whose promises are not repeated here; made by :func:`docker_engine`."""

    def __init__(self, client: DockerClient, ground: Ground, crash: Crash) -> None:
        self.deployment = ground.deployment
        self.ground = ground
        """What stands before the first VM, and what this machine can do."""
        self._client = client
        self._crash = crash

    async def prepare(self, image: str) -> None:
        """Also finds out, once, what this machine can do."""
        async with door(ENSURE_TIMEOUT_S):
            await self.ground.prepare(image)

    async def ensure(self, spec: VmSpec) -> Endpoint:
        """Make the container, or adopt it. The name is the meeting point: Docker gives it to one of the racers."""
        started = False
        async with door(ENSURE_TIMEOUT_S):
            await self.ground.keep_rules()
            while True:
                info = await self._inspect(spec.vm_id)
                if info is None:
                    container_id = await self._create(spec)
                    started = container_id is not None and await self._start(container_id)
                    continue
                seen = container_seen(info)
                if seen.fence > spec.fence or seen.generation > spec.generation:
                    raise StaleFence
                if seen.generation < spec.generation or seen.state == "dead":
                    await self._delete_container(seen.id)
                    self._crash("ensure:replaced")
                elif (endpoint := await self._endpoint(info, started=started)) is not None:
                    return endpoint
                else:
                    await self._mount(spec.vm_id)
                    started = await self._start(seen.id)

    async def observe(self, vm_id: VmId) -> Observed:
        """Two questions, one after the other."""
        async with door(QUESTION_TIMEOUT_S):
            info = await self._inspect(vm_id)
            volume = self.ground.left_of_volume(vm_id) or await self._client.find(f"volumes/{self._name(vm_id)}") is not None
            cables = await self._cables([info])
        return Observed(vm_id, _seen(info, cables) if info is not None else None, volume)

    async def observe_all(self) -> list[Observed]:
        """Docker's lists leave out why a container ended, so each one found is inspected, a few at a time."""
        gate = asyncio.Semaphore(INSPECTIONS_MAX)

        async def inspect(container_id: str) -> dict[str, Any] | None:
            async with gate:
                return await self._inspect_id(container_id)

        async with door(QUESTION_TIMEOUT_S * 4):
            listed = await self._containers()
            infos = await asyncio.gather(*(inspect(container["Id"]) for container in listed if LABEL_VM in container["Labels"]))
            kept = {vm_id_of(volume["Labels"]) for volume in await self._volumes()} | self.ground.all_volumes()
            cables = await self._cables(infos)
        containers = {vm_id_of(info["Config"]["Labels"]): _seen(info, cables) for info in infos if info is not None}
        return [Observed(vm_id, containers.get(vm_id), vm_id in kept) for vm_id in containers.keys() | kept if vm_id is not None]

    async def stop(self, vm_id: VmId) -> None:
        """SIGTERM, ten seconds, SIGKILL: by the container's own ``StopTimeout``."""
        async with door(STOP_TIMEOUT_S):
            await self._client.drop("POST", f"containers/{self._name(vm_id)}/stop")

    async def start(self, vm_id: VmId) -> Endpoint:
        """Start it, unless it runs."""
        started = False
        async with door(ENSURE_TIMEOUT_S):
            await self.ground.keep_rules()
            while True:
                info = await self._inspect(vm_id)
                if info is None or container_seen(info).state == "dead":
                    raise ContainerMissing
                if (endpoint := await self._endpoint(info, started=started)) is not None:
                    return endpoint
                await self._mount(vm_id)
                started = await self._start(info["Id"])

    async def update_limits(self, vm_id: VmId, limits: Limits) -> None:
        """Takes effect at once, running or not; the disk of a running VM where the kernel lets us, else at its next start."""
        async with door(QUESTION_TIMEOUT_S):
            path = f"containers/{self._name(vm_id)}"
            if await self._client.find(f"{path}/json") is None:
                raise ContainerMissing
            if limits.disk_bytes is not None and self.ground.has_volume(vm_id):
                await asyncio.to_thread(self.ground.volumes.grow, vm_id, limits.disk_bytes)
            await self._client.ask("POST", f"{path}/update", body=limits_body(limits))

    async def remove(self, vm_id: VmId) -> None:
        """Kill and remove the container, then the volume, which can't go before."""
        async with door(REMOVE_TIMEOUT_S):
            await self._delete_container(self._name(vm_id))
            self._crash("remove:container")
            await self._delete_volume(self._name(vm_id))
            self._crash("remove:volume")
            if self.ground.on_host:
                await asyncio.to_thread(self.ground.volumes.remove, vm_id)

    async def events(self) -> AsyncGenerator[EngineEvent, None]:
        """One long request per iterator."""
        label = f"{LABEL_DEPLOYMENT}={self.deployment}"
        wanted = filters(label=[label], type=["container"], event=["start", "oom", "die", "destroy"])
        async with door(None):
            async with aclosing(self._client.lines("events", params=wanted)) as lines:
                async for line in lines:
                    event = event_of(line)
                    if event is not None:
                        yield event
            raise DockerUnreachable("The Docker Engine closed its stream of events; it is probably restarting. Try again.")

    async def check(self, image: str) -> EngineReport:
        """Three questions."""
        async with door(QUESTION_TIMEOUT_S):
            version = await self._client.ask("GET", "version")
            found = await self._client.find(f"images/{image}/json")
            network = await self.ground.find_network()
        return EngineReport(
            version=version["Version"],
            api_version=version["ApiVersion"],
            image_present=found is not None,
            network=self.ground.options.network or network_name_of(self.deployment),
            network_ready=network is not None,
        )

    async def abilities(self, image: str) -> tuple[Abilities, str | None]:
        """What is used of this machine, and why VMs are not kept from private networks, if they are not; for ``doctor``."""
        async with door(ENSURE_TIMEOUT_S):
            able = await self.ground.prepare(image)
        return able, self.ground.egress_problem

    async def capacity(self) -> Capacity:
        """What Docker says about its machine, and where that is this one, what the kernel says."""
        async with door(QUESTION_TIMEOUT_S):
            info = await self._client.ask("GET", "info")
        running = info["ContainersRunning"]
        told = Capacity(memory_total_bytes=info["MemTotal"], cpus=info["NCPU"], containers=running)
        if self._client.local:
            folders = [Path(info["DockerRootDir"]), self.ground.folder]
            seen = await asyncio.to_thread(capacity.measure, folders)
            told = replace(seen, cpus=told.cpus, containers=running)
        most = capacity.containers_max(running, told.pids, told.pids_max)
        return replace(told, containers_max=most, disk_quota=self.ground.quota)

    async def isolation(self, vm_id: VmId) -> None:
        """Look at the container as Docker shows it, at its network as the kernel does, and at the rules."""
        async with door(QUESTION_TIMEOUT_S):
            info = await self._inspect(vm_id)
            if info is None:
                raise ContainerMissing
            net = await self.ground.network()
            problem = hole(info, net.id)
            if problem is None and is_direct(info) and net.bridge is not None:
                pid = info["State"]["Pid"]
                problem = await asyncio.to_thread(network.hole, net.bridge, info["Id"], pid)
            if problem is None:
                await self.ground.keep_rules(fresh_s=0)
        if problem is not None:
            raise IsolationBroken(f"The VM is not used: {problem}. Remove it; if it stays so, run `ff-cloud doctor`.")

    async def images(self) -> list[ImageSeen]:
        """Those of the repository that ``ff-cloud image build`` writes to."""
        async with door(QUESTION_TIMEOUT_S):
            return [
                image_seen(image) for image in await self._client.ask("GET", "images/json", params=filters(reference=[IMAGES]))
            ]

    async def remove_image(self, image_id: str) -> None:
        """By force, since it may have several tags; force would take one that a stopped VM needs, so that is asked before."""
        async with door(REMOVE_TIMEOUT_S):
            found = await self._client.find(f"images/{image_id}/json")
            if found is None:
                return
            ask = filters(ancestor=[found["Id"]]) | {"all": "1"}
            if await self._client.ask("GET", "containers/json", params=ask):
                raise ImageInUse
            try:
                await self._client.drop("DELETE", f"images/{image_id}", params={"force": "1"})
            except Refused as exc:
                if exc.status != 409:
                    raise
                raise ImageInUse from exc

    async def network_gateway(self) -> str:
        """The address at which VMs find this host, as ``ff-host``. Makes the network when it is not there yet."""
        async with door(QUESTION_TIMEOUT_S):
            gateway = (await self.ground.network()).gateway
        if gateway is None:
            raise EngineFailed(
                "The VMs' Docker network has no gateway, so that they can't reach this host. Use a bridge network."
            )
        return gateway

    async def deployments(self) -> set[str]:
        """The names of all deployments that have something on this Docker Engine or, where that is ours, on this machine."""
        ask = filters(label=[LABEL_DEPLOYMENT])
        async with door(QUESTION_TIMEOUT_S):
            found = [
                *await self._client.ask("GET", "containers/json", params=ask | {"all": "1"}),
                *((await self._client.ask("GET", "volumes", params=ask))["Volumes"] or []),
                *await self._client.ask("GET", "networks", params=ask),
            ]
        return {thing["Labels"][LABEL_DEPLOYMENT] for thing in found} | self.ground.neighbours()

    async def clear(self) -> None:
        """Remove every container, every volume, the network and the rules of this deployment. Safe to repeat."""
        async with door(REMOVE_TIMEOUT_S):
            for container in await self._containers():
                await self._delete_container(container["Id"])
            for volume in await self._volumes():
                await self._delete_volume(volume["Name"])
            await self.ground.clear()

    def _name(self, vm_id: VmId) -> str:
        return name_of(self.deployment, vm_id)

    async def _inspect(self, vm_id: VmId) -> dict[str, Any] | None:
        return await self._inspect_id(self._name(vm_id))

    async def _inspect_id(self, container_id: str) -> dict[str, Any] | None:
        found: dict[str, Any] | None = await self._client.find(f"containers/{container_id}/json")
        return found

    async def _containers(self) -> list[dict[str, Any]]:
        ask = filters(label=[f"{LABEL_DEPLOYMENT}={self.deployment}"]) | {"all": "1"}
        return list(await self._client.ask("GET", "containers/json", params=ask))

    async def _create(self, spec: VmSpec) -> str | None:
        """Create volume and container; null when somebody else is just doing so."""
        place = await self.ground.place(spec.image, spec.extra_hosts)
        await self._make_volume(spec)
        self._crash("ensure:volume")
        body = container_body(spec, place)
        try:
            made = await self._client.ask("POST", "containers/create", body=body, params={"name": self._name(spec.vm_id)})
        except Refused as exc:
            if exc.status != 409:
                raise
            await asyncio.sleep(RETRY_S)  # the name is taken before the container can be seen
            return None
        self._crash("ensure:created")
        return str(made["Id"])

    async def _make_volume(self, spec: VmSpec) -> None:
        """Whatever is there already stays what it is: with a quota or without."""
        name, volumes = self._name(spec.vm_id), self.ground.volumes
        options: Mapping[str, str] = self.ground.options.volume_options
        quota = self.ground.has_volume(spec.vm_id)
        if not quota:
            found = await self._client.find(f"volumes/{name}")
            if found is not None and volumes.holds((found["Options"] or {}).get("device")):
                await self._delete_volume(name)  # the name of files that are gone
                found = None
            if found is not None:
                return
            if spec.volume == "existing":
                raise VolumeMissing
            quota = self.ground.quota and spec.limits.disk_bytes is not None
        if quota:
            path = await asyncio.to_thread(volumes.make, spec.vm_id, spec.limits.disk_bytes or 0)
            options = {"type": "none", "o": "bind", "device": str(path)}
        labels = volume_labels(self.deployment, spec.vm_id)
        body = {"Name": name, "Driver": "local", "DriverOpts": dict(options), "Labels": labels}
        await self._client.ask("POST", "volumes/create", body=body)

    async def _mount(self, vm_id: VmId) -> None:
        if self.ground.has_volume(vm_id):
            await asyncio.to_thread(self.ground.volumes.mount, vm_id)

    async def _start(self, container_id: str) -> bool:
        """Start it. False when it could not be because it is just going, or its network went: look again."""
        try:
            await self._client.ask("POST", f"containers/{container_id}/start")
        except Refused as exc:
            if exc.status == 404 and "network" in exc.message:
                self.ground.forget_network()
                await self._delete_container(container_id)  # half made, before somebody removed the network
                return False
            if exc.status not in {404, 409}:
                raise
            await asyncio.sleep(RETRY_S)
            return False
        self._crash("start:started")
        return True

    async def _endpoint(self, info: Mapping[str, Any], *, started: bool) -> Endpoint | None:
        """See :func:`endpoint_of`. One that we have to connect is connected."""
        seen = container_seen(info)
        if not seen.running or not is_direct(info):
            return endpoint_of(seen, started=started)
        try:
            return endpoint_of(replace(seen, address=str(await self._connect(info))), started=started)
        except network.Ended:
            again = await self._inspect_id(seen.id)
            if again is None or (ended := container_seen(again)).running:
                raise
            return endpoint_of(ended, started=started)

    async def _connect(self, info: Mapping[str, Any]) -> IPv4Address:
        try:
            return await self._connect_to(await self.ground.network(), info)
        except BridgeMissing:
            self.ground.forget_network()
            return await self._connect_to(await self.ground.network(), info)

    async def _connect_to(self, net: Net, info: Mapping[str, Any]) -> IPv4Address:
        if not self.ground.on_host or net.bridge is None:
            raise EngineFailed("This VM was connected by a server that is root on the Docker Engine's machine, as this is not.")
        return await asyncio.to_thread(network.attach, net.bridge, info["Id"], info["State"]["Pid"], crash=self._crash)

    async def _cables(self, infos: Iterable[Mapping[str, Any] | None]) -> dict[str, IPv4Address]:
        """Where those are that we connected."""
        if not any(info is not None and is_direct(info) and info["State"]["Running"] for info in infos):
            return {}
        bridge = (await self.ground.network()).bridge
        return await asyncio.to_thread(network.addresses, bridge) if bridge is not None else {}

    async def _delete_container(self, container_id: str) -> None:
        """Remove it; returns when it is gone, whoever removed it."""
        await self._delete(f"containers/{container_id}", {"force": "1", "v": "1"})

    async def _delete_volume(self, name: str) -> None:
        await self._delete(f"volumes/{name}", {})

    async def _delete(self, path: str, params: Mapping[str, str]) -> None:
        while True:
            try:
                await self._client.drop("DELETE", path, params=params)
            except Refused as exc:
                if exc.status != 409:
                    raise
                await asyncio.sleep(RETRY_S)  # its removal is in progress, or a container that uses it is just going
            else:
                return

    async def _volumes(self) -> list[dict[str, Any]]:
        ask = filters(label=[f"{LABEL_DEPLOYMENT}={self.deployment}"])
        return (await self._client.ask("GET", "volumes", params=ask))["Volumes"] or []


def _seen(info: Mapping[str, Any], cables: Mapping[str, IPv4Address]) -> ContainerSeen:
    seen = container_seen(info)
    address = cables.get(seen.id)
    return replace(seen, address=str(address)) if address is not None and seen.running else seen
