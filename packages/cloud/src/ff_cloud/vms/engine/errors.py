"""What can go wrong while an engine makes a VM or looks at one."""

from ff_core.errors import Conflict, FFError


class NoCapacity(FFError):
    """The machine that runs VMs is full. Delete workspaces that are done with, or ask its operator for more room."""

    code = "no_capacity"
    status = 503


class EngineFailed(FFError):
    """The engine that makes VMs refused; try again, and if it stays, run `ff-cloud doctor` on the server."""

    code = "engine_failed"
    status = 502


class StaleFence(Conflict):
    """A newer operation has this VM by now, so this one must stop; there is nothing to do about it."""

    code = "stale_fence"


class ContainerMissing(Conflict):
    """The VM has no container to act on. Open the workspace again, which makes a new one over the same files."""

    code = "container_missing"


class VolumeMissing(Conflict):
    """The files of this VM are gone, so it was not started over empty ones. Restore the workspace from a checkpoint."""

    code = "volume_missing"


class RuntimeMissing(FFError):
    """The Docker Engine does not know the container runtime that was asked for; install it, or correct FF_VM_RUNTIME."""

    code = "runtime_missing"
    status = 503


class ImageInUse(Conflict):
    """A container still needs this image; remove the container first."""

    code = "image_in_use"


class IsolationBroken(FFError):
    """The walls around a VM are not as they must be, so it is not used; run `ff-cloud doctor` on the server."""

    code = "isolation_broken"
    status = 500
