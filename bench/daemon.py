"""The daemon in a container with the default hardening: its start, its first command, what it costs while nobody needs it.

    python -m bench.daemon [--runtime crun] [--rounds 5] [--idle-s 20]

All but ``listening`` and ``memory`` is only reported: the promises about warm and cold starts are kept through the API
(``bench.vms``), these rows say where their time goes.
"""

import argparse
import asyncio
import json
import secrets
import subprocess
import sys
import time
from collections import defaultdict
from datetime import datetime
from pathlib import Path
from uuid import uuid4  # noqa: TID251  (names a VM of the benchmark)

from bench.budgets import DAEMON
from bench.report import Row, publish

from ff_cloud.testing.vm_network import vm_network
from ff_cloud.vms.daemon_client import DaemonClient
from ff_cloud.vms.daemon_http import DaemonHttp
from ff_cloud.vms.engine.base import Endpoint, Engine, Limits, VmSpec
from ff_cloud.vms.engine.docker import docker_engine
from ff_cloud.vms.image import LATEST
from ff_cloud.vms.token import token_sha256
from ff_core.contract.daemon import Bind, ModelAccess
from ff_core.contract.execution import ExecRequest
from ff_core.ids import VmId, WorkspaceId

LISTENING = "ff daemon: listening"
TIMEOUT_S = 60.0
POLL_S = 0.002
CONNECT_S = 0.02
WARM_COMMANDS = 30
LIMITS = Limits(memory_bytes=2 << 30, cpus=2.0, pids=512)
UNITS = {"B": 1, "kB": 10**3, "KiB": 2**10, "MB": 10**6, "MiB": 2**20, "GiB": 2**30}
COMMAND = ExecRequest(argv=["echo", "ready"], env={})

Samples = defaultdict[str, list[float]]


def docker(*arguments: str) -> str:
    """What a docker command prints."""
    return subprocess.run(["docker", *arguments], check=True, text=True, capture_output=True, timeout=TIMEOUT_S).stdout.strip()


