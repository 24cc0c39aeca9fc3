"""What can be wrong with a request about a workspace."""

from ff_core.errors import Conflict, InvalidInput


class WorkspaceNameTaken(Conflict):
    """You already have a workspace of this name; choose another one or delete the old one first."""

    code = "workspace_name_taken"


class WorkspaceNotReady(Conflict):
    """This workspace is not ready."""

    code = "workspace_not_ready"


class CursorInvalid(InvalidInput):
    """The cursor is not one of ours; start again without it."""

    code = "cursor_invalid"
