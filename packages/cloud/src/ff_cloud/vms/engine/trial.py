"""What this machine can do for VMs, shown by a container that has their walls and does nothing."""

import asyncio
import secrets
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field, replace
from ipaddress import IPv4Address
from pathlib import Path
from typing import Any

import structlog

from ff_cloud.vms.engine.base import Limits
from ff_cloud.vms.engine.client import DockerClient, filters
from ff_cloud.vms.engine.errors import RuntimeMissing
from ff_cloud.vms.engine.hardening import LABEL_DEPLOYMENT, LABEL_TRIAL, WORKSPACE_PATH, Place, trial_body
from ff_cloud.vms.engine.options import EngineOptions
from ff_cloud.vms.engine.reading import Refused, translate
from ff_cloud.vms.errors import DockerUnreachable, ImageMissing
from ff_cloud.vms.host import network
from ff_cloud.vms.host.errors import HostFailed
from ff_cloud.vms.host.locks import locked_aside
from ff_cloud.vms.host.network import Bridge
from ff_cloud.vms.host.volumes import BYTES_MIN, Volumes
from ff_core.errors import FFError
from ff_core.ids import VmId
from ff_core.world import SystemWorld

log = structlog.get_logger(__name__)

FASTEST = "crun"
"""Starts a container 20 ms faster than runc."""
LIMITS = Limits(memory_bytes=64 << 20, cpus=1.0, pids=32)
ANSWER_S = 5.0
SILENT_PORT = 9


