"""The only code that reads and writes ``workspaces``."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, delete, func, or_, select, true, update
from sqlalchemy.dialects.postgresql import insert

from ff_cloud.kit.db import SystemTx, Tx
from ff_cloud.workspaces.errors import WorkspaceIdTaken, WorkspaceNameTaken
from ff_cloud.workspaces.tables import workspaces
from ff_core.contract.base import ErrorView
from ff_core.contract.handoff import SentWorkspace
from ff_core.contract.places import Location
from ff_core.contract.workspace import NewWorkspace, VmView, WorkspaceStatus, WorkspaceView
from ff_core.ids import DesktopId, HandoffId, OperationId, UserId, WorkspaceId
from ff_core.workspaces.machine import MACHINE

PRESENT = "PRESENT"
GONE = "GONE"
_C = workspaces.c
_WORKS = (_C.status == WorkspaceStatus.READY) & (_C.desired == PRESENT) & (_C.location == Location.CLOUD) & _C.moving.is_(None)


@dataclass(frozen=True, slots=True)
class Workspace:
    """A row of ``workspaces``."""

    id: WorkspaceId
    user_id: UserId
    name: str
    status: WorkspaceStatus
    location: Location
    epoch: int
    desktop_id: DesktopId | None
    desktop_name: str | None
    """While it lives on a desktop: which one holds it."""
    moving: HandoffId | None
    """The handoff that has it. As long as there is one, nothing else begins."""
    handoff_id: HandoffId | None
    """The last one that brought it here, or was given up: its VM is told."""
    repo_url: str | None
    repo_token_sealed: str | None
    """Encrypted; forgotten as soon as the workspace left PROVISIONING."""
    branch: str | None
    github_issue_url: str | None
    pr_url: str | None
    desired: str
    error: ErrorView | None
    operation_id: OperationId | None
    last_seq: int
    last_active_at: datetime
    last_saved_at: datetime | None
    last_checkpoint: int
    created_at: datetime
    updated_at: datetime

    @property
    def works(self) -> bool:
        """Whether anything may be begun in it here, as far as it is where it belongs."""
        return self.location is Location.CLOUD and self.moving is None

    def view(self, vm: VmView | None, *, queue_place: int | None = None) -> WorkspaceView:
        """What the API shows of it."""
        return WorkspaceView(
            id=self.id,
            name=self.name,
            status=self.status,
            location=self.location,
            epoch=self.epoch,
            repo_url=self.repo_url,
            branch=self.branch,
            github_issue_url=self.github_issue_url,
            pr_url=self.pr_url,
            error=self.error,
            operation_id=self.operation_id,
            vm=vm,
            queue_place=queue_place,
            moving=self.moving,
            desktop=self.desktop_name if self.location is Location.DESKTOP else None,
            last_saved_at=self.last_saved_at,
            last_seq=self.last_seq,
            last_active_at=self.last_active_at,
            created_at=self.created_at,
            updated_at=self.updated_at,
        )


@dataclass(frozen=True, slots=True)
class SavedState:
    """When a workspace's state was last stored (or it was made), and when a turn of its agents last ended."""

    saved_at: datetime
    turn_ended_at: datetime | None


