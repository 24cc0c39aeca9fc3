"""What a VM's container is to be like: the server's settings made into a specification."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Literal

from ff_cloud.users.model import Plan
from ff_cloud.vms.engine.base import Limits, VmSpec
from ff_cloud.vms.model import AnyVm
from ff_cloud.vms.token import token_sha256, vm_token


@dataclass(frozen=True, slots=True)
class Specs:
    """Makes specifications. ``limits`` are the most a VM gets here, whatever its owner's plan says.

    ``environment`` is for the daemon and shown by ``docker inspect``: nothing secret.
    """

    image: str
    """The present image: what new VMs are made from, and old ones upgraded to."""
    limits: Limits
    secret: bytes
    environment: Mapping[str, str] = field(default_factory=dict)

    def limits_of(self, plan: Plan) -> Limits:
        """What a VM of an owner with this plan may use."""
        return Limits(
            memory_bytes=min(self.limits.memory_bytes, plan.vm_memory_bytes),
            cpus=min(self.limits.cpus, plan.vm_cpus),
            pids=self.limits.pids,
            disk_bytes=plan.vm_disk_bytes,
        )

    def warm_limits(self, plans: list[Plan]) -> Limits:
        """What a VM may use before it belongs to anybody: what every plan gives. A claim raises it, and never lowers it."""
        every = [self.limits_of(plan) for plan in plans] or [self.limits]
        disks = [limits.disk_bytes for limits in every if limits.disk_bytes is not None]
        return replace(
            self.limits,
            memory_bytes=min(limits.memory_bytes for limits in every),
            cpus=min(limits.cpus for limits in every),
            disk_bytes=min(disks, default=None),
        )

    def of(self, vm: AnyVm, limits: Limits, *, fence: int, volume: Literal["any", "existing"] = "any") -> VmSpec:
        """The specification of ``vm``; ``fence`` is that of the operation that asks."""
        return VmSpec(
            vm_id=vm.id,
            generation=vm.generation,
            fence=fence,
            image=vm.image or self.image,
            limits=limits,
            token_sha256=token_sha256(vm_token(self.secret, vm.id, vm.generation)),
            environment=self.environment,
            runtime=vm.runtime,
            volume=volume,
        )
