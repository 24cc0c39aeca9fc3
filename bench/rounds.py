"""Taking turns: what is measured, in rounds of changing order, and what came of it by name."""

import random
import sys
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

from bench.ours import Failed, Ours, Started
from bench.peers.base import PeerFailed, Round
from bench.report import Row

FAILURES_TOLD = 3
REASON_CHARS_MAX = 300
SEED = 4

Act = Callable[[], Awaitable[None]]


@dataclass
class Series:
    """What came of all attempts of one name."""

    samples: list[float] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)

    def row(self, name: str, *, limit: float | None = None, limit_p95: float | None = None, success_min: float = 0.0) -> Row:
        """The row of this name."""
        reason = "; ".join(dict.fromkeys(self.failures[:FAILURES_TOLD])) or None
        failed = len(self.failures)
        return Row(name, "ms", self.samples, limit, limit_p95, failures=failed, success_min=success_min, reason=reason)


@dataclass(frozen=True)
class Turn:
    """Something to do every so many rounds, so many times."""

    every: int
    times: int
    act: Act


class Rounds:
    """Turns and their series."""

    def __init__(self) -> None:
        self._series: dict[str, Series] = {}
        self._absent: dict[str, Series] = {}
        self._turns: list[Turn] = []

    def every(self, rounds: int, act: Act, *, times: int = 1) -> None:
        """Do this every so many rounds, the last of all among them."""
        self._turns.append(Turn(rounds, times, act))

    async def run(self, count: int) -> None:
        """Do everything. A first round, of what every round does, fills caches and is not counted."""
        chance = random.Random(SEED)
        for number in range(count + 1):
            print(f"bench: round {number} of {count}", flush=True)
            due = [turn for turn in self._turns if (turn.every == 1 if number == 0 else (count - number) % turn.every == 0)]
            acts = [turn.act for turn in due for _ in range(turn.times if number else 1)]
            chance.shuffle(acts)
            for act in acts:
                await act()
            if number == 0:
                self._series.clear()

    def of(self, name: str) -> Series:
        """What is known under a name; empty when nothing is."""
        return self._absent.get(name) or self._series.get(name) or Series()

    def keep(self, name: str, value: float) -> None:
        """One sample."""
        self._series.setdefault(name, Series()).samples.append(value)

    def fail(self, name: str, error: Exception) -> None:
        """One attempt that came to nothing."""
        print(f"bench: {name}: {_line(error)}", file=sys.stderr, flush=True)
        self._series.setdefault(name, Series()).failures.append(_line(error))

    def absent(self, name: str, error: Exception) -> None:
        """It can't take part at all."""
        print(f"bench: {name} does not take part: {_line(error)}", file=sys.stderr, flush=True)
        self._absent[name] = Series(failures=[_line(error)])


class Acts:
    """What can be measured, each one attempt; failures are counted and told."""

    def __init__(self, rounds: Rounds) -> None:
        self._rounds = rounds
        self._names = (f"bench {number}" for number in range(10**9))

    async def peer(self, name: str, once: Round) -> None:
        """A round of a peer."""
        try:
            self._rounds.keep(name, await once())
        except PeerFailed as error:
            self._rounds.fail(name, error)

    async def warm(self, ours: Ours) -> None:
        """The pool is full; one workspace."""
        try:
            await ours.renew()
            await ours.full_pool()
            started = await ours.start(next(self._names))
            self._started("warm" if started.hit else "warm_missed", started)
            await ours.clear()
        except Failed as error:
            self._rounds.fail("warm", error)

    async def cold(self, ours: Ours) -> None:
        """There is no pool; one workspace."""
        try:
            await ours.renew()
            self._started("cold", await ours.start(next(self._names)))
            await ours.clear()
        except Failed as error:
            self._rounds.fail("cold", error)

    async def suspend_and_wake(self, ours: Ours) -> None:
        """A workspace is put to sleep, and woken by a command; the pool is full meanwhile."""
        name = "suspend"
        try:
            await ours.renew()
            await ours.full_pool()
            started = await ours.start(next(self._names))
            await ours.ready(started.path)
            await ours.full_pool()
            self._rounds.keep("suspend", await ours.suspend(started.path))
            name = "wake"
            self._rounds.keep("wake", await ours.wake(started.path))
            await ours.clear()
        except Failed as error:
            self._rounds.fail(name, error)

    async def burst(self, name: str, ours: Ours, at_once: int) -> None:
        """The pool is full; so many workspaces at once."""
        try:
            await ours.renew()
            await ours.full_pool()
            for found in await ours.start_many([next(self._names) for _ in range(at_once)]):
                if isinstance(found, Failed):
                    self._rounds.fail(name, found)
                else:
                    self._rounds.keep(name, found.output_ms)
                    self._rounds.keep(f"{name}_hits" if found.hit else f"{name}_misses", found.output_ms)
            await ours.clear()
        except Failed as error:
            self._rounds.fail(name, error)

    def _started(self, name: str, started: Started) -> None:
        self._rounds.keep(name, started.output_ms)
        self._rounds.keep(f"{name}_post", started.posted_ms)
        self._rounds.keep(f"{name}_exec", started.output_ms - started.posted_ms)


def _line(error: Exception) -> str:
    return " ".join(str(error).split())[:REASON_CHARS_MAX]
