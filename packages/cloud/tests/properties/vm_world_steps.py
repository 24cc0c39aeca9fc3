"""The steps of operations and what their ends mean, in the world of ``vm_world``.

By the real classes and methods: one that has no model here fails the tests.
"""

from collections.abc import Callable
from uuid import UUID

from vm_world import DISCARDED, KINDS, NEW, NOW, Done, Micro, Workspace, World

from ff_cloud.operations.errors import Fatal, OperationCancelled, StartOver
from ff_cloud.operations.model import Operation, Status, Step
from ff_cloud.vms import steps as vm_steps
from ff_cloud.vms.daemon_client import VmUnreachable
from ff_cloud.vms.footing import CONTAINER
from ff_cloud.vms.model import AnyVm, Desired, Vm
from ff_cloud.vms.plan import FAILURES_MAX, runs
from ff_cloud.workspaces import resting, steps
from ff_cloud.workspaces.kinds import PASSING, PROVISION, REMOVE, REVIVE, WAKE
from ff_cloud.workspaces.settle import Settler
from ff_core.contract.operation import TERMINATE
from ff_core.contract.workspace import VmStatus, WorkspaceStatus
from ff_core.ids import VmId, WorkspaceId


def _workspace(world: World, op: Operation) -> Workspace:
    found = world.workspaces.get(WorkspaceId(UUID(op.key)))
    if found is None:
        raise Fatal("not_found", "It is no longer there.")
    return found


def _vm(world: World, op: Operation) -> Vm:
    _workspace(world, op)
    vm = world.vm_of(WorkspaceId(UUID(op.key)))
    if vm is None:
        raise Fatal("vm_lost", "It is no longer there.")
    return vm


def _anonymous(world: World, op: Operation) -> AnyVm:
    vm = world.rows.get(VmId(UUID(op.key)))
    if vm is None:
        raise Fatal("vm_lost", "It is no longer there.")
    return vm


def make_container(world: World, op: Operation) -> Micro:
    vm = _anonymous(world, op)
    yield
    address = world.ensure(vm, op.fence)
    return Done(apply=lambda: world.change(vm.id, address=address, port=1, status=VmStatus.CREATING, health_failures=0))


def unmake_container(world: World, op: Operation) -> Micro:
    vm_id = VmId(UUID(op.key))
    yield

    def apply() -> None:
        if world.want_gone(vm_id):
            world.change(vm_id, status=VmStatus.TERMINATING)

    return Done(apply=apply)


def await_daemon(world: World, op: Operation) -> Micro:
    vm = _anonymous(world, op) if op.kind == vm_steps.WARM else _vm(world, op)
    yield
    world.require(vm, patience=True)
    return Done()


def probe(world: World, op: Operation) -> Micro:
    vm = _anonymous(world, op)
    yield
    world.require(vm)
    return Done(apply=lambda: world.change(vm.id, status=VmStatus.WARM, warm_at=NOW))


def remove_for_good(world: World, op: Operation) -> Micro:
    vm_id = VmId(UUID(op.key))
    vm = world.rows.get(vm_id)
    if isinstance(vm, Vm) and vm.status not in {VmStatus.TERMINATING, VmStatus.GONE}:
        return Done()
    yield
    world.remove(vm_id, DISCARDED)
    return Done(apply=lambda: world.rows.pop(vm_id, None))


def admit(world: World, op: Operation) -> Micro:
    workspace = _workspace(world, op)
    vm = world.vm_of(workspace.id)
    yield
    if vm is None:
        vm = world.new_row(workspace.id, VmStatus.CREATING)
    world.change(vm.id, admitted_at=NOW)
    return Done()


def unadmit(world: World, op: Operation) -> Micro:
    vm = world.vm_of(_workspace(world, op).id)
    yield
    if vm is not None and vm.status is VmStatus.CREATING and op.kind == PROVISION:
        return Done(apply=lambda: world.rows.pop(vm.id, None))
    if vm is not None and vm.status is VmStatus.SUSPENDED:
        return Done(apply=lambda: world.change(vm.id, admitted_at=None))
    return Done()


def ensure_container(world: World, op: Operation) -> Micro:
    vm = _vm(world, op)
    yield
    address = world.ensure(vm, op.fence)
    values = {"address": address, "port": 1, "status": VmStatus.CREATING, "health_failures": 0, "suspended_at": None}
    return Done(apply=lambda: world.change(vm.id, **values))


def unmake_new_container(world: World, op: Operation) -> Micro:
    vm = world.vm_of(_workspace(world, op).id)
    yield
    if vm is None:
        return Done()
    world.remove(vm.id, "undo of the container")
    return Done(apply=lambda: world.rows.pop(vm.id, None))