def docker_run_ms(runtime: str | None) -> float:
    """The peer: from the command line to its first output."""
    chosen = [] if runtime is None else ["--runtime", runtime]
    began_s = time.perf_counter()
    with subprocess.Popen(["docker", "run", "--rm", *chosen, LATEST, *COMMAND.argv], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.read(1)
        took_s = time.perf_counter() - began_s
        process.communicate(timeout=TIMEOUT_S)
    return took_s * 1000


def listening_ms(container: str) -> float:
    """From the start of the container's first process to the line that says it serves, by Docker's clock for both."""
    lines = [line for line in docker("logs", "--timestamps", container).splitlines() if LISTENING in line]
    said = datetime.fromisoformat(lines[0].split()[0])
    started = datetime.fromisoformat(docker("inspect", "--format", "{{.State.StartedAt}}", container))
    return (said - started).total_seconds() * 1000


def megabytes(container: str) -> float:
    """Memory of the whole container without page cache, as `docker stats` counts it."""
    text = docker("stats", "--no-stream", "--format", "{{.MemUsage}}", container).split("/")[0].strip()
    number = text.rstrip("BkKMGi")
    return float(number) * UNITS[text[len(number) :]] / 1e6


def processor_ms(container: str) -> tuple[float, int]:
    """What all threads in the container have run so far, and how often they were put on a processor."""
    pids = [line.split()[1] for line in docker("top", container).splitlines()[1:]]
    threads = [thread for pid in pids for thread in Path(f"/proc/{pid}/task").iterdir()]
    stats = [(thread / "schedstat").read_text().split() for thread in threads]
    return sum(int(ran_ns) for ran_ns, _, _ in stats) / 1e6, sum(int(times) for _, _, times in stats)


async def first_output(daemon: DaemonClient) -> None:
    """Run the command until it has written something."""
    async with daemon.execute(COMMAND) as frames:
        await anext(frames)


async def knock(endpoint: Endpoint) -> None:
    """Return as soon as somebody listens. A packet that is sent before the new network cable works is lost in silence."""
    while True:
        try:
            async with asyncio.timeout(CONNECT_S):
                _, writer = await asyncio.open_connection(endpoint.address, endpoint.port)
            writer.close()
            return
        except OSError:  # TimeoutError is one
            await asyncio.sleep(POLL_S)


async def bind(daemon: DaemonClient) -> None:
    """Give it to a workspace."""
    await daemon.bind(Bind(workspace_id=WorkspaceId(uuid4()), name="bench", model=ModelAccess()))


async def cold(engine: Engine, http: DaemonHttp, runtime: str | None, found: Samples) -> None:
    """A VM from nothing to the first output of a command."""
    vm_id, token = VmId(uuid4()), secrets.token_hex(32)
    spec = VmSpec(
        vm_id=vm_id, generation=1, fence=1, image=LATEST, limits=LIMITS, token_sha256=token_sha256(token), runtime=runtime
    )
    began_s = time.perf_counter()

    def mark(name: str) -> None:
        found[name].append((time.perf_counter() - began_s) * 1000)

    endpoint = await engine.ensure(spec)
    mark("cold: container started")
    daemon = DaemonClient(endpoint.address, endpoint.port, token, 1, http)
    await knock(endpoint)
    mark("cold: connected")
    await bind(daemon)
    mark("cold: bound")
    await first_output(daemon)
    mark("cold: first output")
    found["container start to listening"].append(await asyncio.to_thread(listening_ms, endpoint.container_id))
    await engine.remove(vm_id)


async def warm(engine: Engine, http: DaemonHttp, runtime: str | None, idle_s: float, found: Samples) -> None:
    """A VM that was probed and waits: what it costs, what freezing it would save, and what its first day is like."""
    vm_id, token = VmId(uuid4()), secrets.token_hex(32)
    spec = VmSpec(
        vm_id=vm_id, generation=1, fence=1, image=LATEST, limits=LIMITS, token_sha256=token_sha256(token), runtime=runtime
    )
    endpoint = await engine.ensure(spec)
    container = endpoint.container_id
    daemon = DaemonClient(endpoint.address, endpoint.port, token, 1, http)
    await daemon.wait_healthy(TIMEOUT_S)
    found["idle memory before the probe"].append(await asyncio.to_thread(megabytes, container))
    found["probe"].append((await daemon.probe()).took_ms)
    found["idle memory"].append(await asyncio.to_thread(megabytes, container))
    before, times_before = await asyncio.to_thread(processor_ms, container)
    await asyncio.sleep(idle_s)
    after, times_after = await asyncio.to_thread(processor_ms, container)
    found["idle: processor time"].append((after - before) / idle_s)
    found["idle: wake-ups"].append((times_after - times_before) / idle_s)
    await frozen(daemon, container, found)
    began_s = time.perf_counter()
    await bind(daemon)
    found["warm: bind"].append((time.perf_counter() - began_s) * 1000)
    await first_output(daemon)
    found["warm: bind to first output"].append((time.perf_counter() - began_s) * 1000)
    for _ in range(WARM_COMMANDS):
        began_s = time.perf_counter()
        await first_output(daemon)
        found["exec to first output"].append((time.perf_counter() - began_s) * 1000)
    await engine.remove(vm_id)


async def frozen(daemon: DaemonClient, container: str, found: Samples) -> None:
    """Pause and go on, as the command line does it; and the first answer after that."""
    await asyncio.to_thread(docker, "pause", container)
    found["frozen: memory"].append(await asyncio.to_thread(megabytes, container))
    began_s = time.perf_counter()
    await asyncio.to_thread(docker, "unpause", container)
    found["frozen: docker unpause"].append((time.perf_counter() - began_s) * 1000)
    await daemon.health()
    found["frozen: docker unpause to health"].append((time.perf_counter() - began_s) * 1000)


async def measure(runtime: str | None, rounds: int, idle_s: float) -> Samples:
    """Everything, one VM after the other, in turns with `docker run`."""
    found: Samples = defaultdict(list)
    async with vm_network(purpose="bench") as network, docker_engine(network.deployment) as engine, DaemonHttp() as http:
        await engine.prepare(LATEST)
        for number in range(rounds + 1):
            counted = found if number else defaultdict(list)  # the first round fills caches
            counted["docker run to first output"].append(await asyncio.to_thread(docker_run_ms, runtime))
            await cold(engine, http, runtime, counted)
        for _ in range(rounds):
            await warm(engine, http, runtime, idle_s / rounds, found)
    return found


def main() -> int:
    """Measure and publish."""
    parser = argparse.ArgumentParser(prog="python -m bench.daemon")
    parser.add_argument("--runtime", help="the OCI runtime; without it the Engine's default")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--idle-s", type=float, default=20.0, help="how long warm VMs are watched, all together")
    arguments = parser.parse_args()
    found = asyncio.run(measure(arguments.runtime, arguments.rounds, arguments.idle_s))
    limits = {"container start to listening": DAEMON.listening_s_max * 1000, "idle memory": DAEMON.idle_megabytes_max}
    units = {"idle memory": "MB", "idle memory before the probe": "MB", "frozen: memory": "MB"}
    units |= {"idle: processor time": "ms/s", "idle: wake-ups": "1/s"}
    (image,) = json.loads(docker("image", "inspect", LATEST))
    rows = [Row(name, units.get(name, "ms"), samples, limits.get(name)) for name, samples in found.items()]
    return publish("daemon", [*rows, Row("image", "MB", [image["Size"] / 1e6])])


if __name__ == "__main__":
    sys.exit(main())
