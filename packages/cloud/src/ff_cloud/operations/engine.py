"""The worker's side: claims operations, keeps their leases, and carries each one on.

Any number of workers may run. A worker that dies, stops answering or is paused loses its operations when their leases
run out; another one repeats the step that was interrupted. What the first may still do then is refused by the fence.
"""

import asyncio
import os
import socket
from collections.abc import Callable, Sequence

import structlog

from ff_cloud.kit.db import Database
from ff_cloud.kit.errors import DatabaseUnavailable
from ff_cloud.kit.heartbeats import UNHEARD, Pulse
from ff_cloud.kit.metrics import Metrics, OperationMetrics
from ff_cloud.kit.notify import Listener, Missed
from ff_cloud.kit.tracing import UNTRACED, Tracing
from ff_cloud.operations import service
from ff_cloud.operations.lease import Lease, LeaseRepository, kinds_claimed
from ff_cloud.operations.machine import Limits
from ff_cloud.operations.model import Kind, Operation
from ff_cloud.operations.run import Crash, Interrupt, Run, Tools, survive
from ff_cloud.operations.tables import CHANNEL
from ff_core.errors import TimedOut
from ff_core.ids import OperationId
from ff_core.world import World

log = structlog.get_logger(__name__)

_LAST_WORDS_S = 5.0
"""What writing "handed back" may take beyond the grace of a cancelled step."""


class Operations:
    """Carries out the operations of ``kinds``. Built once per worker process."""

    def __init__(
        self,
        db: Database,
        kinds: Sequence[Kind],
        world: World,
        *,
        limits: Limits | None = None,
        crash: Crash = survive,
        on_end: Callable[[Operation], None] = lambda _op: None,
        metrics: OperationMetrics | None = None,
        tracing: Tracing = UNTRACED,
        pulse: Pulse = UNHEARD,
    ) -> None:
        self._db = db
        self._kinds = {kind.name: kind for kind in kinds}
        self._step_names = kinds_claimed(kinds)
        self._world = world
        self._limits = limits or Limits()
        metrics = metrics or Metrics.build().operations
        for kind in kinds:
            metrics.expect(kind.name, [step.name for step in kind.steps])
        metrics.watch_running(lambda: len(self._runs))
        self._tools = Tools(db, self._limits, crash, metrics, tracing, on_end)
        self._pulse = pulse
        self._name = f"{socket.gethostname()}:{os.getpid()}:{world.new_id().hex[-6:]}"
        self._runs: dict[asyncio.Task[None], Run] = {}
        self._due = asyncio.Event()
        self._renewal = asyncio.Event()

    async def work(self, concurrency_max: int = 8) -> None:
        """Work until cancelled, on at most ``concurrency_max`` operations at once; then hand back what is not finished.

        Handing back takes at most the grace of a step and a few seconds.
        """
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._listen())
                group.create_task(self._renew())
                group.create_task(self._claim(concurrency_max))
        finally:
            await self._hand_back()

    async def wait(self, id: OperationId, *, timeout_s: float = 30.0) -> Operation:  # noqa: A002
        """The operation when it has ended. Raises ``TimedOut`` after ``timeout_s``. For tests and commands."""
        try:
            async with asyncio.timeout(timeout_s):
                while True:
                    async with self._db.system_transaction() as tx:
                        op = await service.get(tx, id)
                    if op.finished:
                        return op
                    await self._world.sleep(0.02)
        except TimeoutError as error:
            raise TimedOut(f"The operation did not end within {timeout_s:g} s.") from error

    async def _claim(self, concurrency_max: int) -> None:
        while True:
            self._due.clear()
            free = concurrency_max - len(self._runs)
            claimed = await self._claim_some(free) if free else []
            if not free:
                self._pulse.ok()  # hands full is no failure; how long others wait is told apart
            for op in claimed:
                run = Run(op, self._kinds[op.kind], self._tools)
                task = asyncio.create_task(run.carry_on(), name=f"operation {op.kind} {op.id}")
                self._runs[task] = run
                task.add_done_callback(self._finished)
            if not claimed or len(claimed) < free:
                await self._wait(self._due, self._limits.poll_s)

    async def _claim_some(self, rows_max: int) -> list[Operation]:
        try:
            async with self._db.system_transaction() as tx:
                claimed = await LeaseRepository(tx).claim(
                    self._name, self._step_names, lease_s=self._limits.lease_s, rows_max=rows_max
                )
        except DatabaseUnavailable as error:
            log.warning("operations.cannot_claim", reason=error.detail)
            self._pulse.failed(error)
            return []
        self._pulse.ok()
        return claimed

    async def _renew(self) -> None:
        loop = asyncio.get_running_loop()
        renewed_at = loop.time()
        while True:
            await self._wait(self._renewal, self._limits.renew_s)
            self._renewal.clear()
            # Only what was held when we asked can be missing from the answer.
            held = list(self._runs.values())
            asked_at = loop.time()
            try:
                kept = await self._renew_leases([run.lease for run in held])
                renewed_at = asked_at
            except DatabaseUnavailable as error:
                log.warning("operations.cannot_renew", reason=error.detail)
                if loop.time() - renewed_at < self._limits.lease_s:
                    continue
                kept = {}
            for run in held:
                if run.lease not in kept:
                    run.interrupt(Interrupt.LOST)
                elif kept[run.lease]:
                    run.interrupt(Interrupt.CANCEL)

    async def _renew_leases(self, held: list[Lease]) -> dict[Lease, bool]:
        if not held:
            return {}
        async with self._db.system_transaction() as tx:
            return await LeaseRepository(tx).renew(held, lease_s=self._limits.lease_s)

    async def _listen(self) -> None:
        async with Listener(self._db.direct_url, [CHANNEL], world=self._world) as listener:
            async for news in listener:
                if isinstance(news, Missed) or news.payload.startswith("queued "):
                    self._due.set()
                if isinstance(news, Missed) or news.payload.startswith("cancel "):
                    self._renewal.set()

    async def _hand_back(self) -> None:
        tasks = set(self._runs)
        for run in self._runs.values():
            run.interrupt(Interrupt.STOP)
        if tasks:
            _, late = await asyncio.wait(tasks, timeout=self._limits.cancel_grace_s + _LAST_WORDS_S)
            for task in late:
                task.cancel()
            await asyncio.gather(*late, return_exceptions=True)

    async def _wait(self, event: asyncio.Event, seconds: float) -> None:
        """Return when ``event`` is set, or after ``seconds``."""
        waiting = {asyncio.ensure_future(event.wait()), asyncio.ensure_future(self._world.sleep(seconds))}
        try:
            await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in waiting:
                task.cancel()

    def _finished(self, task: asyncio.Task[None]) -> None:
        run = self._runs.pop(task)
        self._due.set()
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("operations.run_failed", operation=str(run.op.id), exc_info=error)
