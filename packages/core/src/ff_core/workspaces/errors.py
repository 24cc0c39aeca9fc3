"""What can go wrong with a workspace."""

from ff_core.errors import Conflict


class AlreadyBound(Conflict):
    """This machine already belongs to another workspace."""

    code = "already_bound"


class RepositoryDiffers(Conflict):
    """This workspace already has another repository or branch; make a new workspace for this one."""

    code = "repository_differs"


class WorkspaceNotReady(Conflict):
    """The workspace's repository is not there yet; wait until the workspace is READY."""

    code = "workspace_not_ready"
