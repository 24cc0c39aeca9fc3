"""A VM as its row tells of it."""

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from ff_cloud.vms.engine.base import Limits
from ff_core.contract.workspace import VmStatus, VmView
from ff_core.ids import UserId, VmId, WorkspaceId


class Desired(StrEnum):
    """What is wanted of a VM."""

    RUNNING = "RUNNING"
    SUSPENDED = "SUSPENDED"
    """It is about to sleep, or sleeps: whoever needs it wakes it first."""
    GONE = "GONE"


HOLDING = (VmStatus.CREATING, VmStatus.WARM, VmStatus.CLAIMED, VmStatus.RUNNING)
"""The states in which a VM has, or is about to have, processes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AnyVm:
    """A VM, whoever's. ``address`` is unknown until its container runs, ``limits`` until one was made."""

    id: VmId
    status: VmStatus
    desired: Desired
    generation: int
    image: str | None
    runtime: str | None
    limits: Limits | None
    address: str | None
    port: int | None
    health_failures: int
    created_at: datetime
    admitted_at: datetime | None
    """Since when it counts against the machine's capacity; null while it does not."""
    warm_at: datetime | None
    active_at: datetime
    """When it was last seen in use."""
    suspended_at: datetime | None
    refused_image: str | None
    """The image that its container could not be made of."""
    deadline_at: datetime | None

    def view(self) -> VmView:
        """What the API shows of it."""
        return VmView(
            id=self.id,
            status=self.status,
            generation=self.generation,
            created_at=self.created_at,
            suspended_at=self.suspended_at,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Vm(AnyVm):
    """A VM that belongs to a workspace, for good."""

    user_id: UserId
    workspace_id: WorkspaceId

    @property
    def reachable(self) -> bool:
        """Its daemon should answer, and nobody is putting it to sleep."""
        return self.status in {VmStatus.CLAIMED, VmStatus.RUNNING} and self.desired is Desired.RUNNING


def key_of(vm: AnyVm) -> str:
    """What the operations on a VM are locked by: its workspace, or itself while it has none."""
    return str(vm.workspace_id) if isinstance(vm, Vm) else str(vm.id)
