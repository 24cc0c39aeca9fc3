"""What workers and requests do in the world of ``vm_world``: the loops around operations, in micro-steps."""

from collections.abc import Generator
from dataclasses import replace
from typing import Any
from uuid import UUID

from vm_world import KINDS, LIMITS, NEW, NOW, ORPHANED, RULES, Broken, Done, Micro, Workspace, World
from vm_world_steps import STEPS, fail, go_on, settle

from ff_cloud.operations.errors import OperationCancelled, StartOver
from ff_cloud.operations.machine import (
    STARTED_OVER,
    Perform,
    Retry,
    Settle,
    TurnBack,
    after_failure,
    describe,
    next_move,
    times_started_over,
)
from ff_cloud.operations.model import Direction, Kind, Operation, Status, Step
from ff_cloud.vms import steps as vm_steps
from ff_cloud.vms.engine.base import Observed
from ff_cloud.vms.model import Desired, Vm, key_of
from ff_cloud.vms.plan import Act, next_act
from ff_cloud.workspaces.kinds import CLAIMED_STEPS_DONE, PROVISION, REVIVE, SUSPEND, UPGRADE, WAKE
from ff_core.contract.workspace import VmStatus, WorkspaceStatus
from ff_core.ids import VmId, WorkspaceId


def operations(world: World, worker: str) -> Micro:
    """Take operations on and carry them on, for ever."""
    while True:
        op = world.take(worker)
        yield
        while op is not None:
            kind = KINDS[op.kind]
            match next_move(kind, op, LIMITS):
                case Settle(status):
                    try:
                        settle(world, op, status)
                    except StartOver as error:
                        _failed(world, op, kind, error)
                    op = None
                case TurnBack(error):
                    op = _turn_back(world, op, kind, error)
                case Perform(step):
                    op = yield from _perform(world, op, kind, step)
            yield


def _perform(world: World, op: Operation, kind: Kind, step: Step) -> Generator[None, None, Operation | None]:
    forward = op.direction is Direction.FORWARD
    model = STEPS[type(step)][0 if forward else 1](world, op)
    try:
        done: Done = yield from model
    except Exception as error:
        if isinstance(error, Broken):
            raise
        return _failed(world, op, kind, error)
    world.note("did" if forward else "undid", op.kind, step.name, op.key[-4:])
    yield
    now = world.ops.get(op.key)
    if now is not None and now.cancel_requested and forward and kind.may_turn_back(op.step):
        return _turn_back(world, op, kind, OperationCancelled())
    position = op.step + (1 if forward else -1)
    values: dict[str, Any] = {"error_code": None} if forward else {}
    written = world.write(
        op,
        step=position,
        attempts=1,
        cancellable=op.cancellable and kind.may_turn_back(position),
        state={**op.state, **done.state},
        **values,
    )
    if written is not None:
        done.apply()
    return written


def _failed(world: World, op: Operation, kind: Kind, error: Exception) -> Operation | None:
    world.note("failure", op.kind, op.step, op.direction, type(error).__name__, op.key[-4:])
    match after_failure(kind, op, error, LIMITS):
        case TurnBack():
            return _turn_back(world, op, kind, error)
        case Retry() as retry:
            values: dict[str, Any] = {"error_code": describe(error)[0]} if op.direction is Direction.FORWARD else {}
            if retry.step is not None:
                state = {**op.state, STARTED_OVER: times_started_over(op) + 1}
                values |= {"step": retry.step, "attempts": 0, "state": state}
            if world.write(op, status=Status.QUEUED, **values) is not None:
                world.let_go(op)
        case Settle(status):
            settle(world, op, status)
    return None


def _turn_back(world: World, op: Operation, kind: Kind, error: Exception) -> Operation | None:
    world.note("turned back", op.kind, op.key[-4:], describe(error)[0])
    return world.write(
        op,
        direction=Direction.BACKWARD,
        step=min(op.step + 1, len(kind.steps)),
        cancellable=False,
        attempts=1,
        error_code=describe(error)[0],
    )


def _look(world: World, vm_id: VmId, seen: Observed | None, rows: dict, busy: set[str], wanted: set[WorkspaceId]) -> Act:
    vm = rows.get(vm_id)
    taken = vm is not None and (key_of(vm) in busy or str(vm.id) in busy)
    needed = isinstance(vm, Vm) and vm.workspace_id in wanted
    return next_act(vm, seen, busy=taken, wanted=needed, image=NEW, now=NOW, rules=RULES)


def _wanted(world: World) -> set[WorkspaceId]:
    return {workspace.id for workspace in world.workspaces.values() if workspace.wanted}


