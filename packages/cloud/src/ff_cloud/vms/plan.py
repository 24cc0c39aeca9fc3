"""What is to be done about a VM: from what is wanted, what its row says and what the engine shows to one act, without effects.

An act is carried out as an operation, so only one runs on a VM at a time, and the next look starts from what it left. Every
act brings the VM closer to what is wanted, or changes nothing; that this settles, from any combination and with any number of
workers, is stated in packages/cloud/tests/properties/test_vm_plan.py.
"""

from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import Enum, auto

from ff_cloud.vms.engine.base import Observed
from ff_cloud.vms.model import AnyVm, Desired, Vm
from ff_core.contract.workspace import VmStatus

FAILURES_MAX = 3


class Act(Enum):
    """What is to be done."""

    NOTHING = auto()
    REMOVE = auto()
    """The engine has something that nobody knows of: remove it."""
    STOP = auto()
    """It failed for good, or is a copy of a workspace that lives elsewhere, and runs still: stop it, its files stay."""
    DISCARD = auto()
    """A VM without a workspace has to go, with all that the engine has of it and its row."""
    REVIVE = auto()
    """Its container has to run again, over the same files."""
    SUSPEND = auto()
    """Nobody uses it: put it to sleep."""
    UPGRADE = auto()
    """Nobody uses it just now: give it a container of the present image, over the same files."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PlanRules:
    """The settings that the plan depends on."""

    idle_max: timedelta | None
    """A VM that was not used for so long is suspended; None: never."""
    warm_age_max: timedelta
    upgrade_idle_min: timedelta = timedelta(seconds=30)


def next_act(
    vm: AnyVm | None, seen: Observed | None, *, busy: bool, wanted: bool, image: str, now: datetime, rules: PlanRules
) -> Act:
    """What to do about a VM.

    ``vm`` is its row (None: there is none), ``seen`` what the engine has of it (None: nothing), ``busy`` whether an operation
    works on it, ``wanted`` whether its workspace is READY, lives here and is to stay, ``image`` the present one.
    """
    if vm is None:
        return Act.NOTHING if seen is None or _is_nothing(seen) else Act.REMOVE
    if busy:
        return Act.NOTHING
    if isinstance(vm, Vm):
        return _of_workspace(vm, seen, wanted=wanted, image=image, now=now, rules=rules)
    return _of_nobody(vm, seen, image=image, now=now, rules=rules)


def _of_nobody(vm: AnyVm, seen: Observed | None, *, image: str, now: datetime, rules: PlanRules) -> Act:
    healthy = vm.status is VmStatus.WARM and runs(vm, seen) and not vm.health_failures
    young = vm.warm_at is not None and now - vm.warm_at <= rules.warm_age_max
    keep = healthy and young and vm.image == image and vm.desired is Desired.RUNNING
    return Act.NOTHING if keep else Act.DISCARD


def _of_workspace(vm: Vm, seen: Observed | None, *, wanted: bool, image: str, now: datetime, rules: PlanRules) -> Act:
    runs_on = seen is not None and seen.container is not None and seen.container.running
    match vm.status:
        case VmStatus.TERMINATING | VmStatus.GONE:
            return Act.DISCARD
        case VmStatus.FAILED | VmStatus.SUSPENDED if not wanted:
            return Act.STOP if runs_on else Act.NOTHING
        case VmStatus.SUSPENDED if wanted:
            return Act.SUSPEND if runs_on else Act.NOTHING
        case VmStatus.CLAIMED | VmStatus.CREATING | VmStatus.FAILED if wanted:
            return Act.REVIVE
        case VmStatus.RUNNING if wanted:
            return _of_running(vm, seen, image=image, now=now, rules=rules)
        case _:
            return Act.NOTHING  # the workspace's own operations bring it to an end


def _of_running(vm: Vm, seen: Observed | None, *, image: str, now: datetime, rules: PlanRules) -> Act:
    if not runs(vm, seen) or vm.health_failures >= FAILURES_MAX:
        return Act.REVIVE
    idle = now - vm.active_at
    if vm.desired is Desired.SUSPENDED or (rules.idle_max is not None and idle >= rules.idle_max):
        return Act.SUSPEND  # it wakes with the present image
    outdated = vm.image not in {None, image} and vm.refused_image != image
    return Act.UPGRADE if outdated and idle >= rules.upgrade_idle_min else Act.NOTHING


def runs(vm: AnyVm, seen: Observed | None) -> bool:
    """Its container runs, and is the one that the row means."""
    container = seen.container if seen is not None else None
    return (
        container is not None and container.running and container.generation == vm.generation and container.address == vm.address
    )


def _is_nothing(seen: Observed) -> bool:
    return seen.container is None and not seen.volume