@dataclass(frozen=True)
class Abilities:
    """What is used here; ``lacks`` says why another thing is not, by its name here."""

    direct: bool = False
    """VMs are connected by us."""
    runtime: str | None = None
    quota: bool = False
    lacks: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Trial:
    """``bridge`` and ``folder`` are null where the Docker Engine's machine is not ours to change."""

    client: DockerClient
    deployment: str
    options: EngineOptions
    image: str
    place: Callable[[Abilities], Place]
    bridge: Bridge | None
    folder: Path | None

    async def run(self) -> Abilities:
        """One trial at a time on this machine: so what is there of another is that of a process which died.

        See :meth:`_run`.
        """
        if self.folder is None:
            return await self._run()
        try:
            await asyncio.to_thread(self.folder.mkdir, parents=True, exist_ok=True)
        except OSError:
            return await replace(self, folder=None).run()
        async with locked_aside(self.folder / "trial.lock"):
            for old in await self._left_over():
                await self.client.drop("DELETE", f"containers/{old['Id']}", params={"force": "1", "v": "1"})
            await asyncio.to_thread(_sweep, self.folder)
            return await self._run()

    async def _left_over(self) -> list[dict[str, Any]]:
        ask = filters(label=[f"{LABEL_DEPLOYMENT}={self.deployment}", LABEL_TRIAL]) | {"all": "1"}
        return list(await self.client.ask("GET", "containers/json", params=ask))

    async def _run(self) -> Abilities:
        """Try the best, else each thing by itself. Raises ``HostFailed`` and ``RuntimeMissing`` when something that was asked
        for does not work, ``ImageMissing``.
        """
        best = await self._best()
        for name, problem in best.lacks.items():
            self._insist(name, problem)
        if await self._problem(best) is None:
            return best
        least = Abilities(runtime=self.options.runtime)
        alone = {
            "direct": replace(least, direct=best.direct),
            "quota": replace(least, quota=best.quota),
            "runtime": replace(least, runtime=best.runtime),
        }
        lacks = dict(best.lacks)
        for name, able in alone.items():
            if able != least and (found_out := await self._problem(able)) is not None:
                self._insist(name, found_out)
                lacks[name] = found_out
        found = Abilities(
            direct=best.direct and "direct" not in lacks,
            quota=best.quota and "quota" not in lacks,
            runtime=best.runtime if "runtime" not in lacks else least.runtime,
            lacks=lacks,
        )
        log.info("engine.lacks", **lacks)
        return found

    async def _best(self) -> Abilities:
        """What may work here, as far as that can be told without a trial."""
        options, lacks = self.options, dict[str, str]()
        runtime = options.runtime
        if runtime is None:
            known = (await self.client.ask("GET", "info"))["Runtimes"]
            runtime = FASTEST if FASTEST in known else None
            if runtime is None:
                lacks["runtime"] = f"the Docker Engine does not know {FASTEST}; scripts/bootstrap.sh docker tells it."
        if self.folder is None or self.bridge is None:
            lacks["direct"] = lacks["quota"] = "it needs root on the machine of the Docker Engine, and FF_VM_DIR there."
        if options.networking == "docker" or options.network is not None:
            lacks["direct"] = "FF_VM_NETWORKING or FF_VM_NETWORK asks for that."
        if options.disk_quota == "off" or options.volume_options:
            lacks["quota"] = "FF_VM_DISK_QUOTA or FF_VM_VOLUME_OPTIONS asks for that."
        return Abilities(direct="direct" not in lacks, runtime=runtime, quota="quota" not in lacks, lacks=lacks)

    def _insist(self, name: str, problem: str) -> None:
        """Fail when the operator did not leave it to us."""
        if name == "direct" and self.options.networking == "direct":
            raise HostFailed(f"VMs can't be connected by the server itself, as FF_VM_NETWORKING=direct asks: {problem}")
        if name == "quota" and self.options.disk_quota in {"on", "reserve"}:
            raise HostFailed(f"The disks of VMs can't be limited, as FF_VM_DISK_QUOTA asks: {problem}")

    async def _problem(self, able: Abilities) -> str | None:
        """Why a container with these abilities does not work; null when it does."""
        try:
            async with AsyncExitStack() as stack:
                root = await stack.enter_async_context(_volume(self.folder)) if able.quota and self.folder else None
                pid, container_id = await stack.enter_async_context(self._container(able, root))
                if able.direct and self.bridge is not None:
                    await _answers(await asyncio.to_thread(network.attach, self.bridge, container_id, pid))
                if root is not None and not await asyncio.to_thread(_same_disk, Path(f"/proc/{pid}/root{WORKSPACE_PATH}"), root):
                    return "the Docker Engine does not see what is mounted here."
        except Refused as error:
            meaning = translate(error)
            asked_for = isinstance(meaning, RuntimeMissing) and self.options.runtime is not None
            if asked_for or isinstance(meaning, DockerUnreachable | ImageMissing):
                raise meaning from error
            return meaning.detail
        except (FFError, OSError) as error:
            if isinstance(error, DockerUnreachable | ImageMissing):
                raise
            return str(error)
        return None

    @asynccontextmanager
    async def _container(self, able: Abilities, root: Path | None) -> AsyncIterator[tuple[int, str]]:
        mounts = [{"Type": "bind", "Source": str(root), "Target": WORKSPACE_PATH}] if root else []
        body = trial_body(self.image, LIMITS, self.place(able), mounts)
        container_id = (await self.client.ask("POST", "containers/create", body=body))["Id"]
        try:
            await self.client.ask("POST", f"containers/{container_id}/start")
            yield (await self.client.ask("GET", f"containers/{container_id}/json"))["State"]["Pid"], container_id
        finally:
            await self.client.drop("DELETE", f"containers/{container_id}", params={"force": "1", "v": "1"})


@asynccontextmanager
async def _volume(folder: Path) -> AsyncIterator[Path]:
    volumes = Volumes(folder / f"trial-{secrets.token_hex(4)}")
    try:
        yield await asyncio.to_thread(volumes.make, VmId(SystemWorld().new_id()), BYTES_MIN)
    finally:
        await asyncio.to_thread(volumes.clear)


def _sweep(folder: Path) -> None:
    for old in folder.glob("trial-*/"):
        Volumes(old).clear()


def _same_disk(one: Path, other: Path) -> bool:
    return one.stat().st_dev == other.stat().st_dev


async def _answers(address: IPv4Address) -> None:
    """Return when the container at that address says that nothing listens there, which it does only when it is reached."""
    try:
        async with asyncio.timeout(ANSWER_S):
            _, writer = await asyncio.open_connection(str(address), SILENT_PORT)
            writer.close()
    except ConnectionRefusedError:
        return
    except (TimeoutError, OSError) as error:
        raise HostFailed("a container that was connected here can't be reached from here.") from error