def reconciler(world: World) -> Micro:
    """Look at everything, again and again, in the same order as the real one: engine, rows, then each once more."""
    while True:
        seen = {vm_id: world.observe(vm_id) for vm_id in world.containers.keys() | world.disks.keys()}
        yield
        rows, busy, wanted = dict(world.rows), set(world.ops), _wanted(world)
        yield
        for vm_id in sorted(seen.keys() | rows.keys()):
            match _look(world, vm_id, seen.get(vm_id), rows, busy, wanted):
                case Act.NOTHING:
                    continue
                case Act.REMOVE:
                    world.note("orphan", vm_id)
                    world.remove(vm_id, ORPHANED)
                case Act.STOP:
                    world.stop(vm_id)
                case _:
                    yield from _settle_vm(world, vm_id)
            yield
        yield


def _settle_vm(world: World, vm_id: VmId) -> Micro:
    before = world.rows.get(vm_id)
    yield
    seen = world.observe(vm_id)
    yield
    vm = world.rows.get(vm_id)
    facts = [(row.status, row.generation, row.address, type(row)) for row in (before, vm) if row is not None]
    if vm is None or len(facts) < 2 or facts[0] != facts[1]:
        return
    act = _look(world, vm_id, seen, world.rows, set(world.ops), _wanted(world))
    orders = {Act.REVIVE: REVIVE, Act.UPGRADE: UPGRADE, Act.SUSPEND: SUSPEND}
    if act is Act.DISCARD:
        if isinstance(vm, Vm) or world.want_gone(vm_id):
            world.start(vm_steps.DISCARD, str(vm_id))
    elif act in orders and isinstance(vm, Vm):
        world.start(orders[act], str(vm.workspace_id))


def upkeep(world: World) -> Micro:
    """Health, the sweep, and a pool of one."""
    while True:
        yield from _health(world)
        yield
        for workspace in list(world.workspaces.values()):
            _sweep(world, workspace)
        yield
        pool = [vm for vm in world.rows.values() if not isinstance(vm, Vm) and vm.desired is Desired.RUNNING]
        warm = [vm for vm in pool if vm.status is VmStatus.WARM and vm.image == NEW]
        for vm in warm[1:]:
            world.want_gone(vm.id)
            world.start(vm_steps.DISCARD, str(vm.id))
        if not warm and not any(vm.status is VmStatus.CREATING for vm in pool):
            world.start(vm_steps.WARM, str(world.new_row(None, VmStatus.CREATING).id))
        yield


def _health(world: World) -> Micro:
    for vm in list(world.rows.values()):
        if vm.desired is Desired.RUNNING and vm.status in {VmStatus.RUNNING, VmStatus.WARM}:
            well = world.answers(vm)
            yield
            if vm.id in world.rows:
                world.change(vm.id, health_failures=0 if well else world.rows[vm.id].health_failures + 1)


def _sweep(world: World, workspace: Workspace) -> None:
    key = str(workspace.id)
    if key in world.ops:
        if workspace.gone:
            world.cancel(key)
    elif workspace.gone:
        go_on(world, workspace)
    else:
        bare = workspace.status is WorkspaceStatus.READY and world.vm_of(workspace.id) is None
        if bare or workspace.status is WorkspaceStatus.PROVISIONING:
            fail(world, workspace, "by the sweep")


def new_workspace(world: World) -> Micro:
    """A request that makes a workspace: claims a VM, binds it, or gives it up and takes the next."""
    workspace = Workspace(WorkspaceId(UUID(int=world.number())), WorkspaceStatus.PROVISIONING)
    world.workspaces[workspace.id] = workspace
    key = str(workspace.id)
    vm = _claim(world, workspace)
    world.start(PROVISION, key, done=CLAIMED_STEPS_DONE if vm else 0)
    if vm is None:
        world.new_row(workspace.id, VmStatus.CREATING)
    while vm is not None:
        yield
        if world.answers(vm):
            return
        op = world.ops.get(key)
        if op is None or op.attempts or not world.give_up(vm):
            return
        world.ops[key] = replace(op, step=0)
        yield
        if workspace.id not in world.workspaces or workspace.gone or world.vm_of(workspace.id) is not None:
            return  # others were faster
        vm = _claim(world, workspace)
        if vm is None:
            world.new_row(workspace.id, VmStatus.CREATING)
            return
        yield
        op = world.ops.get(key)
        if op is not None and not op.attempts:
            world.ops[key] = replace(op, step=CLAIMED_STEPS_DONE)


def _claim(world: World, workspace: Workspace) -> Vm | None:
    for vm in world.rows.values():
        free = not isinstance(vm, Vm) and vm.status is VmStatus.WARM and vm.desired is Desired.RUNNING and vm.image == NEW
        if free:
            return world.claim(vm.id, workspace.id)
    return None


def wake(world: World, workspace: Workspace) -> None:
    """A request for a workspace that sleeps, or is about to."""
    vm, op = world.vm_of(workspace.id), world.ops.get(str(workspace.id))
    if op is not None:
        if op.kind == SUSPEND:
            world.cancel(op.key)
    elif workspace.wanted and vm is not None and vm.status is VmStatus.SUSPENDED:
        world.start(WAKE, str(workspace.id))
