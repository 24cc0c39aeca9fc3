"""What servers stand on whose parts are killed, and the look whether all is in order afterwards."""

from collections.abc import Iterator
from contextlib import AsyncExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from stack import MODEL_KEY, docker, free_port

from ff_cloud.kit.db import Database
from ff_cloud.testing.accounts import MASTER
from ff_cloud.testing.cloud import cloud_over, settings_for
from ff_cloud.testing.settled import until_settled
from ff_cloud.testing.vm_network import VmNetwork
from ff_cloud.vms.engine.docker import docker_engine
from ff_cloud.vms.image import LATEST
from ff_core.testing.model_api import ModelApi


@dataclass(frozen=True)
class Ground:
    """What servers of these tests stand on."""

    network: VmNetwork
    model: ModelApi
    docker_host: str | None = None
    """Where the Docker Engine is; null: where it always is."""

    @contextmanager
    def deployment(self, suffix: str) -> Iterator[dict[str, str]]:
        """Settings of a server of its own; nothing of it is left afterwards, and nothing may be but what it knows of."""
        name = f"{self.network.deployment}-{suffix}"
        label = ("--filter", f"label=ff.deployment={name}")
        try:
            yield {
                "FF_DEPLOYMENT": name,
                "FF_VM_NETWORK": self.network.name,
                "FF_MODEL_BASE_URL": self.model.url,
                "FF_MODEL_API_KEY": MODEL_KEY,
                "FF_SECRET_KEY": MASTER.decode(),
                "FF_GATEWAY_PORT": str(free_port(self.network.gateway)),
                "FF_HEALTH_INTERVAL_S": "1",
                "FF_SWEEP_INTERVAL_S": "1",
                "FF_POOL_SIZE": "0",
                "FF_VM_IMAGE": LATEST,
            }
        finally:
            if containers := self._docker("ps", "-aq", *label):
                self._docker("rm", "-f", *containers)
            if volumes := self._docker("volume", "ls", "-q", *label):
                self._docker("volume", "rm", *volumes)

    async def settled(self, url: str, settings: dict[str, str], *, timeout_s: float = 60.0) -> None:
        """Return once everything of this deployment is in order: rows, containers, volumes, cables, daemons."""
        async with AsyncExitStack() as exits:
            db = await exits.enter_async_context(Database(url))
            engine = await exits.enter_async_context(docker_engine(settings["FF_DEPLOYMENT"], url=self.docker_host))
            cloud = await exits.enter_async_context(cloud_over(db, engine, settings_for(Path("/nonexistent"))))
            await until_settled(cloud.db, cloud.engine, cloud.daemons, timeout_s=timeout_s)
        assert self.loose_cables() == set()

    def loose_cables(self) -> set[str]:
        """Ports of the VMs' bridge that were made for containers which do not run."""
        running = set(self._docker("ps", "-q", "--no-trunc"))
        name = '{{index .Options "com.docker.network.bridge.name"}}'
        (bridge,) = self._docker("network", "inspect", "--format", name, self.network.name) or (f"br-{self._network_id()}",)
        ports = [Path("/sys/class/net") / port.name for port in Path(f"/sys/class/net/{bridge}/brif").iterdir()]
        return {port.name for port in ports if (owner := (port / "ifalias").read_text().strip()) and owner not in running}

    def _network_id(self) -> str:
        return self._docker("network", "inspect", "--format", "{{.Id}}", self.network.name)[0][:12]

    def _docker(self, *argv: str) -> list[str]:
        return docker(*(() if self.docker_host is None else ("--host", self.docker_host)), *argv)
