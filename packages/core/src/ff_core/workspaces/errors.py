"""What can go wrong with a workspace."""

from ff_core.errors import Conflict, FFError, InvalidInput
from ff_core.process import ProgramMissing


class AlreadyBound(Conflict):
    """This machine already belongs to another workspace."""

    code = "already_bound"


class WorkspaceMissing(Conflict):
    """This machine should hold the workspace's files and does not; they have to be restored first."""

    code = "workspace_missing"


class RepositoryDiffers(Conflict):
    """This workspace already has another repository or branch; make a new workspace for this one."""

    code = "repository_differs"


class SeedTooLate(Conflict):
    """The workspace's repository is there already or being made, so nothing can be given to start it from."""

    code = "seed_too_late"


class WorkspaceNotReady(Conflict):
    """The workspace's repository is not there yet; wait until the workspace is READY."""

    code = "workspace_not_ready"


class VmResting(Conflict):
    """This workspace is going to sleep and takes nothing new; the request wakes it up again, so try it in a moment."""

    code = "vm_resting"


class VmInUse(Conflict):
    """This workspace is in use, or was a moment ago, so it can't go to sleep now."""

    code = "vm_in_use"


class WorkspaceMoving(Conflict):
    """This workspace is on the move, so nothing new runs in it; see `ff handoffs`, which can also finish or abort the move."""

    code = "workspace_moving"


class WorkspaceElsewhere(Conflict):
    """This workspace lives elsewhere now, and nothing may run in this copy of it."""

    code = "workspace_elsewhere"


class ExecCwdOutside(InvalidInput):
    """The folder to run a command in must be inside the workspace: the repository or the home folder."""

    code = "exec_cwd_outside"


class CommandMissing(ProgramMissing):
    """The command to run is not installed in the workspace, or may not be run."""

    status = 422


class TooManyCommands(FFError):
    """Too many commands run in this workspace at once; wait until one has ended."""

    code = "too_many_commands"
    status = 429
