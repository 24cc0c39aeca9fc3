"""Fifty VMs at once on this machine: whether they stay healthy, what each costs idle and with an agent's session open.

Run by itself (``python -m bench.capacity``): it takes four minutes. The settings are the defaults; the pool is off, so that
every VM belongs to a workspace. Memory is what the machine has less than before: that counts what Docker needs beside a VM.
"""

import argparse
import asyncio
import shutil
import statistics
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from bench.host import Cost, container_cost, family, files_open, memory_available_bytes, processes, sum_of
from bench.ours import Ours, account_on
from bench.peers.base import docker
from bench.report import Row, publish
from bench.vms import built_image

from ff_cloud.testing.server import Running, running_model_api, running_server, scratch_folder, standing_network

VMS = 50
AT_ONCE = 5
WATCH_S = 60.0
LOOK_S = 5.0
SETTLE_S = 10.0
SESSIONS = 5
SESSION_S = 20.0
TURN_TIMEOUT_S = 120.0
PROMPT = "%say The scripted model has nothing to do here."

HOST_GB, HOST_CPUS = 64, 16
"""Of the machine that the arithmetic is for."""
SPARE = 0.15
"""Share of its memory that is left alone: page cache of git and builds, and the moment when many wake."""


@dataclass
class Found:
    """What was measured; bytes and shares of one processor, per VM where not said otherwise."""

    start_ms: list[float] = field(default_factory=list)
    container_bytes: list[float] = field(default_factory=list)
    host_bytes: float = 0.0
    shim_bytes: list[float] = field(default_factory=list)
    vm_cpu: list[float] = field(default_factory=list)
    server_cpu: float = 0.0
    docker_cpu: float = 0.0
    server_bytes: float = 0.0
    docker_bytes: float = 0.0
    files: float = 0.0
    unhealthy: int = 0
    exec_ms: list[float] = field(default_factory=list)
    session_bytes: list[float] = field(default_factory=list)
    session_cpu: list[float] = field(default_factory=list)
    turn_cpu_s: list[float] = field(default_factory=list)

    @property
    def parts_bytes(self) -> float:
        """Of one VM: container, shim, its share of the Engine."""
        return statistics.median(self.container_bytes) + statistics.median(self.shim_bytes) + self.docker_bytes

    @property
    def vm_bytes(self) -> float:
        """Of one VM, the larger of the two ways to count: others on the machine come and go while we look."""
        return max(self.host_bytes, self.parts_bytes)


@contextmanager
def environment(image: str) -> Iterator[tuple[Running, str]]:
    """A server with a scripted model, and its deployment's name."""
    folder = scratch_folder("ff-capacity-")
    with ExitStack() as stack:
        stack.callback(shutil.rmtree, folder, ignore_errors=True)
        network = stack.enter_context(standing_network("capacity"))
        model = stack.enter_context(running_model_api(folder, "127.0.0.1"))
        settings = {
            "FF_DEPLOYMENT": network.deployment,
            "FF_VM_IMAGE": image,
            "FF_POOL_SIZE": "0",
            "FF_MODEL_BASE_URL": model.url,
            "FF_MODEL_API_KEY": "key-of-the-scripted-model",
        }
        yield stack.enter_context(running_server(folder, settings)), network.deployment


async def containers(deployment: str) -> dict[str, int]:
    """The first process of each of our containers, by container."""
    ids = (await docker("ps", "--quiet", "--no-trunc", "--filter", f"label=ff.deployment={deployment}")).split()
    if not ids:
        return {}
    lines = await docker("inspect", "--format", "{{.Id}} {{.State.Pid}}", *ids)
    return {words[0]: int(words[1]) for words in map(str.split, lines.splitlines())}


def of_docker() -> Cost:
    """The Engine and containerd, without the shims."""
    return sum_of(list(processes(lambda words: Path(words[0]).name in {"dockerd", "containerd"}).values()))


def shims(ids: set[str]) -> list[Cost]:
    """The shim of each container."""
    return list(processes(lambda words: "containerd-shim" in words[0] and not ids.isdisjoint(words)).values())


async def idle(found: Found, ours: Ours, server: Running, deployment: str, vms: int) -> list[str]:
    """Start them, and watch them do nothing; their paths."""
    before = memory_available_bytes(), files_open(), of_docker(), sum_of(list(family(server.pid).values()))
    paths: list[str] = []
    for first in range(0, vms, AT_ONCE):
        numbers = range(first, min(first + AT_ONCE, vms))
        for started in await ours.start_many([f"capacity {number}" for number in numbers]):
            if isinstance(started, Exception):
                raise started
            paths.append(started.path)
            found.start_ms.append(started.output_ms)
    for path in paths:
        await ours.ready(path)
    await asyncio.sleep(SETTLE_S)
    now = await containers(deployment)
    found.host_bytes = (before[0] - memory_available_bytes()) / vms
    found.files = (files_open() - before[1]) / vms
    found.shim_bytes = [cost.memory_bytes for cost in shims(set(now))]
    began = time.monotonic()
    first_costs = {each: container_cost(pid) for each, pid in now.items()}
    docker_first, server_first = of_docker(), sum_of(list(family(server.pid).values()))
    while time.monotonic() - began < WATCH_S:
        found.unhealthy += vms - await ours.running()
        await asyncio.sleep(LOOK_S)
    seconds = time.monotonic() - began
    for each, pid in now.items():
        cost = container_cost(pid)
        found.container_bytes.append(cost.memory_bytes)
        found.vm_cpu.append((cost.cpu_s - first_costs[each].cpu_s) / seconds)
    docker_last, server_last = of_docker(), sum_of(list(family(server.pid).values()))
    found.docker_cpu = (docker_last.cpu_s - docker_first.cpu_s) / seconds
    found.server_cpu = (server_last.cpu_s - server_first.cpu_s) / seconds
    found.docker_bytes = (docker_last.memory_bytes - before[2].memory_bytes) / vms
    found.server_bytes = server_last.memory_bytes
    for path in paths:
        found.exec_ms.append(await ours.wake(path))
    return paths


