"""Carries handoffs out: several at once, each step by step, through broken connections and restarts, back when it has to."""

import asyncio
import contextlib
import logging
from collections.abc import Coroutine
from functools import partial
from typing import Any

from ff_core.contract.handoff import HandoffView
from ff_core.contract.local import LocalStatus
from ff_core.contract.problem import RemoteProblem
from ff_core.errors import FFError
from ff_core.ids import HandoffId, WorkspaceId
from ff_core.world import World
from ff_desktop.errors import CredentialsBusy, KeyringUnusable, NotLoggedIn, ServerUnreachable
from ff_desktop.handoffs import pulling, sending
from ff_desktop.handoffs.errors import CameToNothing, DesktopDiskFull, OtherAccount, status_of, view_of
from ff_desktop.handoffs.home import Home
from ff_desktop.handoffs.ledger import Handoff, Ledger, Turned
from ff_desktop.handoffs.machine import (
    Back,
    Finished,
    Leg,
    Stage,
    Step,
    Verdict,
    Way,
    forward_only,
    next_act,
    server_may_know,
    verdict,
)
from ff_desktop.handoffs.places import DONE, WRITTEN, Crash
from ff_desktop.handoffs.report import Reports
from ff_desktop.handoffs.server import receipt_of
from ff_desktop.handoffs.trip import ASK_AGAIN_S, Connect, Later, Trip

AT_ONCE_MAX = 3
"""Handoffs that pack, transfer or wait for the server; the others queue."""
PAUSE_S_FIRST = 1.0
PAUSE_S_MAX = 60.0
PAUSE_GROWTH = 2.0
OWED_EVERY_S = 60.0
_TRANSIENT = frozenset({401, 408, 425, 429, 500, 502, 503, 504})
"""What a server may answer that says nothing about the handoff itself."""
_BUSY = frozenset({"operation_active"})
"""Something else is done with the workspace there just now."""

log = logging.getLogger("ff_desktop.handoffs")


