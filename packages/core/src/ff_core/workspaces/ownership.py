"""Who may work in a workspace: the host where it lives, while nothing moves it (DESIGN.md section 11)."""

from ff_core.contract.places import Location
from ff_core.ids import WorkspaceId
from ff_core.store.engine import Store, Tx
from ff_core.workspaces import repository as rows
from ff_core.workspaces.errors import WorkspaceElsewhere, WorkspaceMoving

_WHERE = {
    Location.CLOUD: "This workspace lives in the cloud now; bring it back with: ff pull",
    Location.DESKTOP: "This workspace lives on a desktop now, and this is a copy that was kept; send it here again with: ff send",
}


class Ownership:
    """Asked before anything new begins. One per host; ``here`` is what kind of host that is."""

    def __init__(self, store: Store, here: Location) -> None:
        self._store = store
        self.here = here

    def require(self, tx: Tx, workspace_id: WorkspaceId) -> None:
        """Raise ``WorkspaceElsewhere`` or ``WorkspaceMoving`` unless work may begin in it. One that is unknown is nobody's."""
        self._require(rows.read(tx, workspace_id))

    def require_now(self, workspace_id: WorkspaceId) -> None:
        """The same outside any transaction."""
        self._require(rows.find(self._store, workspace_id))

    def may_work(self, workspace_id: WorkspaceId) -> bool:
        """The same as a question."""
        row = rows.find(self._store, workspace_id)
        return row is None or (row.location is self.here and row.moving is None)

    def _require(self, row: rows.Workspace | None) -> None:
        if row is None:
            return
        if row.location is not self.here:
            raise WorkspaceElsewhere(_WHERE[row.location], location=row.location, epoch=row.epoch)
        if row.moving is not None:
            raise WorkspaceMoving(handoff_id=str(row.moving))
