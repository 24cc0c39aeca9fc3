"""What can be wrong with a request about a workspace."""

from ff_core.errors import Conflict, FFError, InvalidInput, TimedOut


class WorkspaceNameTaken(Conflict):
    """You already have a workspace of this name; choose another one or delete the old one first."""

    code = "workspace_name_taken"


class WorkspaceIdTaken(Conflict):
    """There is another workspace of this id on this server; this one can't be sent here."""

    code = "workspace_id_taken"


class WorkspaceElsewhere(Conflict):
    """This workspace lives on a desktop now; work goes on there, or here again after: ff send"""

    code = "workspace_elsewhere"


class WorkspaceMoving(Conflict):
    """This workspace is on the move, so nothing new runs in it; see `ff handoffs`, which can also finish or abort the move."""

    code = "workspace_moving"


class WorkspaceNotReady(Conflict):
    """This workspace is not ready."""

    code = "workspace_not_ready"


class CursorInvalid(InvalidInput):
    """The cursor is not one of ours; start again without it."""

    code = "cursor_invalid"


class ServerFull(FFError):
    """This server takes nothing new at the moment; try again later."""

    code = "server_full"
    status = 503


class NotAwakeYet(TimedOut):
    """The workspace's VM is still on its way; try again, it goes on meanwhile."""

    code = "vm_not_awake"
    status = 503
