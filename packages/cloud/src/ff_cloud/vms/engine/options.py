"""What can be chosen about the engine and its machine."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, Self

from ff_cloud.settings import CloudSettings
from ff_cloud.vms.host.egress import Allowed

PLACE = Path("/var/lib/ff-vms")
"""Where a machine keeps what belongs to its VMs. Not below Docker's own folder, which dockerd unmounts when it stops."""


@dataclass(frozen=True)
class EngineOptions:
    """The defaults are for a new machine: take what works best here, go on without what does not."""

    network: str | None = None
    """A Docker network that exists; null: the deployment's own, made on demand."""
    networking: Literal["auto", "direct", "docker"] = "auto"
    """Who connects VMs to their network: we (``direct``, root on the Docker Engine's machine) or the Docker Engine."""
    runtime: str | None = None
    """The OCI runtime of VMs; null: crun where it works, else the Docker Engine's default."""
    volume_options: Mapping[str, str] = field(default_factory=dict)
    """Of Docker's ``local`` volume driver, such as ``{"type": "tmpfs", "device": "tmpfs", "o": "size=64m"}``; no quota then."""
    disk_quota: Literal["auto", "on", "reserve", "off"] = "auto"
    """Whether ``Limits.disk_bytes`` is enforced; ``reserve`` also takes the space from the host at once."""
    egress: Literal["auto", "on", "off"] = "auto"
    """Whether VMs are kept from what is not public; ``on`` starts none where that can't be done."""
    egress_allow: tuple[Allowed, ...] = ()
    gateway_url: Callable[[], str | None] = lambda: None
    """How VMs are told to reach the gateway, once that is known."""
    place: Path = PLACE

    @classmethod
    def of(cls, settings: CloudSettings, *, gateway_url: Callable[[], str | None] = lambda: None) -> Self:
        """What is configured."""
        return cls(
            network=settings.vm_network,
            networking=settings.vm_networking,
            runtime=settings.vm_runtime,
            volume_options=settings.vm_volume_options,
            disk_quota=settings.vm_disk_quota,
            egress=settings.vm_egress,
            egress_allow=tuple(Allowed.parse(text) for text in settings.vm_egress_allow),
            gateway_url=gateway_url,
            place=settings.vm_dir,
        )
