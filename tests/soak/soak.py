"""Workspaces come and go by the hundreds, things go wrong meanwhile, and afterwards nothing is left.

``soak.py --rounds 1000 --faults``. Everything is real. It exits with 1 when a promise was broken (wrong output, a lost workspace,
a state that does not end, a failure without a cause) or when something grew that must not (measures.py). ``--seed`` repeats the
choice of faults.
"""

import argparse
import asyncio
import secrets
import shutil
import signal
import sys
import time
from collections.abc import Awaitable, Callable
from random import Random

import aiohttp
from faults import Faults
from measures import grown, measure, table
from place import Place, place
from workspace_round import REQUEST_TIMEOUT_S, Broken, Lane, Tally

from ff_cloud.testing.server import scratch_folder, standing_network

LANES = 4
WARM_UP = 20
REPORT_EVERY = 50
SETTLE_TIMEOUT_S = 180.0
SETTLED_S = 10.0
"""So long after the last act, what was kept for a while (connections, threads) has been given back."""
SETTLE_POLL_S = 0.5
WARM_UP_TIMEOUT_S = 300.0
UNDER_WAY = "select kind, status, step_name, error_code from operations where status in ('queued', 'running', 'stuck')"
BROKEN_MAX = 10
"""After so many broken promises it goes on no longer."""


def say(text: str) -> None:
    """To whoever watches."""
    print(f"soak: {text}", flush=True)  # noqa: T201


async def soak(place: Place, *, rounds: int, faults: bool, seed: int, minutes_max: float) -> int:
    """All of it; the exit code."""
    timeout = aiohttp.ClientTimeout(total=REQUEST_TIMEOUT_S)
    async with aiohttp.ClientSession(timeout=timeout, trust_env=False) as http:
        trouble = Faults(place, seed, rounds)
        lanes = [Lane(place, http, Tally(), trouble.healing) for _ in range(LANES)]
        for lane in lanes:
            await lane.sign_up()
        await asyncio.to_thread(place.ask, "update plans set workspaces_max = 1000, running_vms_max = 1000")

        say(f"{WARM_UP} rounds to warm up")
        warmed = await run(lanes, WARM_UP, seed=seed, deadline=time.monotonic() + WARM_UP_TIMEOUT_S)
        await settled(lanes[0], place)
        begin = await asyncio.to_thread(measure, place)
        if warmed.broken or warmed.done < WARM_UP:
            return verdict(warmed, WARM_UP, begin, begin)

        say(f"{rounds} rounds, {LANES} at once, faults {'on' if faults else 'off'}, --seed {seed}")
        before = trouble.before if faults else None
        tally = await run(lanes, rounds, seed=seed, before=before, deadline=time.monotonic() + minutes_max * 60)
        say(f"faults: {dict(trouble.counts)}; the server was started {place.server_starts} times")
        try:
            await settled(lanes[0], place)
        except Broken as broken:
            tally.broken.append(str(broken))
        return verdict(tally, rounds, begin, await asyncio.to_thread(measure, place))


async def run(
    lanes: list[Lane],
    rounds: int,
    *,
    seed: int,
    deadline: float,
    before: Callable[[int], Awaitable[None]] | None = None,
) -> Tally:
    """So many rounds, shared among the lanes; fewer when time is up or too much is broken."""
    tally, numbers, began = Tally(), iter(range(1, rounds + 1)), time.monotonic()

    async def work(lane: Lane) -> None:
        lane.tally = tally
        for number in numbers:
            if time.monotonic() > deadline or len(tally.broken) >= BROKEN_MAX:
                return
            try:
                if before is not None:
                    await before(number)
                await lane.round(number, Random(f"{seed} round {number}"))
            except Broken as broken:
                tally.broken.append(f"round {number}: {broken}")
                say(f"BROKEN: {tally.broken[-1]}")
            if tally.done and tally.done % REPORT_EVERY == 0:
                say(progress(tally, time.monotonic() - began))

    async with asyncio.TaskGroup() as group:
        for lane in lanes:
            group.create_task(work(lane))
    say(progress(tally, time.monotonic() - began))
    return tally


