"""What goes wrong, by chance and by number, from a seed."""

import asyncio
import os
import signal
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from random import Random

from place import Place, docker

from ff_core.ids import VmId

HEAL_S = 60.0
"""So long after a fault something may fail honestly because of it."""
STOPPED_S = 2.0
VM_IN = 20
WARM_IN = 30
DAEMON_IN = 20
STOP_IN = 60
SERVER_EVERY = 200
POSTGRES_EVERY = 250
FIRST_SERVER, FIRST_POSTGRES = 50, 80


Fault = Callable[[Random], Awaitable[bool]]


class Faults:
    """One look per round. ``rounds``: in the last third the server is left alone, so that a leak of it has time to show."""

    def __init__(self, place: Place, seed: int, rounds: int) -> None:
        self.counts: Counter[str] = Counter()
        self._place = place
        self._seed = seed
        self._rounds = rounds
        self._at = -HEAL_S
        self._one_at_once = asyncio.Lock()

    def healing(self) -> bool:
        """Whether one was so short a while ago, or goes on, that something may still be broken."""
        return self._one_at_once.locked() or time.monotonic() - self._at < HEAL_S

    async def before(self, number: int) -> None:
        """Those of this round."""
        chance = Random(f"{self._seed} {number}")
        wanted: list[Fault] = []
        if number % SERVER_EVERY == FIRST_SERVER and number < max(self._rounds * 2 / 3, FIRST_SERVER + 1):
            wanted.append(self._kill_server)
        if number % POSTGRES_EVERY == FIRST_POSTGRES:
            wanted.append(self._kill_postgres)
        odds: list[tuple[int, Fault]] = [(VM_IN, self._kill_vm), (WARM_IN, self._remove_warm), (DAEMON_IN, self._kill_daemon)]
        odds.append((STOP_IN, self._stop_server))
        wanted += [act for one_in, act in odds if chance.randrange(one_in) == 0]
        for act in wanted:
            async with self._one_at_once:
                if await act(chance):
                    self.counts[getattr(act, "__name__", "").strip("_")] += 1
                    self._at = time.monotonic()

    async def _kill_server(self, _: Random) -> bool:
        await self._place.restart()
        return True

    async def _stop_server(self, _: Random) -> bool:
        os.kill(self._place.server.pid, signal.SIGSTOP)
        try:
            await asyncio.sleep(STOPPED_S)
        finally:
            os.kill(self._place.server.pid, signal.SIGCONT)
        return True

    async def _kill_postgres(self, _: Random) -> bool:
        pid = self._place.postgres.pid
        if pid is None:
            return False
        os.kill(pid, signal.SIGKILL)
        return True

    async def _kill_vm(self, chance: Random) -> bool:
        name = await self._any_container(chance)
        if name is not None:
            await asyncio.to_thread(docker, "kill", name, check=False)
        return name is not None

    async def _kill_daemon(self, chance: Random) -> bool:
        name = await self._any_container(chance)
        if name is not None:
            await asyncio.to_thread(docker, "exec", name, "pkill", "-KILL", "-f", "ff-daemon", check=False)
        return name is not None

    async def _remove_warm(self, chance: Random) -> bool:
        rows = await asyncio.to_thread(self._place.ask, "select id from vms where status = 'WARM' order by id")
        if rows:
            name = self._place.container_of(VmId(chance.choice(rows)[0]))
            await asyncio.to_thread(docker, "rm", "--force", name, check=False)
        return bool(rows)

    async def _any_container(self, chance: Random) -> str | None:
        names = await asyncio.to_thread(self._place.containers, running=True)
        return chance.choice(names) if names else None
