"""What can go wrong with checkpoints."""

from ff_core.errors import Conflict, FFError

PACKER_FAILED = 3
"""The exit code of the program that packs when it says why on standard error."""


class CheckpointRunning(Conflict):
    """A checkpoint of this workspace is being made already; try again when it is done."""

    code = "checkpoint_running"


class CheckpointFailed(FFError):
    """The workspace could not be saved; the daemon's log has the details."""

    code = "checkpoint_failed"


class CheckpointTooLarge(FFError):
    """The workspace is too large to be saved. Delete files in it, or have git ignore the folders that can be made again."""

    code = "checkpoint_too_large"
    status = 413


class CheckpointDiskFull(FFError):
    """The disk of this workspace is full, so nothing was saved or restored. Delete files in the workspace, then try again."""

    code = "checkpoint_disk_full"
    status = 507


class ArchiveBroken(FFError):
    """The checkpoint is damaged or incomplete, so nothing of it was restored."""

    code = "checkpoint_broken"
    status = 422


class RestoreNotEmpty(Conflict):
    """A checkpoint can only be restored into a VM that belongs to nobody and holds nothing."""

    code = "restore_not_empty"