class _Shared:
    """What both views of the table do alike, on the rows that ``_visible`` lets through."""

    _tx: Tx | SystemTx

    @property
    def _visible(self) -> ColumnElement[bool]:
        return true()

    async def get(self, workspace_id: WorkspaceId, *, lock: bool = False) -> Workspace | None:
        """The one with this id, or None. ``lock`` keeps others from changing it until the transaction ends."""
        statement = select(workspaces).where(workspaces.c.id == workspace_id, self._visible)
        if lock:
            statement = statement.with_for_update()
        row = (await self._tx.execute(statement)).mappings().one_or_none()
        return workspace_of(row) if row else None

    async def move(self, workspace: Workspace, to: WorkspaceStatus, error: ErrorView | None = None) -> bool:
        """Compare and swap the status; false when somebody else moved it first. Raises ``IllegalTransition``."""
        result = await self._tx.execute(
            update(workspaces)
            .where(workspaces.c.id == workspace.id, workspaces.c.status == workspace.status, self._visible)
            .values(
                status=MACHINE.move(workspace.status, to),
                error_code=error.code if error else None,
                error_message=error.message if error else None,
                deadline_at=None,
                repo_token_sealed=None,
                updated_at=func.now(),
            )
        )
        return result.rowcount == 1

    async def set_operation(self, workspace_id: WorkspaceId, operation_id: OperationId, deadline_s: float) -> None:
        """Note the operation that works on it, and by when it must have come to an end."""
        await self._change(workspace_id, operation_id=operation_id, deadline_at=_in(deadline_s), updated_at=func.now())

    async def touch(self, workspace_id: WorkspaceId) -> None:
        """Note that it is in use."""
        await self._change(workspace_id, last_active_at=func.now())

    async def hold(self, workspace_id: WorkspaceId, handoff_id: HandoffId | None) -> None:
        """Note the handoff that has it; None: none has."""
        await self._change(workspace_id, moving=handoff_id, updated_at=func.now())

    async def give_up(self, workspace_id: WorkspaceId, handoff_id: HandoffId) -> None:
        """Note the handoff that came to nothing, for its VM to be told."""
        await self._change(workspace_id, handoff_id=handoff_id, updated_at=func.now())

    async def settle_here(self, workspace_id: WorkspaceId, epoch: int, handoff_id: HandoffId, sent: SentWorkspace) -> None:
        """It lives here from now on, as it came with that handoff."""
        await self._change(
            workspace_id,
            location=Location.CLOUD,
            epoch=epoch,
            desktop_id=None,
            desktop_name=None,
            kept_until=None,
            moving=None,
            handoff_id=handoff_id,
            repo_url=sent.repo_url,
            branch=sent.branch,
            github_issue_url=sent.github_issue_url,
            pr_url=sent.pr_url,
            last_active_at=func.now(),
            updated_at=func.now(),
        )

    async def settle_there(
        self, workspace_id: WorkspaceId, epoch: int, desktop_id: DesktopId, desktop_name: str, *, kept_s: float
    ) -> None:
        """It lives on a desktop from now on; what is here is a copy that is kept for a while."""
        await self._change(
            workspace_id,
            location=Location.DESKTOP,
            epoch=epoch,
            desktop_id=desktop_id,
            desktop_name=desktop_name,
            kept_until=_in(kept_s),
            moving=None,
            updated_at=func.now(),
        )

    async def _change(self, workspace_id: WorkspaceId, **values: Any) -> None:
        await self._tx.execute(update(workspaces).where(workspaces.c.id == workspace_id, self._visible).values(values))


