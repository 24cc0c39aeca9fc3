"""VMs through the public API against `docker run`, SWE-ReX and JupyterHub: warm, cold, bursts, suspend and wake.

All of them take turns in one run, in an order that changes from round to round, so that all meet the same machine. Two servers
of ours run meanwhile: one with a pool of 20 warm VMs, one without a pool. ``--only`` leaves others out, and then its results go
to ``vms-part.json``.
"""

import argparse
import asyncio
import json
import os
import secrets
import shutil
import sys
from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, ExitStack
from functools import partial
from pathlib import Path

from bench.budgets import BURST, COLD_START, WARM
from bench.machine import facts
from bench.ours import account_on
from bench.peers.base import PeerFailed, Place, Round, place
from bench.peers.docker_run import docker_run
from bench.peers.jupyterhub import jupyterhub
from bench.peers.swe_rex import swe_rex
from bench.report import RESULTS, Row, publish
from bench.rounds import Acts, Rounds

from ff_cloud.testing.server import running_server, scratch_folder, standing_network
from ff_cloud.vms.image import PROXY_VARIABLES, build, read_extra_ca

ROOT = Path(__file__).resolve().parents[1]
ROUNDS = 10
MANY = 100
WARM_A_ROUND = 4
DOCKER_A_ROUND = 3
ROUNDS_A_BURST = 2
ROUNDS_A_LARGE_BURST = 5
PEERS: dict[str, Callable[[Place, str], AbstractAsyncContextManager[Round]]] = {
    "docker_run": docker_run,
    "docker_run_crun": partial(docker_run, runtime="crun"),
    "swe_rex": swe_rex,
    "jupyterhub": jupyterhub,
}
POOLED = ("warm", "suspend", "burst_20", "burst_100")
CHOICES = (*POOLED, "cold", *PEERS)
DETAILS = {
    "warm": ("warm_post", "warm_exec"),
    "cold": ("cold_post", "cold_exec"),
    "suspend": ("wake",),
    "burst_20": ("burst_20_hits", "burst_20_misses"),
    "burst_100": ("burst_100_hits", "burst_100_misses"),
}
SETTINGS = {
    # Room for 120 VMs at once on a machine with two processors; none of these makes a request quicker.
    "FF_VM_RESERVE_BYTES": str(64 << 20),
    "FF_VMS_PER_CPU_MAX": "200",
    "FF_RATE_READ": "1000000",
    "FF_RATE_WRITE": "1000000",
    "FF_SUSPEND_AFTER_S": "0",
}


def rows(found: Rounds, chosen: Sequence[str]) -> list[Row]:
    """Everything that was to be measured, with its limits."""
    made = []
    peer = found.of("docker_run").row("docker_run")
    for name in chosen:
        series = found.of(name)
        if name == "warm":
            limit, limit_p95 = WARM.docker_run_ratio_max, WARM.docker_run_p95_ratio_max
            made.append(series.row(name, limit=_of(peer, limit), limit_p95=_of(peer, limit_p95), success_min=1.0))
        elif name == "cold":
            made.append(series.row(name, limit=_of(peer, COLD_START.ratio_max), success_min=1.0))
        elif name == "burst_20":
            made.append(series.row(name, limit_p95=BURST.p95_ms_max, success_min=BURST.success_min))
        else:
            made.append(series.row(name))
        made += [found.of(detail).row(detail) for detail in DETAILS.get(name, ())]
    if found.of("warm_missed").samples:
        made.append(found.of("warm_missed").row("warm_missed"))
    return made + ratios({row.name: row for row in made if row.samples})


def _of(peer: Row, ratio: float) -> float | None:
    return peer.median * ratio if peer.samples else None


