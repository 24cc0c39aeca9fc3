"""What a VM's container is to be like: the server's settings made into a specification."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from ff_cloud.vms.engine.base import Limits, VmSpec
from ff_cloud.vms.repository import Vm
from ff_cloud.vms.token import token_sha256, vm_token


@dataclass(frozen=True, slots=True)
class Specs:
    """Makes specifications. ``environment`` is for the daemon and shown by ``docker inspect``: nothing secret."""

    image: str
    limits: Limits
    secret: bytes
    environment: Mapping[str, str] = field(default_factory=dict)

    def of(self, vm: Vm, *, fence: int) -> VmSpec:
        """The specification of ``vm``; ``fence`` is that of the operation that asks."""
        return VmSpec(
            vm_id=vm.id,
            generation=vm.generation,
            fence=fence,
            image=self.image,
            limits=self.limits,
            token_sha256=token_sha256(vm_token(self.secret, vm.id, vm.generation)),
            environment=self.environment,
        )
