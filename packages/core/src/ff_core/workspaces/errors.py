"""What can go wrong with a workspace."""

from ff_core.errors import Conflict


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
