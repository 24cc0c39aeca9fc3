"""What can go wrong with projects and the workspaces in their worktrees."""

from ff_core.errors import Conflict, FFError, InvalidInput, NotFound


class ProjectUnknown(NotFound):
    """There is no such project; `ff project ls` lists them, `ff project add PATH` makes one."""


class ProjectNeeded(InvalidInput):
    """Say which project it is to be in: --project NAME. `ff project ls` lists them, `ff project add PATH` makes one."""

    code = "project_needed"


class ProjectAmbiguous(InvalidInput):
    """More than one project is meant by that; use an id of `ff project ls`."""

    code = "project_ambiguous"


class ProjectInUse(Conflict):
    """This project has workspaces; remove them first."""

    code = "project_in_use"


class BranchCheckedOut(Conflict):
    """Another worktree has this branch checked out, and a branch can be worked on in one place only."""

    code = "branch_checked_out"


class WorkspaceUnknown(NotFound):
    """There is no such workspace on this machine."""


class WorktreeMissing(Conflict):
    """The folder of this workspace is gone. Remove the workspace with `ff rm`; its branch is still in the project."""

    code = "worktree_missing"


class WorkLost(Conflict):
    """There is work in this workspace that is nowhere else; commit it first, or pass --force to lose it."""

    code = "work_would_be_lost"


class ConfigurationMalformed(FFError):
    """factory-factory.json can't be used, so no set-up script was run."""

    code = "configuration_malformed"
    status = 422


class SetupFailed(FFError):
    """The set-up script failed. The workspace can be used all the same; the events have what the script wrote."""

    code = "setup_failed"
    status = 422


class SetupTimedOut(SetupFailed):
    """The set-up script took too long and was stopped. The workspace can be used all the same."""

    code = "setup_timed_out"


class SetupInterrupted(SetupFailed):
    """A restart interrupted the set-up script. The workspace can be used all the same; run the script again yourself."""

    code = "setup_interrupted"


class PreparationInterrupted(FFError):
    """A restart interrupted the making of this workspace; remove it with `ff rm`, and make it again."""

    code = "preparation_interrupted"
