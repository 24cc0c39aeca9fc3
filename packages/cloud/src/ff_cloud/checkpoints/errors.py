"""What can go wrong with checkpoints on this side."""

from ff_core.errors import Conflict, FFError


class CheckpointOutdated(Conflict):
    """A newer state of this workspace was stored meanwhile, or its VM is another by now; so this one was not."""

    code = "checkpoint_outdated"


class CheckpointsDamaged(FFError):
    """None of the workspace's checkpoints can be read from the store; see that FF_CHECKPOINT_STORE is the right one."""

    code = "checkpoints_damaged"
