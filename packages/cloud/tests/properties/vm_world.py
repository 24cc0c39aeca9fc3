"""A small world of rows, containers, volumes and workers, in which the real plan, kinds and machine of operations decide.

Everything between two awaits of the real code is one micro-step here, so that a test can have any number of workers take
turns in any order, die anywhere, or go on after they lost their lease. What the engine and the database do is modelled;
what is decided is not. The steps of operations are in ``vm_world_steps``, what workers do in ``vm_world_workers``.
"""

from collections.abc import Callable, Generator
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

from ff_cloud.operations.errors import StartOver
from ff_cloud.operations.machine import (
    Limits,
)
from ff_cloud.operations.model import Direction, Operation, Status
from ff_cloud.testing.kinds import kinds_to_look_at
from ff_cloud.vms.engine.base import ContainerSeen, Observed
from ff_cloud.vms.engine.errors import StaleFence
from ff_cloud.vms.footing import CONTAINER, DAEMON
from ff_cloud.vms.model import AnyVm, Desired, Vm
from ff_cloud.vms.plan import PlanRules, runs
from ff_core.contract.workspace import VmStatus, WorkspaceStatus
from ff_core.ids import OperationId, UserId, VmId, WorkspaceId

NOW = datetime(2026, 1, 1, tzinfo=UTC)
A_MINUTE_AGO = NOW - timedelta(minutes=1)
LONG_AGO = NOW - timedelta(hours=2)
RULES = PlanRules(idle_max=timedelta(minutes=30), warm_age_max=timedelta(hours=6))
LIMITS = Limits()
USER = UserId(UUID(int=1))
NEW, OLD = "image:new", "image:old"

DISCARDED, ORPHANED = "a discard", "the reconciler"

Micro = Generator[None, None, Any]
"""Something that goes on; every ``yield`` is a place where others come between."""


KINDS = kinds_to_look_at()


class Broken(AssertionError):
    """A promise was broken."""


class Taken(Exception):
    """What the unique index says of a second VM for a workspace; whoever is late with his has failed."""


@dataclass
class Workspace:
    id: WorkspaceId
    status: WorkspaceStatus
    gone: bool = False
    """Somebody wants it deleted."""
    work: int = 0
    """The newest version of its files; 0: nothing there yet."""
    saved: int | None = None
    hurt: bool = False
    """Its volume was lost at some time."""

    @property
    def wanted(self) -> bool:
        return self.status is WorkspaceStatus.READY and not self.gone


@dataclass
class Done:
    """What a step leaves."""

    state: dict[str, Any] = field(default_factory=dict)
    apply: Callable[[], None] = lambda: None


