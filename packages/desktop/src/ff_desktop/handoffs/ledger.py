"""What is written down of each handoff of this desktop: typed, and lasting before anything depends on it."""

from datetime import datetime
from enum import StrEnum
from typing import Any, Literal

from ff_core.contract.base import ErrorView, Request, View, dump
from ff_core.contract.handoff import BundleFacts, Contents, Receipt
from ff_core.contract.local import BeginHandoff, LocalStatus
from ff_core.handoff import repository as rows
from ff_core.handoff.repository import HandoffRow
from ff_core.ids import HandoffId, ProjectId, UserId, WorkspaceId
from ff_core.store.engine import Store
from ff_core.world import World
from ff_desktop.handoffs.errors import HandoffIdTaken, HandoffOpen
from ff_desktop.handoffs.machine import Step, Way


class Account(View):
    """Whose handoff it is."""

    server: str
    user_id: UserId
    email: str

    def same(self, other: "Account") -> bool:
        """Whether it is the same user of the same server."""
        return (self.server, self.user_id) == (other.server, other.user_id)


class LandingKind(StrEnum):
    """ORIGINAL: the worktree it was sent from. FRESH: one of its own."""

    ORIGINAL = "ORIGINAL"
    FRESH = "FRESH"


class Landing(View):
    """Where a pulled workspace goes."""

    kind: LandingKind
    worktree: str
    branch: str | None
    """It is on afterwards; null: HEAD is detached."""
    renamed: bool = False
    """It has another name here than in the cloud."""
    beside: str | None = None
    """The worktree that it was sent from, which has changed since and stays as it is."""
    reason: str = ""
    """Why it is beside."""


class Travels(View):
    """By which rules it was packed."""

    have: tuple[str, ...] = ()
    whole: bool = False
    include: tuple[str, ...] = ()
    credentials: bool = False


class Turned(View):
    """It is not to go on, and why."""

    status: Literal[LocalStatus.ABORTED, LocalStatus.FAILED]
    error: ErrorView
    http_status: int
    """Of the error: whether it was refused, or failed."""


class State(View):
    """What steps found out. Every member is written together with the step that found it."""

    account: Account | None = None
    name: str | None = None
    """Of a workspace that was never here."""
    epoch: int | None = None
    """The workspace's when it was begun; after the commit the new one."""
    base: int | None = None
    """By force: the workspace's epoch before."""
    given_up: HandoffId | None = None
    """By force: the handoff that was under way."""
    have: tuple[str, ...] = ()
    """Pull: commits that are here."""
    include: tuple[str, ...] = ()
    """Pull: the project's list of ignored files that travel, as it was."""
    travels: Travels | None = None
    bundle: BundleFacts | None = None
    contents: Contents | None = None
    repo_url: str | None = None
    project_id: ProjectId | None = None
    landing: Landing | None = None
    turned: Turned | None = None
    owed: Literal["abort"] | None = None
    """What the server has to be told, now that it is over here."""
    advice: str | None = None
    differs: bool = False
    """What landed is not quite what came, so that is kept."""


class Handoff(View):
    """A handoff of this desktop."""

    id: HandoffId
    workspace_id: WorkspaceId
    name: str
    way: Way
    status: LocalStatus
    step: Step
    wanted: BeginHandoff
    state: State
    receipt: Receipt | None
    error: ErrorView | None
    created_at: datetime
    updated_at: datetime

    @property
    def open(self) -> bool:
        """Whether it may still become something else."""
        return self.status in rows.OPEN

    @property
    def title(self) -> str:
        """The workspace's name."""
        return self.state.name or self.name