class Runner:
    """The handoffs of this desktop. Call :meth:`recover` once before anything else, :meth:`close` at the end.

    ``crash`` is told where every handoff is; tests die there.
    """

    def __init__(self, home: Home, ledger: Ledger, connect: Connect, world: World, *, crash: Crash = lambda _: None) -> None:
        self._home, self._ledger, self._connect, self._world = home, ledger, connect, world
        self._crash = crash
        self._slots = asyncio.Semaphore(AT_ONCE_MAX)
        self._runs: dict[HandoffId, _Run] = {}
        self._owed = asyncio.Event()
        self._settling: asyncio.Task[None] | None = None
        self.reports = Reports()

    def recover(self) -> None:
        """Go on with everything that a process which ended has left, and tell the server what it was not told."""
        for handoff in self._ledger.every_open():
            self.start(handoff.id)
        self._owed.set()
        self._settling = asyncio.create_task(self._settle_owed())

    def start(self, handoff_id: HandoffId) -> None:
        """Go on with a handoff that is open: at once, if it was waiting to try again. May be repeated."""
        run = self._runs.get(handoff_id)
        if run is None or run.task.done():
            run = self._runs[handoff_id] = _Run(asyncio.create_task(self._drive(handoff_id)))
            run.task.add_done_callback(partial(self._ended, handoff_id, run))
        run.go_on.set()

    def turn(self, handoff_id: HandoffId, turned: Turned) -> None:
        """Turn it round, if that is still possible; what it does just now is given up. May be repeated."""
        self._ledger.turn(handoff_id, turned)
        self.start(handoff_id)
        run = self._runs[handoff_id]
        if run.act is not None and not run.turning:
            run.act.cancel()

    async def finished(self, handoff_id: HandoffId) -> None:
        """Return when it is over, or can't go on by itself."""
        run = self._runs.get(handoff_id)
        if run is not None:
            await asyncio.wait([run.task])

    async def halt(self, handoff_id: HandoffId) -> None:
        """Stop one where it is. May be repeated."""
        run = self._runs.get(handoff_id)
        if run is not None:
            run.task.cancel()
            await asyncio.wait([run.task])

    async def close(self) -> None:
        """Stop everything where it is; :meth:`recover` goes on with it. May be repeated."""
        tasks = [run.task for run in self._runs.values()]
        for run in self._runs.values():
            if run.trip is not None:
                run.trip.close()  # so that nobody waits for an answer
        if self._settling is not None:
            tasks.append(self._settling)
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)

    async def _drive(self, handoff_id: HandoffId) -> None:
        """One act after another until it is over."""
        pause_s = PAUSE_S_FIRST
        run = self._runs[handoff_id]
        while True:
            handoff = self._ledger.get(handoff_id)
            if not handoff.open:
                break
            act = next_act(handoff.way, handoff.step, turned=handoff.state.turned is not None)
            if isinstance(act, Finished):
                self._ledger.set_status(handoff_id, LocalStatus.DONE)
                break
            wait_s: float | None = None
            try:
                await self._try(run, handoff, act)
                pause_s = PAUSE_S_FIRST
            except Later as later:
                self.reports.of(handoff_id).begin(later.why)
                wait_s = later.seconds
            except Exception as error:  # noqa: BLE001  (whatever it is, it is written down)
                if self._gives_up(handoff, act, error):
                    continue
                wait_s, pause_s = pause_s, min(pause_s * PAUSE_GROWTH, PAUSE_S_MAX)
            if wait_s is not None:
                await self._pause(run, wait_s)
        self.reports.forget(handoff_id)

    async def _try(self, run: "_Run", handoff: Handoff, act: Leg | Back) -> None:
        """One act, unless it is turned round meanwhile."""
        report = self.reports.of(handoff.id)
        report.begin("waiting until others are done" if self._slots.locked() else "")
        async with self._slots:
            report.begin(act.says if isinstance(act, Leg) else "going back")
            if handoff.status is LocalStatus.STOPPED:
                handoff = self._ledger.set_status(handoff.id, LocalStatus.RUNNING)
            trip = Trip(
                handoff,
                act.stage if isinstance(act, Leg) else act,
                home=self._home,
                ledger=self._ledger,
                world=self._world,
                connect=self._connect,
                report=report,
                crash=self._crash,
            )
            run.trip, run.turning = trip, isinstance(act, Back)
            try:
                await self._interruptible(run, self._act(trip, act))
            finally:
                run.trip = None
                trip.close()

    async def _interruptible(self, run: "_Run", act: Coroutine[Any, Any, None]) -> None:
        run.act = asyncio.create_task(act)
        try:
            await asyncio.wait([run.act])
        except asyncio.CancelledError:
            run.act.cancel()
            with contextlib.suppress(asyncio.CancelledError, Exception):
                await run.act
            raise
        finally:
            done, run.act = run.act, None
        if not done.cancelled():  # otherwise it was turned round, and what comes next is looked up
            done.result()

    async def _act(self, trip: Trip, act: Leg | Back) -> None:
        match act:
            case Leg(stage=stage):
                if stage is Stage.CREATE:
                    await self._settle(trip.handoff.workspace_id)
                await (sending if trip.handoff.way is Way.SEND else pulling).do(trip, stage)
            case Back.ASK:
                await self._ask(trip)
            case Back.UNDO:
                await self._undo(trip, owes=server_may_know(trip.handoff.way, trip.handoff.step))

    async def _ask(self, trip: Trip) -> None:
        """Have the server say what became of it, before anything is undone."""
        view = await (await trip.server()).abort(trip.handoff.id)
        match verdict(None if view is None else view.status):
            case Verdict.COMMITTED if view is not None:
                trip.handoff = self._ledger.commit(trip.handoff.id, receipt_of(view))
            case Verdict.OPEN:
                raise Later(ASK_AGAIN_S, "the server is giving it up")
            case _:
                await self._undo(trip, owes=False)

    async def _undo(self, trip: Trip, *, owes: bool) -> None:
        handoff = trip.handoff
        turned = handoff.state.turned
        await (sending if handoff.way is Way.SEND else pulling).undo(trip)
        trip.at(DONE)
        status, error = (LocalStatus.ABORTED, None) if turned is None else (turned.status, turned.error)
        trip.handoff = self._ledger.close(handoff.id, status, error, owes=owes)
        trip.at(WRITTEN)
        if owes:
            self._owed.set()

    def _gives_up(self, handoff: Handoff, act: Leg | Back, error: Exception) -> bool:
        """Turn it round, or write down why it stopped; which of the two."""
        known = error if isinstance(error, FFError) else FFError()
        if not isinstance(error, FFError):
            log.error("handoff %s failed at %s", handoff.id, act, exc_info=error)
        handoff = self._ledger.get(handoff.id)  # as it is now: the act may have gone further than it began
        stays = isinstance(act, Back) or forward_only(handoff.way, handoff.step)
        if not stays and (handoff.step is Step.BEGUN or not may_pass(error)):
            turned = Turned(status=LocalStatus.FAILED, error=view_of(known), http_status=status_of(known))
            self._ledger.turn(handoff.id, turned)
            return True
        self._ledger.set_status(handoff.id, LocalStatus.STOPPED, view_of(known))
        return False

    async def _pause(self, run: "_Run", seconds: float) -> None:
        """Wait, unless somebody wants it to go on."""
        run.go_on.clear()
        waiting = asyncio.create_task(self._world.sleep(seconds))
        wanted = asyncio.create_task(run.go_on.wait())
        try:
            await asyncio.wait([waiting, wanted], return_when=asyncio.FIRST_COMPLETED)
        finally:
            waiting.cancel()
            wanted.cancel()

    async def _settle_owed(self) -> None:
        """Tell the server what it has to be told, again and again until it has heard it."""
        while True:
            self._owed.clear()
            with contextlib.suppress(FFError):
                await self._settle(None)
            if not self._ledger.owing():
                await self._owed.wait()
                continue
            sleeping = asyncio.create_task(self._world.sleep(OWED_EVERY_S))
            wanted = asyncio.create_task(self._owed.wait())
            try:
                await asyncio.wait([sleeping, wanted], return_when=asyncio.FIRST_COMPLETED)
            finally:
                sleeping.cancel()
                wanted.cancel()

    async def _settle(self, workspace_id: WorkspaceId | None) -> None:
        """Have what was given up here given up there, oldest first."""
        for handoff in self._ledger.owing(workspace_id):
            trip = Trip(
                handoff,
                Back.UNDO,
                home=self._home,
                ledger=self._ledger,
                world=self._world,
                connect=self._connect,
                report=self.reports.of(handoff.id),
                crash=lambda _: None,
            )
            try:
                view = await (await trip.server()).abort(handoff.id)
            finally:
                trip.close()
                self.reports.forget(handoff.id)
            self._settled(handoff, view)

    def _settled(self, handoff: Handoff, view: HandoffView | None) -> None:
        match verdict(None if view is None else view.status):
            case Verdict.OPEN:
                return
            case Verdict.COMMITTED if view is not None and not self._is_past(handoff, view):
                # It can't be, unless this database is older than what it says: the server decides.
                log.error("handoff %s was given up here and is committed there; it goes on", handoff.id)
                self._ledger.commit(handoff.id, receipt_of(view))
                self.start(handoff.id)
            case _:
                self._ledger.note(handoff.id, owed=None)

    def _is_past(self, handoff: Handoff, view: HandoffView) -> bool:
        """Whether the workspace has moved on since, as after a copy that was taken back by force."""
        known = self._home.workspace(handoff.workspace_id)
        return known is None or known.epoch >= view.epoch or handoff.way is not Way.SEND

    def _ended(self, handoff_id: HandoffId, run: "_Run", task: "asyncio.Task[None]") -> None:
        if self._runs.get(handoff_id) is run:
            del self._runs[handoff_id]
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("handoff %s ended unexpectedly", handoff_id, exc_info=error)


class _Run:
    """A handoff that is carried out by this process."""

    def __init__(self, task: "asyncio.Task[None]") -> None:
        self.task = task
        self.go_on = asyncio.Event()
        self.act: asyncio.Task[None] | None = None
        self.trip: Trip | None = None
        self.turning = False
        """It goes back already, and is not interrupted in that."""


def may_pass(error: Exception) -> bool:
    """Whether the same may succeed later: the server can't be asked, or there is no room."""
    if isinstance(error, CameToNothing):
        return False
    if isinstance(error, RemoteProblem):
        return error.problem.status in _TRANSIENT or error.problem.code in _BUSY
    return isinstance(error, ServerUnreachable | NotLoggedIn | KeyringUnusable | CredentialsBusy | OtherAccount | DesktopDiskFull)