class World:
    """See the module. ``note`` keeps what happened, for a failing example."""

    def __init__(self) -> None:
        self.rows: dict[VmId, AnyVm] = {}
        self.workspaces: dict[WorkspaceId, Workspace] = {}
        self.ops: dict[str, Operation] = {}
        self.leases: dict[str, str] = {}
        self.containers: dict[VmId, ContainerSeen] = {}
        self.disks: dict[VmId, int] = {}
        self.silent: set[str] = set()
        """Containers whose daemon does not answer though they run."""
        self.resting: set[str] = set()
        """Containers whose daemon takes nothing new."""
        self.in_use: set[WorkspaceId] = set()
        self.story: list[str] = []
        self._count = 0

    def __repr__(self) -> str:
        short = ("status", "desired", "generation", "image", "address", "health_failures", "active_at")
        lines = [
            f"{vm_id} {type(vm).__name__} " + " ".join(str(getattr(vm, name)) for name in short)
            for vm_id, vm in self.rows.items()
        ]
        lines += [str(workspace) for workspace in self.workspaces.values()]
        lines += [f"{op.kind} of {key}: {op.direction} {op.step} cancel {op.cancel_requested}" for key, op in self.ops.items()]
        lines += [f"{vm_id} {seen.id} {seen.state} {seen.address} {seen.generation}" for vm_id, seen in self.containers.items()]
        return "\n".join([*lines, f"disks {self.disks}", f"silent {self.silent} resting {self.resting} in use {self.in_use}"])

    def note(self, *words: object) -> None:
        self.story.append(" ".join(map(str, words)))

    def number(self) -> int:
        self._count += 1
        return self._count

    def state(self) -> tuple[object, ...]:
        """All that can settle."""
        statuses = {workspace.id: workspace.status for workspace in self.workspaces.values()}
        return dict(self.rows), dict(self.ops), dict(self.containers), dict(self.disks), statuses

    # Rows

    def put(self, vm: AnyVm) -> None:
        others = [row for row in self.rows.values() if isinstance(row, Vm) and row.id != vm.id]
        if isinstance(vm, Vm) and any(row.workspace_id == vm.workspace_id for row in others):
            raise Taken(f"{vm.workspace_id} has a VM already")
        self.rows[vm.id] = vm

    def change(self, vm_id: VmId, **values: Any) -> None:
        if vm_id in self.rows:
            self.put(replace(self.rows[vm_id], **values))

    def vm_of(self, workspace_id: WorkspaceId) -> Vm | None:
        return next((vm for vm in self.rows.values() if isinstance(vm, Vm) and vm.workspace_id == workspace_id), None)

    def new_row(self, owner: WorkspaceId | None, status: VmStatus, **values: Any) -> AnyVm:
        facts: dict[str, Any] = {
            "id": VmId(UUID(int=self.number())),
            "status": status,
            "desired": Desired.RUNNING,
            "generation": 1,
            "image": NEW,
            "runtime": None,
            "limits": None,
            "address": None,
            "port": None,
            "health_failures": 0,
            "created_at": NOW,
            "admitted_at": None,
            "warm_at": NOW if status is VmStatus.WARM else None,
            "active_at": NOW,
            "suspended_at": None,
            "refused_image": None,
            "deadline_at": None,
        }
        facts |= values
        vm = AnyVm(**facts) if owner is None else Vm(**facts, user_id=USER, workspace_id=owner)
        self.put(vm)
        return vm

    def wanted(self, vm_id: VmId) -> bool:
        vm = self.rows.get(vm_id)
        return isinstance(vm, Vm) and vm.workspace_id in self.workspaces and self.workspaces[vm.workspace_id].wanted

    def claim(self, vm_id: VmId, workspace_id: WorkspaceId) -> Vm:
        row = self.rows[vm_id]
        facts = {name: getattr(row, name) for name in AnyVm.__slots__}
        vm = Vm(**facts | {"status": VmStatus.CLAIMED, "active_at": NOW}, user_id=USER, workspace_id=workspace_id)
        self.put(vm)
        return vm

    def give_up(self, vm: Vm) -> bool:
        now = self.rows.get(vm.id)
        if not isinstance(now, Vm) or now.workspace_id != vm.workspace_id or now.status is not VmStatus.CLAIMED:
            return False
        facts = {name: getattr(now, name) for name in AnyVm.__slots__}
        self.rows[vm.id] = AnyVm(**facts | {"status": VmStatus.TERMINATING, "desired": Desired.GONE})
        return True

    def want_gone(self, vm_id: VmId) -> bool:
        if vm_id not in self.rows or isinstance(self.rows[vm_id], Vm):
            return False
        self.change(vm_id, desired=Desired.GONE)
        return True

    # The engine

    def observe(self, vm_id: VmId) -> Observed:
        return Observed(vm_id, self.containers.get(vm_id), vm_id in self.disks)

    def ensure(self, vm: AnyVm, fence: int) -> str:
        seen = self.containers.get(vm.id)
        if seen is not None and (seen.fence > fence or seen.generation > vm.generation):
            raise StaleFence
        if seen is not None and seen.generation < vm.generation:
            seen = None
        self.disks.setdefault(vm.id, 0)
        if seen is None:
            seen = ContainerSeen(f"c{self.number()}", "created", None, vm.generation, fence, None, False, None, vm.image or NEW)
        if not seen.running:
            seen = replace(seen, state="running", address=f"a{self.number()}", exit_code=None)
            self.resting.discard(seen.id)
            self.silent.discard(seen.id)
        self.containers[vm.id] = seen
        assert seen.address is not None
        return seen.address

    def stop(self, vm_id: VmId) -> None:
        seen = self.containers.get(vm_id)
        if seen is not None:
            self.containers[vm_id] = replace(seen, state="exited", address=None, exit_code=143)

    def remove(self, vm_id: VmId, why: str) -> None:
        row = self.rows.get(vm_id)
        ends = row is not None and row.status in {VmStatus.TERMINATING, VmStatus.GONE}
        if self.wanted(vm_id) and not ends:
            raise Broken(f"{why} removes the files of a workspace that is wanted")
        if isinstance(row, Vm) and not ends and why in {DISCARDED, ORPHANED}:
            raise Broken(f"{why} removes a VM that was claimed")
        self.containers.pop(vm_id, None)
        self.disks.pop(vm_id, None)

    def answers(self, vm: AnyVm) -> bool:
        """Its daemon lives at the address of the row, and knows the token of its generation."""
        seen = self.containers.get(vm.id)
        there = seen is not None and seen.running and seen.address == vm.address and seen.generation == vm.generation
        return there and seen is not None and seen.id not in self.silent

    def require(self, vm: AnyVm, *, patience: bool = False) -> None:
        """The daemon answers; or its container has ended, or is stopped after a while, and must be started again."""
        if not runs(vm, self.observe(vm.id)):
            raise StartOver(CONTAINER, "vm_stopped", "It stopped.")
        if not self.answers(vm):
            if patience:
                self.stop(vm.id)
                raise StartOver(CONTAINER, "vm_unreachable", "It is silent.")
            raise StartOver(DAEMON, "vm_unreachable", "It is silent.")

    # Operations

    def start(self, kind: str, key: str, *, done: int = 0, **more: Any) -> bool:
        if key in self.ops:
            return False
        self.ops[key] = Operation(
            id=OperationId(UUID(int=self.number())),
            user_id=None,
            kind=kind,
            key=key,
            input={},
            state={},
            step=done,
            step_name=KINDS[kind].step_name(done, Direction.FORWARD),
            direction=Direction.FORWARD,
            status=Status.QUEUED,
            cancellable=not KINDS[kind].forward_only,
            cancel_requested=False,
            attempts=0,
            fence=0,
            error_code=None,
            error_message=None,
            created_at=NOW,
            updated_at=NOW,
            finished_at=None,
        )
        self.ops[key] = replace(self.ops[key], **more)
        self.note("ordered", kind, key[-4:])
        return True

    def cancel(self, key: str) -> None:
        op = self.ops.get(key)
        if op is not None and op.cancellable and op.direction is Direction.FORWARD:
            self.ops[key] = replace(op, cancel_requested=True)

    def take(self, worker: str) -> Operation | None:
        free = [key for key in self.ops if key not in self.leases]
        if not free:
            return None
        op = self.ops[free[0]]
        op = replace(op, fence=self.number(), attempts=op.attempts + 1, status=Status.RUNNING)
        self.ops[free[0]], self.leases[free[0]] = op, worker
        return op

    def write(self, op: Operation, **values: Any) -> Operation | None:
        """Fenced; None when somebody else has it."""
        now = self.ops.get(op.key)
        if now is None or (now.id, now.fence, now.step, now.direction) != (op.id, op.fence, op.step, op.direction):
            return None
        self.ops[op.key] = replace(now, **values)
        return self.ops[op.key]

    def let_go(self, op: Operation) -> None:
        self.leases.pop(op.key, None)