def ratios(by_name: dict[str, Row]) -> list[Row]:
    """What the budgets are about: ours to theirs."""
    made = []
    for ours, theirs, limit in (
        ("warm", "docker_run", WARM.docker_run_ratio_max),
        ("warm", "swe_rex", WARM.peers_ratio_max),
        ("warm", "jupyterhub", WARM.peers_ratio_max),
        ("cold", "docker_run", COLD_START.ratio_max),
        ("cold", "docker_run_crun", None),
    ):
        if ours in by_name and theirs in by_name:
            made.append(Row(f"{ours}_vs_{theirs}", "x", [by_name[ours].median / by_name[theirs].median], limit))
    if "warm" in by_name and "docker_run" in by_name:
        ratio = by_name["warm"].quantile(0.95) / by_name["docker_run"].median
        made.append(Row("warm_p95_vs_docker_run", "x", [ratio], WARM.docker_run_p95_ratio_max))
    return made


async def measure(found: Rounds, chosen: Sequence[str], rounds: int, image: str, urls: dict[str, str]) -> None:
    """Bring the peers up, then let everybody take turns. ``urls``: our servers, ``pooled`` and ``cold``."""
    acts = Acts(found)
    async with AsyncExitStack() as stack:
        where = await stack.enter_async_context(place(f"ff-bench-{secrets.token_hex(4)}"))
        for name, peer in PEERS.items():
            if name in chosen:
                try:
                    once = await stack.enter_async_context(peer(where, image))
                except PeerFailed as error:
                    found.absent(name, error)
                else:
                    found.every(1, partial(acts.peer, name, once), times=DOCKER_A_ROUND if name == "docker_run" else 1)
        if "cold" in urls:
            found.every(1, partial(acts.cold, await stack.enter_async_context(account_on(urls["cold"]))))
        if "pooled" in urls:
            ours = await stack.enter_async_context(account_on(urls["pooled"]))
            for name, every, act, times in (
                ("warm", 1, partial(acts.warm, ours), WARM_A_ROUND),
                ("suspend", 1, partial(acts.suspend_and_wake, ours), 1),
                ("burst_20", ROUNDS_A_BURST, partial(acts.burst, "burst_20", ours, BURST.at_once), 1),
                ("burst_100", ROUNDS_A_LARGE_BURST, partial(acts.burst, "burst_100", ours, MANY), 1),
            ):
                if name in chosen:
                    found.every(every, act, times=times)
        await found.run(rounds)


def built_image() -> str:
    """The image of this tree, built when it is not there."""
    proxies = {name: os.environ[name] for name in PROXY_VARIABLES if os.environ.get(name)}
    return asyncio.run(build(ROOT, extra_ca=read_extra_ca(None, os.environ), proxies=proxies)).tag


def main() -> int:
    """Measure and publish."""
    parser = argparse.ArgumentParser(prog="python -m bench.vms", description=__doc__)
    parser.add_argument("--only", nargs="+", choices=CHOICES, default=CHOICES, help="what to measure (default: all)")
    parser.add_argument("--rounds", type=int, default=ROUNDS, help=f"how often (default: {ROUNDS})")
    arguments = parser.parse_args()
    chosen = [name for name in CHOICES if name in arguments.only]
    image = built_image()
    found = Rounds()
    with ExitStack() as stack:
        urls = {}
        for name, pool, needed in (
            ("pooled", BURST.at_once, any(name in POOLED for name in chosen)),
            ("cold", 0, "cold" in chosen),
        ):
            if needed:
                folder = scratch_folder("ff-bench-")
                stack.callback(shutil.rmtree, folder, ignore_errors=True)
                network = stack.enter_context(standing_network("bench"))
                settings = {**SETTINGS, "FF_DEPLOYMENT": network.deployment, "FF_VM_IMAGE": image, "FF_POOL_SIZE": str(pool)}
                urls[name] = stack.enter_context(running_server(folder, settings)).url
        asyncio.run(measure(found, chosen, arguments.rounds, image, urls))
    code = publish("vms" if len(chosen) == len(CHOICES) else "vms-part", rows(found, chosen))
    (RESULTS / "machine.json").write_text(json.dumps(facts(image), indent=2) + "\n")
    return code


if __name__ == "__main__":
    sys.exit(main())