class Ledger:
    """The handoffs of this desktop. Each method is one transaction."""

    def __init__(self, store: Store, world: World) -> None:
        self._store, self._world = store, world

    def find(self, handoff_id: HandoffId) -> Handoff | None:
        """The handoff of this id."""
        row = rows.find(self._store, handoff_id)
        return None if row is None else _typed(row)

    def get(self, handoff_id: HandoffId) -> Handoff:
        """The handoff of this id, which must be there."""
        found = self.find(handoff_id)
        assert found is not None  # noqa: S101  (rows of handoffs that run are not removed)
        return found

    def open_of(self, workspace_id: WorkspaceId) -> Handoff | None:
        """The one that moves this workspace now."""
        row = rows.open_of(self._store, workspace_id)
        return None if row is None else _typed(row)

    def every_open(self) -> list[Handoff]:
        """All that are not finished, oldest first."""
        return [_typed(row) for row in rows.every_open(self._store)]

    def owing(self, workspace_id: WorkspaceId | None = None) -> list[Handoff]:
        """Those over which the server has to be told something, oldest first."""
        return [_typed(row) for row in rows.owing(self._store, workspace_id)]

    def page(self, *, open_only: bool, before: HandoffId | None, limit: int) -> list[Handoff]:
        """The newest, at most ``limit``."""
        return [_typed(row) for row in rows.page(self._store, open_only=open_only, before=before, limit=limit)]

    def last_send(self, workspace_id: WorkspaceId) -> Handoff | None:
        """The newest send of this workspace that was committed."""
        row = rows.last_committed(self._store, workspace_id, Way.SEND.direction)
        return None if row is None else _typed(row)

    def begin(self, wanted: BeginHandoff, name: str) -> Handoff:
        """Write down that it is begun, or find it. Raises ``HandoffOpen``, ``HandoffIdTaken``."""
        with self._store.transaction() as tx:
            known = rows.read(tx, wanted.id)
            if known is not None:
                if BeginHandoff.model_validate(known.wanted) != wanted:
                    raise HandoffIdTaken
                return _typed(known)
            other = rows.read_open(tx, wanted.workspace_id)
            if other is not None:
                raise HandoffOpen(
                    f"Handoff {other.id} moves {other.name} already; see `ff handoffs`, which also aborts it.",
                    handoff_id=str(other.id),
                )
            row = self._new(wanted, name)
            rows.insert(tx, row)
        return _typed(row)

    def begin_by_force(
        self,
        wanted: BeginHandoff,
        name: str,
        *,
        base: int,
        epoch: int,
        given_up: Handoff | None,
        account: Account | None,
        advice: str | None,
    ) -> Handoff:
        """The same, in place of ``given_up``, of which it may be unknown what became of it. Nothing turns it round any more."""
        with self._store.transaction(durable=True) as tx:
            known = rows.read(tx, wanted.id)
            if known is not None:
                return _typed(known)
            found: dict[str, Any] = {"base": base, "epoch": epoch}
            if account is not None:
                found["account"] = dump(account)
            if advice is not None:
                found["advice"] = advice
            if given_up is not None:
                error = ErrorView(code=HandoffOpen.code, message="It was given up: you took your copy back by force.")
                now = self._world.now()
                rows.set_status(tx, given_up.id, LocalStatus.ABORTED, error, now)
                rows.note(tx, given_up.id, {"turned": None}, now)
                found["given_up"] = str(given_up.id)
            row = self._new(wanted, name, **found)
            rows.insert(tx, row)
        return _typed(row)

    def last(self, workspace_id: WorkspaceId) -> Handoff | None:
        """The newest of this workspace that was committed."""
        row = rows.last_committed(self._store, workspace_id)
        return None if row is None else _typed(row)

    def finish(self, handoff_id: HandoffId, step: Step, *, durable: bool = False, **found: Any) -> Handoff:
        """Write down that a step is finished and what it found. ``durable``: what follows can't be taken back."""
        with self._store.transaction(durable=durable) as tx:
            rows.finish(tx, handoff_id, step.value, _plain(found), self._world.now())
        return self.get(handoff_id)

    def commit(self, handoff_id: HandoffId, receipt: Receipt) -> Handoff:
        """Write down that the server has decided for it: from now on it only goes on."""
        with self._store.transaction(durable=True) as tx:
            now = self._world.now()
            rows.set_receipt(tx, handoff_id, receipt, now)
            rows.finish(tx, handoff_id, Step.COMMITTED.value, {"epoch": receipt.epoch, "turned": None, "owed": None}, now)
            rows.set_status(tx, handoff_id, LocalStatus.RUNNING, None, now)
        return self.get(handoff_id)

    def note(self, handoff_id: HandoffId, **found: Any) -> Handoff:
        """Replace members of its state; None: drop it."""
        with self._store.transaction() as tx:
            rows.note(tx, handoff_id, _plain(found), self._world.now())
        return self.get(handoff_id)

    def turn(self, handoff_id: HandoffId, turned: Turned) -> Handoff:
        """Write down that it is not to go on; the first reason stays."""
        with self._store.transaction() as tx:
            row = rows.read(tx, handoff_id)
            if row is not None and row.open and row.state.get("turned") is None:
                rows.note(tx, handoff_id, {"turned": dump(turned)}, self._world.now())
        return self.get(handoff_id)

    def set_status(self, handoff_id: HandoffId, status: LocalStatus, error: ErrorView | None = None) -> Handoff:
        """Write down how it stands."""
        with self._store.transaction() as tx:
            rows.set_status(tx, handoff_id, status, error, self._world.now())
        return self.get(handoff_id)

    def close(self, handoff_id: HandoffId, status: LocalStatus, error: ErrorView | None, *, owes: bool = False) -> Handoff:
        """Write down that it is over. ``owes``: the server is to be told."""
        with self._store.transaction() as tx:
            now = self._world.now()
            rows.note(tx, handoff_id, {"owed": "abort" if owes else None}, now)
            rows.set_status(tx, handoff_id, status, error, now)
        return self.get(handoff_id)

    def _new(self, wanted: BeginHandoff, name: str, **found: Any) -> HandoffRow:
        now = self._world.now()
        return HandoffRow(
            id=wanted.id,
            workspace_id=wanted.workspace_id,
            name=name,
            direction=wanted.direction,
            status=LocalStatus.RUNNING,
            step=Step.BEGUN.value,
            wanted=dump(wanted),
            state=found,
            receipt=None,
            error=None,
            created_at=now,
            updated_at=now,
        )


def way_of(wanted: BeginHandoff) -> Way:
    """What kind of move is asked for."""
    if wanted.force:
        return Way.FORCE
    return Way(wanted.direction.value)


def _typed(row: HandoffRow) -> Handoff:
    wanted = BeginHandoff.model_validate(row.wanted)
    return Handoff(
        id=row.id,
        workspace_id=row.workspace_id,
        name=row.name,
        way=way_of(wanted),
        status=row.status,
        step=Step(row.step),
        wanted=wanted,
        state=State.model_validate(row.state),
        receipt=row.receipt,
        error=row.error,
        created_at=row.created_at,
        updated_at=row.updated_at,
    )


def _plain(found: dict[str, Any]) -> dict[str, Any]:
    return {name: dump(value) if isinstance(value, View | Request) else value for name, value in found.items()}
