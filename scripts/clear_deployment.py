"""Remove everything that a deployment has on this machine's Docker Engine: ``clear_deployment.py NAME``. For ``make clean``."""

import asyncio
import os
import sys

from ff_cloud.vms.engine.docker import docker_engine
from ff_core.errors import FFError


async def clear(deployment: str) -> None:
    """Its containers, volumes with their disks, rules and network; nothing of others. Safe to repeat."""
    async with docker_engine(deployment, url=os.environ.get("FF_DOCKER_HOST")) as engine:
        await engine.clear()


if __name__ == "__main__":
    try:
        asyncio.run(clear(sys.argv[1]))
    except FFError as error:
        print(f"clean: {error.detail}", file=sys.stderr)
        sys.exit(1)
