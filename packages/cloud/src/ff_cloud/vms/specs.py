"""What a VM's container is to be like: the server's settings made into a specification."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from ff_cloud.users.model import Plan
from ff_cloud.vms.engine.base import Limits, VmSpec
from ff_cloud.vms.repository import Vm
from ff_cloud.vms.token import token_sha256, vm_token


@dataclass(frozen=True, slots=True)
class Specs:
    """Makes specifications. ``limits`` are the most a VM gets here, whatever its owner's plan says.

    ``environment`` is for the daemon and shown by ``docker inspect``: nothing secret.
    """

    image: str
    limits: Limits
    secret: bytes
    environment: Mapping[str, str] = field(default_factory=dict)

    def of(self, vm: Vm, plan: Plan, *, fence: int) -> VmSpec:
        """The specification of ``vm``, whose owner has ``plan``; ``fence`` is that of the operation that asks."""
        return VmSpec(
            vm_id=vm.id,
            generation=vm.generation,
            fence=fence,
            image=self.image,
            limits=Limits(
                memory_bytes=min(self.limits.memory_bytes, plan.vm_memory_bytes),
                cpus=min(self.limits.cpus, plan.vm_cpus),
                pids=self.limits.pids,
            ),
            token_sha256=token_sha256(vm_token(self.secret, vm.id, vm.generation)),
            environment=self.environment,
        )
