"""The handoffs of this desktop, as ``ff serve`` is asked for them."""

import asyncio

from ff_core.contract.local import (
    BeginHandoff,
    HandoffPlan,
    LocalHandoff,
    LocalStatus,
    PlanHandoff,
)
from ff_core.contract.page import Page
from ff_core.contract.places import Direction, Location
from ff_core.errors import InvalidInput
from ff_core.ids import HandoffId, WorkspaceId
from ff_core.workspaces.errors import WorkspaceElsewhere
from ff_core.workspaces.repository import Workspace
from ff_core.world import World
from ff_desktop.handoffs import checks
from ff_desktop.handoffs.errors import (
    HandoffCommitted,
    HandoffMissing,
    HandoffTurned,
    NothingKept,
    WorkspaceHere,
    WorkspaceNowhere,
    status_of,
    view_of,
)
from ff_desktop.handoffs.home import Home
from ff_desktop.handoffs.ledger import Handoff, Ledger, Turned
from ff_desktop.handoffs.machine import Way, commit_may_be_asked, forced_epoch, forward_only
from ff_desktop.handoffs.places import Crash
from ff_desktop.handoffs.report import Far
from ff_desktop.handoffs.runner import Runner
from ff_desktop.handoffs.trip import Connect


class DesktopHandoffs:
    """One per ``ff serve``. Call :meth:`recover` once before anything else, :meth:`close` at the end."""

    def __init__(self, home: Home, connect: Connect, world: World, *, crash: Crash = lambda _: None) -> None:
        self._home, self._connect = home, connect
        self._ledger = Ledger(home.store, world)
        self.runner = Runner(home, self._ledger, connect, world, crash=crash)
        self._beginning = asyncio.Lock()

    def recover(self) -> None:
        """See ``Runner.recover``."""
        self.runner.recover()

    async def close(self) -> None:
        """See ``Runner.close``."""
        await self.runner.close()

    async def plan(self, wanted: PlanHandoff) -> HandoffPlan:
        """What a send would do; changes nothing. Raises ``WorkspaceNowhere``, ``WorktreeMissing``, and what packing does."""
        return await checks.plan(self._home, self._known(wanted.workspace_id), wanted, self._require_login)

    async def begin(self, wanted: BeginHandoff) -> LocalHandoff:
        """Begin to move a workspace, or find the handoff of that id as it stands.

        Raises what stands in the way and can be seen at once: ``WorkspaceNowhere``, ``WorkspaceElsewhere``, ``WorkspaceHere``,
        ``NothingKept``, ``HandoffOpen``, and what ``Handoffs.freeze`` does.
        """
        async with self._beginning:  # by force is more than one act
            found = self._ledger.find(wanted.id)
            if found is None:
                found = await self._begun(wanted)
        if found.open:
            self.runner.start(found.id)
        return self._view(found)

    def page(self, *, open_only: bool, before: HandoffId | None, limit: int) -> Page[LocalHandoff]:
        """The newest first."""
        found = self._ledger.page(open_only=open_only, before=before, limit=limit + 1)
        more = str(found[limit - 1].id) if len(found) > limit else None
        return Page(items=tuple(map(self._view, found[:limit])), next_cursor=more)

    def get(self, handoff_id: HandoffId) -> LocalHandoff:
        """One as it stands. Raises ``HandoffMissing``."""
        return self._view(self._found(handoff_id))

    def abort(self, handoff_id: HandoffId) -> LocalHandoff:
        """Have it undone; says how it stands just now. May be repeated. Raises ``HandoffMissing``, ``HandoffCommitted``."""
        found = self._found(handoff_id)
        if found.status is LocalStatus.DONE or (found.open and forward_only(found.way, found.step)):
            raise HandoffCommitted
        if found.open:
            error = HandoffTurned()
            self.runner.turn(handoff_id, Turned(status=LocalStatus.ABORTED, error=view_of(error), http_status=status_of(error)))
        return self.get(handoff_id)

    def resume(self, handoff_id: HandoffId) -> LocalHandoff:
        """Have one that stopped tried again now. May be repeated. Raises ``HandoffMissing``."""
        if self._found(handoff_id).open:
            self.runner.start(handoff_id)
        return self.get(handoff_id)

    async def _begun(self, wanted: BeginHandoff) -> Handoff:
        known = self._home.workspace(wanted.workspace_id)
        if wanted.force:
            return await self._forced(wanted, known)
        if wanted.direction is Direction.SEND:
            known = self._known(wanted.workspace_id)
            if known.location is not Location.DESKTOP:
                raise WorkspaceElsewhere(f"{known.name} does not live on this desktop; see where it is with: ff ls")
            if not (wanted.wait or wanted.interrupt) and known.moving is None:
                self._home.moves.require_movable(wanted.workspace_id)
        elif known is not None and known.location is Location.DESKTOP:
            raise WorkspaceHere(f"{known.name} lives on this desktop already.")
        return self._ledger.begin(wanted, str(wanted.workspace_id) if known is None else known.name)

    async def _forced(self, wanted: BeginHandoff, known: Workspace | None) -> Handoff:
        if wanted.direction is not Direction.PULL:
            raise InvalidInput("Only a pull can be forced.")
        if known is None or known.worktree is None or not await asyncio.to_thread(known.worktree.is_dir):
            raise NothingKept
        before = self._ledger.open_of(known.id)
        if before is not None:
            await self.runner.halt(before.id)
            before = self._ledger.get(before.id)  # it may have come further meanwhile
            if not before.open or forward_only(before.way, before.step):
                self.runner.start(before.id)
                raise HandoffCommitted(f"Handoff {before.id} of {known.name} is decided already, and is only finished.")
        elif known.location is Location.DESKTOP:
            raise WorkspaceHere(f"{known.name} lives on this desktop already.")
        last = before or self._ledger.last(known.id)
        return self._ledger.begin_by_force(
            wanted,
            known.name,
            base=known.epoch,
            epoch=forced_epoch(known.epoch, unsure=before is not None and commit_may_be_asked(before.way, before.step)),
            given_up=before,
            account=None if last is None else last.state.account,
            advice=None if before is None else self._kept_of(before),
        )

    def _kept_of(self, before: Handoff) -> str | None:
        """What is here already of a pull that is given up."""
        if before.way is not Way.PULL or before.state.landing is None:
            return None
        return f"What the cloud had when it was asked lies unpacked in {self._home.moves.repository(before.id)}."

    def _require_login(self) -> None:
        with self._connect():
            pass

    def _known(self, workspace_id: WorkspaceId) -> Workspace:
        found = self._home.workspace(workspace_id)
        if found is None:
            raise WorkspaceNowhere("This desktop has no such workspace; `ff ls` lists them.")
        return found

    def _found(self, handoff_id: HandoffId) -> Handoff:
        found = self._ledger.find(handoff_id)
        if found is None:
            raise HandoffMissing
        return found

    def _view(self, handoff: Handoff) -> LocalHandoff:
        return view(handoff, self.runner.reports.seen(handoff.id))


