"""A deployment of its own on the real Docker Engine, for tests and the demo: nothing of it is left afterwards.

``python -m ff_cloud.testing.vm_network NAME...`` removes all that deployments of these names have on this machine.
"""

import asyncio
import secrets
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

from ff_cloud.vms.engine.docker import docker_engine
from ff_cloud.vms.engine.hardening import network_name_of


@dataclass(frozen=True)
class VmNetwork:
    """``deployment`` names everything that belongs to it; ``gateway`` is where its VMs find this host (as ``ff-host``)."""

    deployment: str
    name: str
    gateway: str


@asynccontextmanager
async def vm_network(*, purpose: str = "test", url: str | None = None) -> AsyncIterator[VmNetwork]:
    """Make the network of a new deployment; leaving removes every container, volume and network of it, whoever made them.

    A server under test joins by taking ``deployment`` for its own, or that with ``-`` and something after it. Raises
    ``DockerUnreachable``.
    """
    deployment = f"{purpose}-{secrets.token_hex(4)}"
    async with docker_engine(deployment, url=url) as engine:
        try:
            yield VmNetwork(deployment, network_name_of(deployment), await engine.network_gateway())
        finally:
            beside = [name for name in await engine.deployments() if name.startswith(f"{deployment}-")]
            await clear(*beside, url=url)
            await engine.clear()


async def clear(*deployments: str, url: str | None = None) -> None:
    """Remove everything of these deployments. There is nothing: nothing to do."""
    for deployment in deployments:
        async with docker_engine(deployment, url=url) as engine:
            await engine.clear()


if __name__ == "__main__":
    asyncio.run(clear(*sys.argv[1:]))
