"""What can be wrong with a request about a handoff."""

from ff_core.errors import Conflict, InvalidInput


class HandoffDiffers(Conflict):
    """There is another handoff of this id already; begin a new one, under a new id."""

    code = "handoff_differs"


class HandoffOpen(Conflict):
    """This workspace is being moved already; finish or abort that first: ff handoffs"""

    code = "handoff_open"


class StaleEpoch(Conflict):
    """This workspace has been moved since, and lives elsewhere now; see where with: ff ls"""

    code = "stale_epoch"


class HandoffCommitted(Conflict):
    """The workspace has moved already, so this can't be aborted any more; move it back if you want it there again."""

    code = "handoff_committed"


class HandoffOver(Conflict):
    """This handoff came to nothing, and the workspace stays where it was; begin a new one."""

    code = "handoff_over"


class HandoffNotReady(Conflict):
    """This handoff is not so far yet; ask again in a moment."""

    code = "handoff_not_ready"


class WrongOffset(Conflict):
    """The next piece of the bundle begins elsewhere; `received_bytes` says where."""

    code = "wrong_offset"


class PieceUnfit(InvalidInput):
    """This piece does not fit the bundle that was announced."""

    code = "piece_unfit"


class FingerprintDiffers(Conflict):
    """What arrived is not what was sent, so the workspace stays where it was. Move it again."""

    code = "fingerprint_differs"