def view(handoff: Handoff, far: Far) -> LocalHandoff:
    """A handoff as it is shown. Pure."""
    landing, turned = handoff.state.landing, handoff.state.turned
    landed = landing is not None and handoff.receipt is not None
    return LocalHandoff(
        id=handoff.id,
        workspace_id=handoff.workspace_id,
        name=handoff.title,
        direction=handoff.way.direction,
        status=handoff.status,
        step=handoff.step.value,
        done_bytes=far.done_bytes if handoff.open else 0,
        total_bytes=far.total_bytes if handoff.open else 0,
        detail=_detail(handoff, far),
        error=handoff.error,
        refused=turned is not None and 400 <= turned.http_status < 500,
        landed_at=landing.worktree if landing is not None and landed else None,
        landed_beside=landing is not None and landed and landing.beside is not None,
        advice=handoff.state.advice,
        receipt=handoff.receipt,
        created_at=handoff.created_at,
        updated_at=handoff.updated_at,
    )


def _detail(handoff: Handoff, far: Far) -> str:
    match handoff.status:
        case LocalStatus.STOPPED:
            return "it is tried again while ff serve runs"
        case LocalStatus.RUNNING:
            return far.detail
        case _ if handoff.state.owed:
            return "the server is told as soon as it answers"
        case _:
            return ""