def bind(world: World, op: Operation) -> Micro:
    vm = _vm(world, op)
    yield
    world.require(vm)
    values = {
        "status": VmStatus.RUNNING,
        "desired": Desired.RUNNING,
        "health_failures": 0,
        "suspended_at": None,
        "active_at": NOW,
    }
    return Done(apply=lambda: world.change(vm.id, **values))


def apply_limits(world: World, op: Operation) -> Micro:
    vm = _vm(world, op)
    yield
    if vm.id not in world.containers:
        raise StartOver(CONTAINER, "vm_stopped", "It stopped.")

    def apply() -> None:
        now = world.rows.get(vm.id)
        if isinstance(now, Vm) and now.workspace_id == vm.workspace_id and now.status is VmStatus.CLAIMED:
            world.change(vm.id, status=VmStatus.RUNNING, health_failures=0)

    return Done(apply=apply)


def check_isolation(world: World, op: Operation) -> Micro:
    vm = _vm(world, op)
    yield
    if not runs(vm, world.observe(vm.id)):
        raise StartOver(CONTAINER, "vm_stopped", "It stopped.")
    return Done()


def prepare_checkout(world: World, op: Operation) -> Micro:
    workspace, vm = _workspace(world, op), _vm(world, op)
    yield
    world.require(vm)
    world.disks[vm.id] = workspace.work = max(workspace.work, 1)
    return Done()


def rest(world: World, op: Operation) -> Micro:
    vm = _vm(world, op)
    if vm.status is not VmStatus.RUNNING:
        return Done()
    yield
    world.change(vm.id, desired=Desired.SUSPENDED)
    yield
    if not world.answers(vm):
        raise VmUnreachable
    if vm.workspace_id in world.in_use:
        raise Fatal("vm_in_use", "It is in use.")
    world.resting.add(world.containers[vm.id].id)
    return Done()


def unrest(world: World, op: Operation) -> Micro:
    vm = world.vm_of(_workspace(world, op).id)
    if vm is None:
        return Done()
    yield
    if vm.status is VmStatus.RUNNING and world.answers(vm):
        world.resting.discard(world.containers[vm.id].id)
    return Done(apply=lambda: world.change(vm.id, desired=Desired.RUNNING, active_at=NOW))


def save(world: World, op: Operation) -> Micro:
    workspace, vm = _workspace(world, op), _vm(world, op)
    yield
    if vm.status is VmStatus.RUNNING:
        if not world.answers(vm):
            raise VmUnreachable
        workspace.saved = world.disks[vm.id]
    return Done()


def finish_journal(world: World, op: Operation) -> Micro:
    vm = _vm(world, op)
    yield
    if vm.status is VmStatus.RUNNING and not world.answers(vm):
        raise VmUnreachable
    return Done()


def stop_container(world: World, op: Operation) -> Micro:
    vm = world.vm_of(_workspace(world, op).id)
    yield
    if vm is None:
        return Done()
    world.stop(vm.id)
    values = {"status": VmStatus.SUSPENDED, "desired": Desired.SUSPENDED, "suspended_at": NOW}
    return Done(apply=lambda: world.change(vm.id, **values, admitted_at=None, address=None, port=None))


def renew(world: World, op: Operation) -> Micro:
    vm = _vm(world, op)
    yield
    if vm.image not in {None, NEW} and vm.refused_image != NEW:
        values = {"image": NEW, "generation": vm.generation + 1}
        return Done({"image_before": vm.image}, lambda: world.change(vm.id, **values))
    if vm.health_failures >= FAILURES_MAX:
        return Done(apply=lambda: world.change(vm.id, generation=vm.generation + 1))
    return Done()


def unrenew(world: World, op: Operation) -> Micro:
    vm = world.vm_of(_workspace(world, op).id)
    before = op.state.get("image_before")
    yield
    if vm is None or before is None or vm.image == before:
        return Done()
    more = {} if op.error_code in {*PASSING, OperationCancelled.code} else {"refused_image": NEW}
    return Done(apply=lambda: world.change(vm.id, image=before, generation=vm.generation + 1, **more))


def restore(world: World, op: Operation) -> Micro:
    workspace, vm = _workspace(world, op), _vm(world, op)
    yield
    world.require(vm, patience=True)
    if world.disks[vm.id] or workspace.status is not WorkspaceStatus.READY:
        return Done()
    if workspace.saved is None:
        raise Fatal("vm_data_lost", "Its files are lost.")
    world.disks[vm.id] = workspace.saved
    return Done()


def remove_vm(world: World, op: Operation) -> Micro:
    vm = world.vm_of(_workspace(world, op).id)
    if vm is None:
        return Done()
    yield
    world.remove(vm.id, "deletion")
    return Done(apply=lambda: world.rows.pop(vm.id, None))


def forget(world: World, op: Operation) -> Micro:
    yield
    _workspace(world, op).saved = None
    return Done()


def nothing(_world: World, _op: Operation) -> Micro:
    return Done()
    yield


