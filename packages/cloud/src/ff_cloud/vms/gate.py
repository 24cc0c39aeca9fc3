"""What the gateway asks about VMs."""

from dataclasses import dataclass

from ff_cloud.kit.db import SystemTx
from ff_cloud.vms.repository import SystemVmRepository
from ff_core.contract.workspace import VmStatus
from ff_core.ids import UserId, VmId, WorkspaceId

_SERVING = frozenset({VmStatus.CREATING, VmStatus.CLAIMED, VmStatus.RUNNING})


@dataclass(frozen=True, slots=True)
class Serving:
    """For whom a VM works."""

    user_id: UserId
    workspace_id: WorkspaceId


async def serving(tx: SystemTx, vm_id: VmId, generation: int) -> Serving | None:
    """For whom this generation of a VM works; None when there is no such VM, it is going, or it was replaced by a newer one."""
    vm = await SystemVmRepository(tx).get(vm_id)
    if vm is None or vm.generation != generation or vm.status not in _SERVING:
        return None
    return Serving(vm.user_id, vm.workspace_id)
