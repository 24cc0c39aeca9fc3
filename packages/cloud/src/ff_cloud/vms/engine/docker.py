"""VMs as Docker containers. The only module that talks to Docker about them."""

import asyncio
import json
import os
import re
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Mapping
from contextlib import asynccontextmanager
from typing import Any, TypeVar

import aiodocker
import aiohttp
from aiodocker.exceptions import DockerError

from ff_cloud.vms.engine.base import (
    Capacity,
    Endpoint,
    EngineEvent,
    EngineReport,
    ImageSeen,
    Limits,
    Observed,
    VmSpec,
)
from ff_cloud.vms.engine.errors import ContainerMissing, EngineFailed, ImageInUse, IsolationBroken, StaleFence, VolumeMissing
from ff_cloud.vms.engine.hardening import (
    LABEL_DEPLOYMENT,
    Place,
    container_body,
    limits_body,
    name_of,
    network_body,
    network_name_of,
)
from ff_cloud.vms.engine.reading import (
    container_seen,
    endpoint_of,
    event_of,
    gateway_of,
    image_seen,
    translate,
    vm_id_of,
)
from ff_cloud.vms.errors import DockerUnreachable
from ff_core.errors import InvalidInput
from ff_core.ids import VmId

T = TypeVar("T")

IMAGES = "ff-workspace"
"""The repository whose images are ours to list and remove."""

DEFAULT_URL = "unix:///var/run/docker.sock"
DEPLOYMENT = re.compile(r"[a-z0-9][a-z0-9-]{0,30}")

CONNECT_TIMEOUT_S = 5.0
QUESTION_TIMEOUT_S = 15.0
STOP_TIMEOUT_S = 40.0
ENSURE_TIMEOUT_S = 120.0
REMOVE_TIMEOUT_S = 120.0
INSPECTIONS_MAX = 8
RETRY_S = 0.05
"""Between looks while another caller, or Docker itself, is in the middle of the same container."""


@asynccontextmanager
async def docker_engine(
    deployment: str,
    *,
    url: str | None = None,
    network: str | None = None,
    runtime: str | None = None,
    volume_options: Mapping[str, str] | None = None,
) -> AsyncIterator["DockerEngine"]:
    """The VMs of ``deployment`` on the Docker Engine at ``url``, else DOCKER_HOST, else the local socket.

    ``network`` names one that exists; without it the deployment's own is made on demand. Nothing is asked yet, so an
    engine that is down shows in the first call. Raises ``InvalidInput`` for a name or an address that can't be one.
    """
    if DEPLOYMENT.fullmatch(deployment) is None:
        raise InvalidInput(f"{deployment!r} can't name a deployment: use up to 31 of a-z, 0-9 and '-'.")
    chosen = url or os.environ.get("DOCKER_HOST") or DEFAULT_URL
    try:
        client = aiodocker.Docker(chosen, timeout=aiohttp.ClientTimeout(sock_connect=CONNECT_TIMEOUT_S))
    except ValueError as exc:
        raise InvalidInput(f"{chosen!r} is no address of a Docker Engine. Set DOCKER_HOST to one such as {DEFAULT_URL}.") from exc
    try:
        yield DockerEngine(client, deployment, network=network, runtime=runtime, volume_options=volume_options or {})
    finally:
        await client.close()


