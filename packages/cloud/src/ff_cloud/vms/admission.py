"""Whether one more VM fits on the machine: a decision without effects, from what was measured and what was promised."""

from dataclasses import asdict, dataclass

from ff_cloud.vms.engine.base import Capacity

DISK_LOW = "disk_low"
DRAINING = "draining"
QUEUE_FULL = "queue_full"
NO_ROOM = "waiting_for_room"

REASONS = {
    DISK_LOW: "The disk of the machine that runs VMs is almost full, so nothing new is made. Delete workspaces that are done "
    "with, or ask the operator for more room.",
    QUEUE_FULL: "So many workspaces wait for room on the machine that runs VMs that no more are taken. Try again later, or "
    "suspend or delete workspaces that are done with.",
    DRAINING: "The operator is taking this server out of service, so nothing new is made. Try again later.",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class AdmissionRules:
    """The settings of admission. A bound that can't be measured does not count."""

    vms_max: int | None
    """However large the machine; None: as many as fit."""
    vm_reserve_bytes: int
    """The memory one VM is counted with: what an ordinary one uses, not what it may use at most."""
    memory_free_bytes_min: int
    """What stays free for everything else."""
    disk_free_bytes_min: int
    vms_per_cpu_max: int
    pids_free_min: int = 2_000
    waiting_max: int = 200
    """Workspaces that may wait for room; beyond that new ones are refused."""


@dataclass(frozen=True, slots=True)
class Room:
    """How many VMs the machine takes in all, and what stands in the way of more."""

    vms_max: int
    bound_by: str
    disk_low: bool

    def free(self, admitted: int) -> int:
        """How many more fit beside ``admitted``."""
        return 0 if self.disk_low else max(0, self.vms_max - admitted)


def room(rules: AdmissionRules, capacity: Capacity, admitted: int) -> Room:
    """What fits on a machine with ``admitted`` VMs on it. Promised and measured use both count, and the tighter one wins."""
    bounds = {"the number of VMs set by the operator": rules.vms_max}
    if capacity.memory_total_bytes is not None:
        usable = capacity.memory_total_bytes - rules.memory_free_bytes_min
        bounds["memory"] = usable // rules.vm_reserve_bytes
    if capacity.memory_available_bytes is not None:
        spare = capacity.memory_available_bytes - rules.memory_free_bytes_min
        # VMs that were admitted have mostly taken what they are counted with; those that have not yet are a small error.
        bounds["memory in use"] = admitted + max(0, spare) // rules.vm_reserve_bytes
    if capacity.cpus is not None:
        bounds["processors"] = capacity.cpus * rules.vms_per_cpu_max
    if capacity.containers is not None and capacity.containers_max is not None:
        bounds["the Docker network"] = admitted + max(0, capacity.containers_max - capacity.containers)
    if capacity.pids is not None and capacity.pids_max is not None and capacity.pids_max - capacity.pids < rules.pids_free_min:
        bounds["processes"] = admitted
    known = {name: bound for name, bound in bounds.items() if bound is not None}
    low = capacity.disk_free_bytes is not None and capacity.disk_free_bytes < rules.disk_free_bytes_min
    if not known:
        return Room(2**31, "nothing", low)
    tightest = min(known, key=lambda name: known[name])
    return Room(max(0, known[tightest]), tightest, low)


def facts(capacity: Capacity, found: Room) -> dict[str, object]:
    """What is kept of a measurement, as JSON."""
    return {**asdict(capacity), "vms_max": found.vms_max, "bound_by": found.bound_by}