class WorkspaceRepository(_Shared):
    """The workspaces of one user."""

    _tx: Tx

    def __init__(self, tx: Tx) -> None:
        self._tx = tx

    async def insert(
        self,
        workspace_id: WorkspaceId,
        wanted: NewWorkspace,
        *,
        repo_token_sealed: str | None,
        operation_id: OperationId,
        deadline_s: float,
    ) -> Workspace:
        """A new one, PROVISIONING from the start by an operation that must have ended in time. Raises
        :class:`WorkspaceNameTaken`.
        """
        # A conflict gives no row and no error, so that no savepoint is needed.
        rows = await self._tx.fetch(
            """
            insert into workspaces (id, user_id, name, status, location, epoch, repo_url, repo_token_sealed, branch,
                github_issue_url, desired, operation_id, deadline_at, last_active_at, created_at, updated_at)
            values (%(id)s, %(user_id)s, %(name)s, %(status)s, %(location)s, 1, %(repo_url)s, %(repo_token_sealed)s, %(branch)s,
                %(github_issue_url)s, %(desired)s, %(operation_id)s,
                clock_timestamp() + make_interval(secs => %(deadline_s)s), now(), now(), now())
            on conflict (user_id, name) do nothing
            returning *
            """,
            {
                "id": workspace_id,
                "user_id": self._tx.user_id,
                "name": wanted.name,
                "status": MACHINE.move(WorkspaceStatus.NEW, WorkspaceStatus.PROVISIONING),
                "location": Location.CLOUD,
                "repo_url": wanted.repo_url,
                "repo_token_sealed": repo_token_sealed,
                "branch": wanted.branch,
                "github_issue_url": wanted.github_issue_url,
                "desired": PRESENT,
                "operation_id": operation_id,
                "deadline_s": deadline_s,
            },
        )
        if not rows:
            raise WorkspaceNameTaken
        return workspace_of(rows[0]._asdict())

    async def insert_sent(
        self,
        workspace_id: WorkspaceId,
        sent: SentWorkspace,
        *,
        epoch: int,
        desktop_id: DesktopId,
        desktop_name: str,
        handoff_id: HandoffId,
    ) -> Workspace:
        """One that a desktop is about to send, and that lives there still. Raises :class:`WorkspaceNameTaken`, and
        :class:`WorkspaceIdTaken` when there is one of this id that the user does not see.
        """
        values = {
            "id": workspace_id,
            "user_id": self._tx.user_id,
            "name": sent.name,
            "status": MACHINE.move(WorkspaceStatus.NEW, WorkspaceStatus.PROVISIONING),
            "location": Location.DESKTOP,
            "epoch": epoch,
            "desktop_id": desktop_id,
            "desktop_name": desktop_name,
            "moving": handoff_id,
            "repo_url": sent.repo_url,
            "branch": sent.branch,
            "github_issue_url": sent.github_issue_url,
            "pr_url": sent.pr_url,
            "desired": PRESENT,
        }
        moments = dict.fromkeys(("last_active_at", "created_at", "updated_at"), func.now())
        statement = insert(workspaces).values(**values, **moments).on_conflict_do_nothing().returning(workspaces)
        row = (await self._tx.execute(statement)).mappings().one_or_none()
        if row is not None:
            return workspace_of(row)
        if await self.page(before=None, name=sent.name, items_max=1):
            raise WorkspaceNameTaken
        raise WorkspaceIdTaken

    async def look(self, workspace_id: WorkspaceId) -> Workspace | None:
        """Like :meth:`get`, for what every command asks."""
        rows = await self._tx.fetch(
            "select * from workspaces where id = %(id)s and user_id = %(user_id)s",
            {"id": workspace_id, "user_id": self._tx.user_id},
        )
        return workspace_of(rows[0]._asdict()) if rows else None

    async def page(self, *, before: WorkspaceId | None, name: str | None, items_max: int) -> list[Workspace]:
        """Newest first; ``before`` is the last id of the page before, ``name`` an exact name."""
        statement = select(workspaces).where(self._visible)
        if before is not None:
            statement = statement.where(workspaces.c.id < before)
        if name is not None:
            statement = statement.where(workspaces.c.name == name)
        rows = await self._tx.execute(statement.order_by(workspaces.c.id.desc()).limit(items_max))
        return [workspace_of(row) for row in rows.mappings()]

    async def count(self) -> int:
        """How many the user has."""
        rows = await self._tx.fetch(
            "select count(*) as n from workspaces where user_id = %(user_id)s", {"user_id": self._tx.user_id}
        )
        return int(rows[0].n)

    async def want_gone(self, workspace_id: WorkspaceId) -> None:
        """Remember that the user wants it deleted; may be repeated."""
        await self._change(workspace_id, desired=GONE, updated_at=func.now())

    @property
    def _visible(self) -> ColumnElement[bool]:
        return workspaces.c.user_id == self._tx.user_id