async def with_sessions(found: Found, ours: Ours, deployment: str, paths: list[str]) -> None:
    """Open a session in some of them, have each take a turn, and watch them wait for the next prompt."""
    for path in paths[:SESSIONS]:
        before = {each: container_cost(pid) for each, pid in (await containers(deployment)).items()}
        await ours.turn(path, PROMPT, timeout_s=TURN_TIMEOUT_S)
        await asyncio.sleep(LOOK_S)
        after = {each: container_cost(pid) for each, pid in (await containers(deployment)).items()}
        grown = {each: after[each].memory_bytes - cost.memory_bytes for each, cost in before.items()}
        its = max(grown, key=lambda each: grown[each])
        found.session_bytes.append(grown[its])
        found.turn_cpu_s.append(after[its].cpu_s - before[its].cpu_s)
        began = time.monotonic()
        await asyncio.sleep(SESSION_S)
        later = container_cost((await containers(deployment))[its])
        found.session_cpu.append((later.cpu_s - after[its].cpu_s) / (time.monotonic() - began))


def mb(values: list[float]) -> list[float]:
    """Bytes as megabytes."""
    return [value / 1e6 for value in values]


def percent(values: list[float]) -> list[float]:
    """Shares as percentages."""
    return [value * 100 for value in values]


def rows(found: Found, vms: int) -> list[Row]:
    """The rows of the results."""
    healthy = Row("vms_at_once", "VMs", [float(vms)], failures=found.unhealthy, success_min=1.0)
    return [
        healthy,
        Row("start_five_at_once", "ms", found.start_ms),
        Row("exec_with_all_running", "ms", found.exec_ms),
        Row("idle_vm_of_host", "MB", [found.host_bytes / 1e6]),
        Row("idle_vm_by_parts", "MB", [found.parts_bytes / 1e6]),
        Row("idle_vm_container", "MB", mb(found.container_bytes)),
        Row("idle_vm_shim", "MB", mb(found.shim_bytes)),
        Row("idle_vm_engine", "MB", [found.docker_bytes / 1e6]),
        Row("idle_vm_files", "files", [found.files]),
        Row("idle_vm_cpu", "%", percent(found.vm_cpu)),
        Row("server_cpu", "%", [found.server_cpu * 100]),
        Row("engine_cpu", "%", [found.docker_cpu * 100]),
        Row("server_memory", "MB", [found.server_bytes / 1e6]),
        Row("session_memory", "MB", mb(found.session_bytes)),
        Row("session_cpu", "%", percent(found.session_cpu)),
        Row("turn_cpu", "s", found.turn_cpu_s),
        *arithmetic(found, vms),
    ]


def arithmetic(found: Found, vms: int) -> list[Row]:
    """What a gigabyte and a larger machine carry, by memory and by processors; see docs/benchmarks.md."""
    session = statistics.median(found.session_bytes) if found.session_bytes else 0.0
    usable = HOST_GB * 1e9 * (1 - SPARE) - found.server_bytes
    busy = statistics.median(found.vm_cpu) + (found.server_cpu + found.docker_cpu) / vms
    return [
        Row("fit_per_gb_idle", "VMs", [1e9 / found.vm_bytes]),
        Row("fit_per_gb_in_session", "VMs", [1e9 / (found.vm_bytes + session)]),
        Row(f"fit_{HOST_GB}_gb_idle", "VMs", [usable / found.vm_bytes]),
        Row(f"fit_{HOST_GB}_gb_in_session", "VMs", [usable / (found.vm_bytes + session)]),
        Row(f"fit_{HOST_CPUS}_cpus_idle", "VMs", [HOST_CPUS * (1 - SPARE) / busy if busy else 0.0]),
    ]


async def measure(found: Found, vms: int, server: Running, deployment: str) -> None:
    """All of it."""
    async with account_on(server.url) as ours:
        paths = await idle(found, ours, server, deployment, vms)
        await ours.renew()
        await with_sessions(found, ours, deployment, paths)
        await ours.renew()
        await ours.clear()


def main() -> int:
    """Measure and publish."""
    parser = argparse.ArgumentParser(prog="python -m bench.capacity", description=__doc__)
    parser.add_argument("--vms", type=int, default=VMS, help=f"how many (default: {VMS})")
    vms = parser.parse_args().vms
    found = Found()
    with environment(built_image()) as (server, deployment):
        asyncio.run(measure(found, vms, server, deployment))
    return publish("capacity", rows(found, vms))


if __name__ == "__main__":
    sys.exit(main())
