"""What can be wrong with a request about a workspace."""

from ff_core.errors import Conflict, FFError, InvalidInput, TimedOut


class WorkspaceNameTaken(Conflict):
    """You already have a workspace of this name; choose another one or delete the old one first."""

    code = "workspace_name_taken"


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
