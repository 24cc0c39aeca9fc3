"""What makes VMs, as a promise: who calls it may die at any point and call again."""

from collections.abc import AsyncGenerator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Literal, Protocol

from ff_core.ids import VmId

ContainerState = Literal["created", "running", "exited", "dead"]
"""``created``: never started. ``exited``: can be started again. ``dead``: half removed, can only be removed."""


@dataclass(frozen=True)
class Limits:
    """What a VM may use: memory in bytes (swap included), processor cores (may be a fraction), processes.

    ``disk_bytes`` bounds its volume where the engine can do that (see :class:`Capacity`); null: as much as there is.
    """

    memory_bytes: int
    cpus: float
    pids: int
    disk_bytes: int | None = None


@dataclass(frozen=True)
class VmSpec:
    """The VM that is wanted.

    A higher ``generation`` asks for a new container over the same volume. ``fence`` orders the operations that act on
    the VM: the higher one wins. ``environment`` is shown by ``docker inspect``, so nothing in it may be a secret.
    """

    vm_id: VmId
    generation: int
    fence: int
    image: str
    limits: Limits
    token_sha256: str
    extra_hosts: Mapping[str, str] = field(default_factory=dict)
    """Host name to address, as the VM shall resolve it."""
    environment: Mapping[str, str] = field(default_factory=dict)
    runtime: str | None = None
    """The OCI runtime that shall run it, such as ``runsc``; null: the engine's choice."""
    volume: Literal["any", "existing"] = "any"
    """``existing``: its files must be there. For a VM that is made anew over them, an empty volume would be a silent loss."""


@dataclass(frozen=True)
class Endpoint:
    """Where the daemon of a VM will listen. The address changes with every start."""

    container_id: str
    address: str
    port: int


@dataclass(frozen=True)
class ContainerSeen:
    """A container as the engine shows it. ``address`` is null unless it runs, ``exit_code`` unless it ended."""

    id: str
    state: ContainerState
    address: str | None
    generation: int
    fence: int
    exit_code: int | None
    oom_killed: bool
    started_at: datetime | None
    image: str

    @property
    def running(self) -> bool:
        """Its processes live; says nothing about whether the daemon answers."""
        return self.state == "running"


@dataclass(frozen=True)
class Observed:
    """All that the engine has of a VM. Neither container nor volume: there is no such VM, or none any more."""

    vm_id: VmId
    container: ContainerSeen | None
    volume: bool


@dataclass(frozen=True)
class EngineEvent:
    """Something happened to a VM's container. Says that it is worth looking, not what is there now."""

    vm_id: VmId
    kind: Literal["start", "oom", "die", "destroy"]


@dataclass(frozen=True)
class EngineReport:
    """How the engine is, for ``doctor`` and ``readyz``. A ``network_ready`` of false is well: it is made on demand."""

    version: str
    api_version: str
    image_present: bool
    network: str
    network_ready: bool


@dataclass(frozen=True)
class Capacity:
    """What the machine of the engine has and what of it is free. What can't be known is null.

    ``containers`` counts those that run, whoever's they are; ``containers_max`` is the most that the VMs' network and the
    process table allow. ``disk_quota`` says whether ``Limits.disk_bytes`` is enforced.
    """

    memory_total_bytes: int | None = None
    memory_available_bytes: int | None = None
    cpus: int | None = None
    disk_total_bytes: int | None = None
    disk_free_bytes: int | None = None
    containers: int | None = None
    containers_max: int | None = None
    pids: int | None = None
    pids_max: int | None = None
    disk_quota: bool = False


@dataclass(frozen=True)
class ImageSeen:
    """An image that VMs are, or were, made from. ``bytes_total`` counts its layers, which it may share with others."""

    id: str
    tags: tuple[str, ...]
    made_at: datetime
    bytes_total: int


class Engine(Protocol):
    """Makes, shows and removes the VMs of one deployment; never touches those of another.

    Every method may be repeated, may be raced and has a time limit. All raise ``DockerUnreachable`` when the engine
    does not answer in time (what was asked may have happened) and ``EngineFailed`` when it refuses without a known reason.
    """

    async def prepare(self, image: str) -> None:
        """Bring about what VMs need before the first one is made, such as their network and the rules about what they reach.

        ``ensure`` does it too when nobody did. Called at the start it keeps that off the first VM's way; called now and then
        it puts back what somebody else took away. Cheap when nothing is to do. Raises ``EgressUnavailable``, ``ImageMissing``.
        """
        ...

    async def ensure(self, spec: VmSpec) -> Endpoint:
        """Make a container for ``spec`` exist and run over the VM's volume; adopt one that already does.

        Calls with the same ``vm_id`` and ``generation`` give the same container, however many race. One of a lower
        generation is replaced over the same volume. The endpoint may need a moment until it answers: poll its health.
        Takes half a second to a minute. Raises ``StaleFence`` when the VM belongs to a newer operation or generation
        (stop), ``NoCapacity`` and ``HostFailed`` (try later), ``EgressUnavailable``, ``ImageMissing``, ``RuntimeMissing`` and,
        when ``spec.volume`` is "existing", ``VolumeMissing`` (do not retry). What a failed or killed call leaves, ``remove``
        removes and ``observe_all`` shows.
        """
        ...

    async def observe(self, vm_id: VmId) -> Observed:
        """What is there now. Never raises for "not there": may be called before ``ensure`` and after ``remove``."""
        ...

    async def observe_all(self) -> list[Observed]:
        """Every VM of this deployment that has a container or a volume, found by label, in no order."""
        ...

    async def stop(self, vm_id: VmId) -> None:
        """Stop the VM, keep container and volume. Asks politely and kills after ten seconds. No container: nothing to do."""
        ...

    async def start(self, vm_id: VmId) -> Endpoint:
        """Start a stopped VM, or say where the running one is. Raises ``ContainerMissing``, ``VolumeMissing``,
        ``NoCapacity``.
        """
        ...

    async def update_limits(self, vm_id: VmId, limits: Limits) -> None:
        """Change the limits of a VM while it runs. Raises ``ContainerMissing``.

        The disk only grows: a smaller or missing ``disk_bytes`` leaves it as it is. Raises ``NoCapacity``.
        """
        ...

    async def remove(self, vm_id: VmId) -> None:
        """Remove container and volume with everything in it; returns when both are gone. Nothing there: nothing to do."""
        ...

    def events(self) -> AsyncGenerator[EngineEvent, None]:
        """What happens to this deployment's containers, from the first ``anext`` on, until closed.

        Raises ``DockerUnreachable`` when the stream ends. Events may be missed, so look at everything (``observe_all``)
        after subscribing and now and then.
        """
        ...

    async def check(self, image: str) -> EngineReport:
        """How the engine is and whether it has ``image``. Changes nothing, takes milliseconds."""
        ...

    async def capacity(self) -> Capacity:
        """What the engine's machine has and has left, now. Takes milliseconds."""
        ...

    async def isolation(self, vm_id: VmId) -> None:
        """Return when the walls of a running VM stand exactly as they must; asked before a VM is given to somebody.

        One network, ours, at the address that ``ensure`` gave; no published port; namespaces of its own; no capability
        beyond the daemon's; the rules about what it may reach in force. Raises ``IsolationBroken``, which says what is
        wrong (do not use that VM), or ``ContainerMissing``.
        """
        ...

    async def images(self) -> list[ImageSeen]:
        """Every image that was built for VMs, whoever's VMs those are, in no order."""
        ...

    async def remove_image(self, image_id: str) -> None:
        """Remove an image with all its tags. Not there: nothing to do. Raises ``ImageInUse`` while a container needs it."""
        ...
