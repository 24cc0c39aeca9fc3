"""Handoffs, as the commands ask ``ff serve`` for them; and what the server remembers of them."""

from collections.abc import Iterator

from ff_core.contract.handoff import HandoffView, Receipt
from ff_core.contract.local import BeginHandoff, HandoffPlan, LocalHandoff, PlanHandoff
from ff_core.contract.page import PAGE_ITEMS_MAX, Page
from ff_core.ids import HandoffId, WorkspaceId
from ff_desktop.connection import Connection
from ff_desktop.errors import BadReply

PAGES_MAX = 100


class Moves:
    """``connection`` leads to ``ff serve``. Every verb may raise ``RemoteProblem`` or ``ServerUnreachable``."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def plan(self, wanted: PlanHandoff) -> HandoffPlan:
        """What a send would do; changes nothing."""
        return self._connection.ask("POST", "/v1/handoffs/plan", HandoffPlan, body=wanted)

    def begin(self, wanted: BeginHandoff) -> LocalHandoff:
        """Begin one, or find it as it stands."""
        return self._connection.ask("POST", "/v1/handoffs", LocalHandoff, body=wanted, idempotency_key=str(wanted.id))

    def get(self, handoff: HandoffId) -> LocalHandoff:
        """One as it stands."""
        return self._connection.ask("GET", f"/v1/handoffs/{handoff}", LocalHandoff)

    def all(self, *, only_open: bool = False) -> Iterator[LocalHandoff]:
        """The newest first."""
        params: dict[str, str | int] = {"limit": PAGE_ITEMS_MAX}
        if only_open:
            params["open"] = "true"
        for _ in range(PAGES_MAX):
            page = self._connection.ask("GET", "/v1/handoffs", Page[LocalHandoff], params=params)
            yield from page.items
            if page.next_cursor is None:
                return
            params["cursor"] = page.next_cursor
        raise BadReply("The list of handoffs has no end.")

    def abort(self, handoff: HandoffId) -> LocalHandoff:
        """Have one undone; may be repeated."""
        return self._connection.ask("POST", f"/v1/handoffs/{handoff}/abort", LocalHandoff)

    def resume(self, handoff: HandoffId) -> LocalHandoff:
        """Have one that stopped tried again now; may be repeated."""
        return self._connection.ask("POST", f"/v1/handoffs/{handoff}/resume", LocalHandoff)


def receipt_of(server: Connection, workspace: WorkspaceId) -> Receipt | None:
    """The newest receipt of a workspace that the server remembers."""
    params: dict[str, str | int] = {"workspace_id": str(workspace), "limit": PAGE_ITEMS_MAX}
    found = server.ask("GET", "/v1/handoffs", Page[HandoffView], params=params)
    return next((handoff.receipt for handoff in found.items if handoff.receipt is not None), None)
