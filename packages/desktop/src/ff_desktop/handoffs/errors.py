"""What can go wrong with a handoff on the desktop."""

from ff_core.contract.base import ErrorView
from ff_core.contract.problem import Problem, RemoteProblem, code_of
from ff_core.errors import Conflict, FFError, NotFound


class HandoffMissing(NotFound):
    """This desktop has no such handoff; `ff handoffs --all` lists them."""

    code = "handoff_missing"


class HandoffOver(Conflict):
    """The server has given this handoff up; begin it again."""

    code = "handoff_over"


class CameToNothing(RemoteProblem):
    """The server could not do its part, and says why; the workspace stays where it was."""

    def __init__(self, error: ErrorView, advice: str = "") -> None:
        super().__init__(Problem(title="Failed", status=500, code=error.code, detail=error.message + advice))


class HandoffOpen(Conflict):
    """Another handoff moves this workspace already; see `ff handoffs`."""

    code = "handoff_open"


class HandoffCommitted(Conflict):
    """This handoff is decided and can't be given up any more; it is only finished."""

    code = "handoff_committed"


class HandoffTurned(Conflict):
    """You gave this handoff up."""

    code = "handoff_aborted"


class HandoffIdTaken(Conflict):
    """This id belongs to another handoff; use a new one."""

    code = "handoff_id_taken"


class OtherAccount(Conflict):
    """This handoff belongs to another account, or to another server."""

    code = "other_account"


class BundleDamaged(FFError):
    """What was downloaded is not what the server made; run ff pull again."""

    code = "bundle_damaged"
    status = 502


class DesktopDiskFull(FFError):
    """There is no room for this on the disk; make some, then try again."""

    code = "desktop_disk_full"
    status = 507


class ProjectUnknown(Conflict):
    """No project of this desktop has the workspace's repository; add it with ff project add PATH, or say --project NAME."""

    code = "project_unknown"


class WorkspaceHere(Conflict):
    """This workspace lives on this desktop already."""

    code = "workspace_here"


class WorkspaceNowhere(NotFound):
    """The server has no such workspace, and neither has this desktop."""

    code = "workspace_nowhere"


class CloneImpossible(Conflict):
    """The cloud could not clone this repository; send all of its history along with --whole."""

    code = "clone_impossible"


class NothingKept(Conflict):
    """This desktop has no copy of the workspace that it could go on with."""

    code = "nothing_kept"


def view_of(error: FFError) -> ErrorView:
    """An error as it is written down and shown."""
    return ErrorView(code=code_of(error), message=error.detail)


def status_of(error: FFError) -> int:
    """Its HTTP status: the far side's own when it came from there."""
    return error.problem.status if isinstance(error, RemoteProblem) else error.status