class DockerEngine:
    """See :class:`~ff_cloud.vms.engine.base.Engine`, whose promises are not repeated here; made by :func:`docker_engine`."""

    def __init__(
        self,
        client: aiodocker.Docker,
        deployment: str,
        *,
        network: str | None,
        runtime: str | None,
        volume_options: Mapping[str, str],
    ) -> None:
        self.deployment = deployment
        self._client = client
        self._network_name = network
        self._runtime = runtime
        self._volume_options = volume_options
        self._making_network = asyncio.Lock()

    async def ensure(self, spec: VmSpec) -> Endpoint:
        """Make the container, or adopt it. The name is the meeting point: Docker gives it to one of the racers."""
        started = False
        async with _door(ENSURE_TIMEOUT_S):
            while True:
                info = await self._inspect(spec.vm_id)
                if info is None:
                    if spec.volume == "existing" and not await self._has_volume(spec.vm_id):
                        raise VolumeMissing
                    await self._create(spec)
                    continue
                seen = container_seen(info)
                if seen.fence > spec.fence or seen.generation > spec.generation:
                    raise StaleFence
                if seen.generation < spec.generation or seen.state == "dead":
                    await self._delete_container(seen.id)
                elif (endpoint := endpoint_of(seen, started=started)) is not None:
                    return endpoint
                else:
                    started = await self._start(seen.id)

    async def observe(self, vm_id: VmId) -> Observed:
        """Two questions, one after the other."""
        async with _door(QUESTION_TIMEOUT_S):
            info = await self._inspect(vm_id)
            volume = await self._has_volume(vm_id)
        return Observed(vm_id, container_seen(info) if info is not None else None, volume)

    async def observe_all(self) -> list[Observed]:
        """Docker's lists leave out why a container ended, so each one found is inspected, a few at a time."""
        gate = asyncio.Semaphore(INSPECTIONS_MAX)

        async def inspect(container_id: str) -> dict[str, Any] | None:
            async with gate:
                return await self._inspect_id(container_id)

        async with _door(QUESTION_TIMEOUT_S * 4):
            listed = await self._client.containers.list(all=True, filters=_filters(self.deployment))
            infos = await asyncio.gather(*(inspect(container.id) for container in listed))
            volumes = await self._volumes()
        containers = {vm_id_of(info["Config"]["Labels"]): container_seen(info) for info in infos if info is not None}
        kept = {vm_id_of(volume["Labels"]) for volume in volumes}
        return [Observed(vm_id, containers.get(vm_id), vm_id in kept) for vm_id in containers.keys() | kept if vm_id is not None]

    async def stop(self, vm_id: VmId) -> None:
        """SIGTERM, ten seconds, SIGKILL: by the container's own ``StopTimeout``."""
        async with _door(STOP_TIMEOUT_S):
            await _or_none(self._container(vm_id).stop())

    async def start(self, vm_id: VmId) -> Endpoint:
        """Start it, unless it runs."""
        started = False
        async with _door(ENSURE_TIMEOUT_S):
            while True:
                info = await self._inspect(vm_id)
                seen = container_seen(info) if info is not None else None
                if seen is None or seen.state == "dead":
                    raise ContainerMissing
                if (endpoint := endpoint_of(seen, started=started)) is not None:
                    return endpoint
                started = await self._start(seen.id)

    async def update_limits(self, vm_id: VmId, limits: Limits) -> None:
        """Takes effect at once, running or not."""
        async with _door(QUESTION_TIMEOUT_S):
            path = f"containers/{name_of(self.deployment, vm_id)}/update"
            answer = await self._call("POST", path, limits_body(limits))
        if answer is None:
            raise ContainerMissing

    async def remove(self, vm_id: VmId) -> None:
        """Kill and remove the container, then the volume, which can't go before."""
        async with _door(REMOVE_TIMEOUT_S):
            name = name_of(self.deployment, vm_id)
            await self._delete_container(name)
            await self._delete_volume(name)

    async def events(self) -> AsyncGenerator[EngineEvent, None]:
        """One long request per iterator; aiodocker's own subscription keeps an unbounded queue."""
        filters = _filters(self.deployment, type=["container"], event=["start", "oom", "die", "destroy"])
        forever = aiohttp.ClientTimeout(sock_connect=CONNECT_TIMEOUT_S)
        async with _door(None):
            async with self._client._query("events", params={"filters": filters}, timeout=forever) as response:  # noqa: SLF001
                try:
                    async for line in response.content:
                        event = event_of(line)
                        if event is not None:
                            yield event
                finally:
                    response.close()
            raise DockerUnreachable("The Docker Engine closed its stream of events; it is probably restarting. Try again.")

    async def check(self, image: str) -> EngineReport:
        """Four questions."""
        async with _door(QUESTION_TIMEOUT_S):
            version = await self._client.version()
            found = await _or_none(self._client.images.inspect(image))
            network = await self._find_network()
        return EngineReport(
            version=version["Version"],
            api_version=version["ApiVersion"],
            image_present=found is not None,
            network=self._network_name or network_name_of(self.deployment),
            network_ready=network is not None,
        )

    async def capacity(self) -> Capacity:
        """What Docker says about its machine."""
        async with _door(QUESTION_TIMEOUT_S):
            info = await self._client.system.info()
        return Capacity(memory_total_bytes=info["MemTotal"], cpus=info["NCPU"], containers=info["ContainersRunning"])

    async def isolation(self, vm_id: VmId) -> None:
        """Look at the container and at its network."""
        async with _door(QUESTION_TIMEOUT_S):
            info = await self._inspect(vm_id)
            network = await self._find_network()
        if info is None:
            raise ContainerMissing
        if not container_seen(info).running:
            raise IsolationBroken("The VM does not run, so that its walls can't be looked at. Start it and ask again.")
        networks = [each["NetworkID"] for each in info["NetworkSettings"]["Networks"].values()]
        if network is None or networks != [network["Id"]]:
            raise IsolationBroken("The VM is not on exactly one network, that of VMs. It is not used.")

    async def images(self) -> list[ImageSeen]:
        """Those of the repository that ``ff-cloud image build`` writes to."""
        async with _door(QUESTION_TIMEOUT_S):
            listed = await self._client.images.list(filters={"reference": [IMAGES]})
        return [image_seen(image) for image in listed]

    async def remove_image(self, image_id: str) -> None:
        """By force, since it may have several tags; force would take one that a stopped VM needs, so that is asked before."""
        async with _door(REMOVE_TIMEOUT_S):
            found = await _or_none(self._client.images.inspect(image_id))
            if found is None:
                return
            if await self._client.containers.list(all=True, filters=json.dumps({"ancestor": [found["Id"]]})):
                raise ImageInUse
            try:
                await self._call("DELETE", f"images/{image_id}", params={"force": "1"})
            except DockerError as exc:
                if exc.status != 409:
                    raise
                raise ImageInUse from exc

    async def network_gateway(self) -> str:
        """The address at which VMs find this host, as ``ff-host``. Makes the network when it is not there yet."""
        async with _door(QUESTION_TIMEOUT_S):
            gateway = gateway_of(await self._network())
        if gateway is None:
            raise EngineFailed(
                "The VMs' Docker network has no gateway, so that they can't reach this host. Use a bridge network."
            )
        return gateway

    async def clear(self) -> None:
        """Remove every container, every volume and the network of this deployment. Safe to repeat."""
        async with _door(REMOVE_TIMEOUT_S):
            for container in await self._client.containers.list(all=True, filters=_filters(self.deployment)):
                await self._delete_container(container.id)
            for volume in await self._volumes():
                await self._delete_volume(volume["Name"])
            for network in await self._client.networks.list(filters={"label": f"{LABEL_DEPLOYMENT}={self.deployment}"}):
                await self._call("DELETE", f"networks/{network['Id']}")

    async def _call(
        self, method: str, path: str, data: dict[str, Any] | None = None, params: dict[str, str] | None = None
    ) -> Any:
        """Ask what aiodocker has no (typed) method for. Null when there is no such thing."""
        return await _or_none(self._client._query_json(path, method, data=data, params=params))  # noqa: SLF001

    def _container(self, vm_id: VmId) -> aiodocker.containers.DockerContainer:
        return self._client.containers.container(name_of(self.deployment, vm_id))

    async def _inspect(self, vm_id: VmId) -> dict[str, Any] | None:
        return await self._inspect_id(name_of(self.deployment, vm_id))

    async def _inspect_id(self, container_id: str) -> dict[str, Any] | None:
        return await _or_none(self._client.containers.container(container_id).show())

    async def _create(self, spec: VmSpec) -> None:
        """Create the container, or find that somebody else is just doing so."""
        network = await self._network()
        place = Place(self.deployment, network["Id"], gateway_of(network), self._runtime, self._volume_options)
        try:
            await self._client.containers.create(container_body(spec, place), name=name_of(self.deployment, spec.vm_id))
        except DockerError as exc:
            if exc.status != 409:
                raise
            await asyncio.sleep(RETRY_S)  # the name is taken before the container can be seen

    async def _start(self, container_id: str) -> bool:
        """Start it. False when it could not be because it is just going, or its network went: look again."""
        try:
            await self._client.containers.container(container_id).start()
        except DockerError as exc:
            if exc.status == 404 and "network" in exc.message:
                await self._delete_container(container_id)  # half made, before somebody removed the network
                return False
            if exc.status not in {404, 409}:
                raise
            await asyncio.sleep(RETRY_S)
            return False
        return True

    async def _delete_container(self, container_id: str) -> None:
        """Remove it; returns when it is gone, whoever removed it."""
        container = self._client.containers.container(container_id)
        while await self._inspect_id(container_id) is not None:
            try:
                await _or_none(container.delete(force=True, v=True))
            except DockerError as exc:
                if exc.status != 409:
                    raise
                await asyncio.sleep(RETRY_S)  # its removal is in progress

    async def _has_volume(self, vm_id: VmId) -> bool:
        return await self._call("GET", f"volumes/{name_of(self.deployment, vm_id)}") is not None

    async def _delete_volume(self, name: str) -> None:
        while True:
            try:
                await self._call("DELETE", f"volumes/{name}")
            except DockerError as exc:
                if exc.status != 409:
                    raise
                await asyncio.sleep(RETRY_S)  # still in use by a container that is just going
            else:
                return

    async def _volumes(self) -> list[dict[str, Any]]:
        answer = await self._call("GET", "volumes", params={"filters": _filters(self.deployment)})
        return answer["Volumes"] or []

    async def _find_network(self) -> dict[str, Any] | None:
        if self._network_name is not None:
            found: dict[str, Any] | None = await self._call("GET", f"networks/{self._network_name}")
            return found
        listed = await self._client.networks.list(filters={"label": f"{LABEL_DEPLOYMENT}={self.deployment}"})
        own = [network for network in listed if network["Name"] == network_name_of(self.deployment)]
        return min(own, key=lambda network: (network["Created"], network["Id"]), default=None)

    async def _network(self) -> dict[str, Any]:
        """The network, made when there is none. Old Engines may let two racers have one each: the elder stays."""
        async with self._making_network:
            found = await self._find_network()
            if found is not None:
                return found
            if self._network_name is not None:
                raise EngineFailed(
                    f"There is no Docker network {self._network_name!r}. Create it, or name none and one is made for you."
                )
            try:
                made = (await self._client.networks.create(network_body(self.deployment))).id
            except DockerError as exc:
                if exc.status != 409:
                    raise
                made = None
            found = await self._find_network()
            if found is None:
                raise EngineFailed("The VMs' Docker network was removed while it was being made. Try again.")
            if made is not None and found["Id"] != made:
                await self._call("DELETE", f"networks/{made}")
            return found


@asynccontextmanager
async def _door(limit_s: float | None) -> AsyncIterator[None]:
    """Let nothing foreign through: neither Docker's errors nor its silence."""
    try:
        async with asyncio.timeout(limit_s):
            yield
    except TimeoutError as exc:
        raise DockerUnreachable(
            f"The Docker Engine did not answer within {limit_s:g} s. Look at the load of its machine, then try again."
        ) from exc
    except aiohttp.ClientError as exc:
        raise DockerUnreachable from exc
    except DockerError as exc:
        raise translate(exc) from exc


async def _or_none(question: Awaitable[T]) -> T | None:
    """The answer, or null when Docker says that there is no such thing."""
    try:
        return await question
    except DockerError as exc:
        if exc.status == 404:
            return None
        raise


def _filters(deployment: str, **more: list[str]) -> str:
    return json.dumps({"label": [f"{LABEL_DEPLOYMENT}={deployment}"], **more})