class SystemWorkspaceRepository(_Shared):
    """The workspaces of everybody, for operations and sweeps."""

    def __init__(self, tx: SystemTx) -> None:
        self._tx = tx

    async def unsettled(self, items_max: int) -> list[Workspace]:
        """Those that should move on by themselves: to be deleted, or past the deadline of a transitional state."""
        overdue = workspaces.c.deadline_at < func.clock_timestamp()
        rows = await self._tx.execute(
            select(workspaces).where(or_(workspaces.c.desired == GONE, overdue)).order_by(workspaces.c.id).limit(items_max)
        )
        return [workspace_of(row) for row in rows.mappings()]

    async def ready(self) -> set[WorkspaceId]:
        """Those that are READY, live here, and are to stay; while nothing moves them."""
        return {WorkspaceId(found) for found in (await self._tx.execute(select(workspaces.c.id).where(_WORKS))).scalars()}

    async def saved_states(self) -> dict[WorkspaceId, SavedState]:
        """How fresh what is stored of each of those is."""
        c = workspaces.c
        saved = func.coalesce(c.last_saved_at, c.created_at)
        rows = await self._tx.execute(select(c.id, saved.label("saved_at"), c.turn_ended_at).where(_WORKS))
        return {WorkspaceId(row.id): SavedState(row.saved_at, row.turn_ended_at) for row in rows}

    async def heard(self, workspace_id: WorkspaceId, last_seq: int, *, turn_ended: bool) -> None:
        """Note how far its journal was copied; it is in use. ``turn_ended``: its agent has just done something worth keeping."""
        newest = func.greatest(workspaces.c.last_seq, last_seq)
        more = {"turn_ended_at": func.clock_timestamp()} if turn_ended else {}
        await self._change(workspace_id, last_seq=newest, last_active_at=func.now(), **more)

    async def saved(self, workspace_id: WorkspaceId, checkpoint: int, as_of: datetime) -> None:
        """Note that a checkpoint holds its state as of then; neither goes back."""
        c = workspaces.c
        await self._change(
            workspace_id,
            last_checkpoint=func.greatest(c.last_checkpoint, checkpoint),
            last_saved_at=func.greatest(c.last_saved_at, as_of),
        )

    async def held(self, items_max: int) -> list[Workspace]:
        """Those that a handoff has."""
        held = select(workspaces).where(_C.moving.is_not(None)).order_by(_C.updated_at).limit(items_max)
        return [workspace_of(row) for row in (await self._tx.execute(held)).mappings()]

    async def elsewhere(self, *, kept: bool) -> list[Workspace]:
        """Those that live on a desktop, while nothing moves them: with a copy here that is ``kept``, or whose time is over."""
        over = _C.kept_until < func.clock_timestamp()
        found = select(workspaces).where(_C.location == Location.DESKTOP, _C.moving.is_(None), _C.desired == PRESENT)
        rows = await self._tx.execute(found.where(_C.kept_until.is_not(None), ~over if kept else over).order_by(_C.id))
        return [workspace_of(row) for row in rows.mappings()]

    async def keep_nothing(self, workspace_id: WorkspaceId) -> None:
        """There is no copy here of one that lives on a desktop."""
        await self._change(workspace_id, kept_until=None, last_saved_at=None, last_checkpoint=0, turn_ended_at=None)

    async def begin_history(self, workspace_id: WorkspaceId) -> None:
        """Nothing of its journal is copied."""
        await self._change(workspace_id, last_seq=0)

    async def delete(self, workspace_id: WorkspaceId) -> None:
        """Remove the row and, by cascade, its sessions and events; may be repeated."""
        await self._tx.execute(delete(workspaces).where(workspaces.c.id == workspace_id))


def workspace_of(row: Mapping[Any, Any]) -> Workspace:
    """A workspace from its row."""
    error = ErrorView(code=row["error_code"], message=row["error_message"]) if row["error_code"] else None
    return Workspace(
        id=WorkspaceId(row["id"]),
        user_id=UserId(row["user_id"]),
        name=row["name"],
        status=WorkspaceStatus(row["status"]),
        location=Location(row["location"]),
        epoch=row["epoch"],
        desktop_id=DesktopId(row["desktop_id"]) if row["desktop_id"] else None,
        desktop_name=row["desktop_name"],
        moving=HandoffId(row["moving"]) if row["moving"] else None,
        handoff_id=HandoffId(row["handoff_id"]) if row["handoff_id"] else None,
        repo_url=row["repo_url"],
        repo_token_sealed=row["repo_token_sealed"],
        branch=row["branch"],
        github_issue_url=row["github_issue_url"],
        pr_url=row["pr_url"],
        desired=row["desired"],
        error=error,
        operation_id=row["operation_id"],
        last_seq=row["last_seq"],
        last_active_at=row["last_active_at"],
        last_saved_at=row["last_saved_at"],
        last_checkpoint=row["last_checkpoint"],
        created_at=row["created_at"],
        updated_at=row["updated_at"],
    )


def _in(seconds: float) -> Any:
    return func.clock_timestamp() + func.make_interval(0, 0, 0, 0, 0, 0, seconds)