def progress(tally: Tally, took_s: float) -> str:
    """One line."""
    times = sorted(tally.round_s) or [0.0]
    p50, p95 = (times[min(len(times) - 1, int(len(times) * part))] for part in (0.5, 0.95))
    text = f"{tally.done} rounds in {took_s:.0f} s ({tally.done / took_s:.2f}/s), p50 {p50:.2f} s, p95 {p95:.2f} s, "
    text += f"{tally.sleeps} slept; FAILED {dict(tally.failed)}; asked again {dict(tally.refusals.most_common(12))}"
    return text + (f"; BROKEN {len(tally.broken)}" if tally.broken else "")


async def settled(lane: Lane, place: Place) -> None:
    """Wait until the pool is full, nothing else is there, and that stays so. Raises :class:`Broken`."""
    deadline, since = time.monotonic() + SETTLE_TIMEOUT_S, None
    while since is None or time.monotonic() - since < SETTLED_S:
        why = await unsettled(lane, place)
        if why is None:
            since = since if since is not None else time.monotonic()
        else:
            since = None
            if time.monotonic() > deadline:
                raise Broken(f"it does not settle within {SETTLE_TIMEOUT_S:g} s: {why}")
        await asyncio.sleep(SETTLE_POLL_S)


async def unsettled(lane: Lane, place: Place) -> str | None:
    """What is not in order yet: a container for every row of a VM, nothing under way, no workspace."""
    if not await lane.full_pool():
        return "the pool is not full"
    rows = await asyncio.to_thread(place.ask, "select id, status from vms")
    if odd := [row for row in rows if row[1] != "WARM"]:
        return f"VMs that are not warm: {odd}"
    if acts := await asyncio.to_thread(place.ask, UNDER_WAY):
        return f"operations under way or stuck: {acts}"
    expected = sorted(place.container_of(row[0]) for row in rows)
    found = await asyncio.to_thread(place.containers)
    return None if found == expected else f"containers {found} instead of {expected}"


def verdict(tally: Tally, rounds: int, begin: dict[str, int], end: dict[str, int]) -> int:
    """Say how it went."""
    say("\n" + table(begin, end))
    problems = [f"{name} grew from {begin[name]} to {end[name]}" for name in grown(begin, end)]
    problems += [text.splitlines()[0] for text in tally.broken]
    if tally.done < rounds:
        problems.append(f"{tally.done} of {rounds} rounds were done")
    for problem in problems:
        say(f"FAILED: {problem}")
    say(
        f"{tally.done} rounds, {sum(tally.failed.values())} workspaces FAILED while a fault was healed: "
        + ("not ok" if problems else "ok")
    )
    return 1 if problems else 0


def main() -> int:
    """Stage it; nothing is left of it afterwards, also when it is interrupted."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=1000)
    parser.add_argument("--faults", action="store_true", help="let things go wrong")
    parser.add_argument("--seed", type=int, default=secrets.randbelow(10**6), help="of the faults; a new one unless given")
    parser.add_argument("--minutes-max", type=float, default=17.0, help="fewer rounds when they would take longer: that fails")
    parser.add_argument("--keep", action="store_true", help="keep the folder with the server's log")
    asked = parser.parse_args()
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    folder = scratch_folder("ff-soak-")
    say(f"logs in {folder}")
    code = 1
    try:
        with standing_network("soak") as network, place(folder, network) as where:
            code = asyncio.run(
                soak(where, rounds=asked.rounds, faults=asked.faults, seed=asked.seed, minutes_max=asked.minutes_max)
            )
    except KeyboardInterrupt:
        say("interrupted")
    finally:
        if code == 0 and not asked.keep:
            shutil.rmtree(folder, ignore_errors=True)
        else:
            say(f"the server's log is {folder / 'server.log'}")
    return code


if __name__ == "__main__":
    sys.exit(main())
