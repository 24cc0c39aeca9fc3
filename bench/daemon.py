"""The daemon in a container with the default hardening: start to listening, idle memory; and the size of the image."""

import asyncio
import json
import secrets
import subprocess
import sys
import time
from datetime import datetime
from uuid import uuid4  # noqa: TID251  (names a VM of the benchmark)

from bench.budgets import DAEMON
from bench.report import Row, publish

from ff_cloud.testing.vm_network import vm_network
from ff_cloud.vms.engine.base import Limits, VmSpec
from ff_cloud.vms.engine.docker import docker_engine
from ff_cloud.vms.image import LATEST
from ff_cloud.vms.token import token_sha256
from ff_core.ids import VmId

ROUNDS = 5
LISTENING = "ff daemon: listening"
TIMEOUT_S = 30.0
POLL_S = 0.05
LIMITS = Limits(memory_bytes=2 << 30, cpus=2.0, pids=512)
UNITS = {"B": 1, "kB": 10**3, "KiB": 2**10, "MB": 10**6, "MiB": 2**20, "GiB": 2**30}


def docker(*arguments: str) -> str:
    """What a docker command prints."""
    return subprocess.run(["docker", *arguments], check=True, text=True, capture_output=True, timeout=TIMEOUT_S).stdout.strip()


def listening_ms(container: str) -> float:
    """From the start of the container's first process to the line that says it listens, by Docker's clock for both."""
    deadline = time.monotonic() + TIMEOUT_S
    while not (lines := [line for line in docker("logs", "--timestamps", container).splitlines() if LISTENING in line]):
        if time.monotonic() > deadline:
            raise SystemExit(f"bench: the daemon does not listen:\n{docker('logs', container)}")
        time.sleep(POLL_S)
    said = datetime.fromisoformat(lines[0].split()[0])
    started = datetime.fromisoformat(docker("inspect", "--format", "{{.State.StartedAt}}", container))
    return (said - started).total_seconds() * 1000


def idle_megabytes(container: str) -> float:
    """Memory of the whole container without page cache, as `docker stats` counts it."""
    text = docker("stats", "--no-stream", "--format", "{{.MemUsage}}", container).split("/")[0].strip()
    number = text.rstrip("BkKMGi")
    return float(number) * UNITS[text[len(number) :]] / 1e6


async def measure() -> list[tuple[float, float]]:
    """Milliseconds and megabytes of fresh VMs, one after the other."""
    found = []
    async with vm_network(purpose="bench") as network, docker_engine(network.deployment) as engine:
        for _ in range(ROUNDS):
            vm_id = VmId(uuid4())
            verifier = token_sha256(secrets.token_hex(32))
            spec = VmSpec(vm_id=vm_id, generation=1, fence=1, image=LATEST, limits=LIMITS, token_sha256=verifier)
            container = (await engine.ensure(spec)).container_id
            found.append((listening_ms(container), idle_megabytes(container)))
            await engine.remove(vm_id)
    return found


def main() -> int:
    """Measure and publish."""
    found = asyncio.run(measure())
    (image,) = json.loads(docker("image", "inspect", LATEST))
    return publish(
        "daemon",
        [
            Row("container start to listening", "ms", [ms for ms, _ in found], DAEMON.listening_s_max * 1000),
            Row("idle memory of the container", "MB", [mb for _, mb in found], DAEMON.idle_megabytes_max),
            Row("image", "MB", [image["Size"] / 1e6]),
        ],
    )


if __name__ == "__main__":
    sys.exit(main())