StepModel = Callable[[World, Operation], Micro]
STEPS: dict[type[Step], tuple[StepModel, StepModel]] = {
    vm_steps.MakeContainer: (make_container, unmake_container),
    vm_steps.AwaitWarmDaemon: (await_daemon, nothing),
    vm_steps.ProbeVm: (probe, nothing),
    vm_steps.RemoveForGood: (remove_for_good, nothing),
    steps.Admit: (admit, unadmit),
    steps.EnsureContainer: (ensure_container, nothing),
    steps.EnsureNewContainer: (ensure_container, unmake_new_container),
    steps.AwaitDaemon: (await_daemon, nothing),
    steps.BindDaemon: (bind, nothing),
    steps.ApplyLimits: (apply_limits, nothing),
    steps.CheckIsolation: (check_isolation, nothing),
    steps.PrepareCheckout: (prepare_checkout, nothing),
    steps.RemoveVm: (remove_vm, nothing),
    resting.RestDaemon: (rest, unrest),
    resting.SaveState: (save, nothing),
    resting.ForgetState: (forget, nothing),
    resting.FinishJournal: (finish_journal, nothing),
    resting.StopContainer: (stop_container, nothing),
    resting.RenewContainer: (renew, unrenew),
    resting.RestoreState: (restore, nothing),
}


# What the end of an operation means, by the real methods.


def fail(world: World, workspace: Workspace, why: str | None) -> None:
    vm = world.vm_of(workspace.id)
    if vm is not None and vm.status not in {VmStatus.TERMINATING, VmStatus.GONE}:
        world.change(vm.id, status=VmStatus.FAILED, admitted_at=None)
    workspace.status = WorkspaceStatus.FAILED
    world.note("failed", workspace.id, why)


def go_on(world: World, workspace: Workspace) -> None:
    if workspace.gone:
        workspace.status = WorkspaceStatus.ARCHIVING
        world.start(TERMINATE, str(workspace.id))


def provisioned(world: World, op: Operation, workspace: Workspace) -> None:
    if workspace.status is not WorkspaceStatus.PROVISIONING:
        return
    if op.status is Status.DONE:
        workspace.status = WorkspaceStatus.READY
    else:
        fail(world, workspace, op.error_code)
    go_on(world, workspace)


def _passes(op: Operation) -> bool:
    return op.cancel_requested or op.error_code in PASSING


def revived(world: World, op: Operation, workspace: Workspace) -> None:
    if op.status is not Status.DONE and workspace.status is WorkspaceStatus.READY and not _passes(op):
        if "image_before" in op.state and not workspace.gone:
            world.start(REVIVE, op.key)
            return
        fail(world, workspace, op.error_code)
    go_on(world, workspace)


def woken(world: World, op: Operation, workspace: Workspace) -> None:
    vm = world.vm_of(workspace.id)
    if op.status is not Status.DONE and vm is not None:
        renewed = "image_before" in op.state
        if _passes(op) or renewed:
            world.change(vm.id, status=VmStatus.SUSPENDED, desired=Desired.SUSPENDED, admitted_at=None, suspended_at=NOW)
        elif workspace.status is WorkspaceStatus.READY:
            fail(world, workspace, op.error_code)
        if renewed and not _passes(op) and not workspace.gone:
            world.start(WAKE, op.key)
            return
    go_on(world, workspace)


def upgraded(world: World, op: Operation, workspace: Workspace) -> None:
    if op.status is not Status.DONE and "image_before" in op.state and not workspace.gone:
        world.start(REVIVE, op.key)
        return
    go_on(world, workspace)


def rested(world: World, op: Operation, workspace: Workspace) -> None:
    go_on(world, workspace)


def terminated(world: World, op: Operation, workspace: Workspace) -> None:
    if op.status is not Status.DONE:
        return
    if world.vm_of(workspace.id) is not None:
        raise StartOver(REMOVE, "vm_given", "It has one.")
    del world.workspaces[workspace.id]


SETTLERS = {
    Settler.provisioned: provisioned,
    Settler.revived: revived,
    Settler.woken: woken,
    Settler.upgraded: upgraded,
    Settler.rested: rested,
    Settler.terminated: terminated,
}


def settle(world: World, op: Operation, status: Status) -> None:
    kind = KINDS[op.kind]
    now = world.write(op, status=status)
    if now is None:
        return
    workspace = world.workspaces.get(WorkspaceId(UUID(op.key)))
    del world.ops[op.key]
    if kind.on_settled is not None and workspace is not None:
        try:
            SETTLERS[kind.on_settled.__func__](world, now, workspace)  # type: ignore[attr-defined]
        except StartOver:
            world.ops[op.key] = op  # rolled back
            raise
    world.let_go(op)
    world.note("settled", op.kind, op.key[-4:], status, op.error_code or "")
