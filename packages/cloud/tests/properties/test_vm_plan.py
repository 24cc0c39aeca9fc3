"""From any state, and however two workers and their users get in each other's way, VMs settle, one for each workspace.

The world is a model (``vm_world``), the decisions are the real ones: the plan, the lists of steps, the machine of operations.
"""

import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from random import Random
from uuid import UUID

from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

sys.path.insert(0, str(Path(__file__).parent))
from vm_world import A_MINUTE_AGO, KINDS, LONG_AGO, NEW, NOW, OLD, Micro, Taken, Workspace, World
from vm_world_steps import SETTLERS, STEPS
from vm_world_workers import new_workspace, operations, reconciler, upkeep, wake

from ff_cloud.operations.model import Direction
from ff_cloud.vms.engine.base import ContainerSeen
from ff_cloud.vms.model import AnyVm, Desired, Vm
from ff_cloud.vms.steps import DISCARD, WARM
from ff_cloud.workspaces.kinds import CHECKPOINT, PROVISION, REVIVE, SUSPEND, UPGRADE, WAKE
from ff_core.contract.operation import TERMINATE
from ff_core.contract.workspace import VmStatus, WorkspaceStatus
from ff_core.ids import WorkspaceId

ROUNDS_MAX = 1000
"""Micro-steps of each worker until everything must have settled."""
STILL = 60
"""Micro-steps in which everybody looked at everything and nothing happened."""
MOVES_MAX = 300
"""Before that: turns of anybody, faults and wishes of users, as the dice have it."""
FAULTS_MAX = 4

WORKSPACE_KINDS = {
    WorkspaceStatus.READY: (REVIVE, SUSPEND, WAKE, UPGRADE, CHECKPOINT),
    WorkspaceStatus.PROVISIONING: (PROVISION,),
    WorkspaceStatus.ARCHIVING: (TERMINATE,),
}


@st.composite
def worlds(draw: Callable) -> World:
    """Any combination of what is wanted, what the rows say, what is under way and what the engine has."""
    world = World()
    for _ in range(draw(st.integers(0, 2))):
        _a_workspace(draw, world)
    for _ in range(draw(st.integers(0, 2))):
        kind = draw(st.sampled_from([None, WARM, DISCARD]))
        facts = draw(rows) | ({"desired": Desired.GONE} if kind == DISCARD else {})  # written in the transaction that orders it
        statuses = [each for each in VmStatus if each is not VmStatus.WARM or kind != WARM]  # warm is what its last step writes
        vm = world.new_row(None, draw(st.sampled_from(statuses)), **facts)
        _what_there_is(draw, world, vm)
        if kind is not None:
            _an_operation(draw, world, kind, str(vm.id))
    for _ in range(draw(st.integers(0, 1))):
        _what_there_is(draw, world, replace(world.new_row(None, VmStatus.WARM)))
        world.rows.popitem()
    return world


ENDED = [VmStatus.TERMINATING, VmStatus.GONE, VmStatus.FAILED]
OWNED = [VmStatus.RUNNING, VmStatus.RUNNING, *(status for status in VmStatus if status is not VmStatus.WARM)]
rows = st.fixed_dictionaries(
    {
        "desired": st.sampled_from(Desired),
        "generation": st.integers(2, 3),
        "image": st.sampled_from([NEW, NEW, OLD, None]),
        "refused_image": st.sampled_from([None, None, NEW]),
        "address": st.sampled_from([None, "a"]),
        "health_failures": st.integers(0, 4),
        "active_at": st.sampled_from([NOW, A_MINUTE_AGO, LONG_AGO]),
        "warm_at": st.sampled_from([None, NOW]),
    }
)


def _a_workspace(draw: Callable, world: World) -> None:
    status = draw(st.sampled_from([WorkspaceStatus.READY] * 4 + [*WORKSPACE_KINDS, WorkspaceStatus.FAILED]))
    made = status is not WorkspaceStatus.PROVISIONING
    workspace = Workspace(
        WorkspaceId(UUID(int=world.number())),
        status,
        gone=status is WorkspaceStatus.ARCHIVING or draw(st.sampled_from([False, False, True])),
        work=draw(st.integers(1, 3)) if made else 0,
        saved=draw(st.sampled_from([None, 1])) if made else None,
    )
    world.workspaces[workspace.id] = workspace
    if draw(st.sampled_from([True] * 9 + [False])):
        ended = status is WorkspaceStatus.FAILED
        vm = world.new_row(workspace.id, draw(st.sampled_from(ENDED if ended else OWNED)), **draw(rows))
        _what_there_is(draw, world, vm)
        if vm.id in world.disks:
            world.disks[vm.id] = workspace.work
        else:
            workspace.hurt = True
        workspace.hurt = workspace.hurt or vm.status in ENDED
    else:
        workspace.hurt = True
    kinds = WORKSPACE_KINDS.get(status)
    if kinds is not None and (status is not WorkspaceStatus.READY or draw(st.booleans())):
        _an_operation(draw, world, draw(st.sampled_from(kinds)), str(workspace.id))


def _what_there_is(draw: Callable, world: World, vm: AnyVm) -> None:
    fits = draw(st.booleans())
    state = "running" if fits else draw(st.sampled_from([None, "created", "running", "exited", "dead"]))
    if state is not None or draw(st.booleans()):
        world.disks[vm.id] = 0
    if state is not None:
        address = draw(st.sampled_from(["a", "b"])) if state == "running" else None
        address = vm.address or "a" if fits else address
        generation = vm.generation if fits else draw(st.integers(1, vm.generation))
        seen = ContainerSeen(f"c{world.number()}", state, address, generation, 0, None, False, None, NEW)
        world.containers[vm.id] = seen
        world.resting.update(draw(st.sampled_from([[], [], [], [seen.id]])))
        world.silent.update(draw(st.sampled_from([[], [], [], [seen.id]])))


def _an_operation(draw: Callable, world: World, name: str, key: str) -> None:
    kind = KINDS[name]
    step = 0 if name == TERMINATE else draw(st.integers(0, len(kind.steps)))  # once its VM is gone, it is gone
    back = kind.may_turn_back(step) and draw(st.sampled_from([False, False, True]))
    world.start(
        name,
        key,
        step=step,
        direction=Direction.BACKWARD if back else Direction.FORWARD,
        cancellable=kind.may_turn_back(step) and not back,
        cancel_requested=not back and kind.may_turn_back(step) and draw(st.sampled_from([False, False, False, True])),
        attempts=draw(st.integers(0, 3)),
        error_code="step_timed_out" if back else None,
    )


class Run:
    """Two workers and the requests of users in one world; a test says whose turn it is."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.tasks: dict[str, Micro] = {}
        self.faults = 0
        world.note("It began so:", world)
        for worker in ("one", "two"):
            self.arise(worker)

    def arise(self, worker: str) -> None:
        self.tasks[f"{worker} operations"] = operations(self.world, worker)
        self.tasks[f"{worker} operations too"] = operations(self.world, worker)
        self.tasks[f"{worker} reconciler"] = reconciler(self.world)
        self.tasks[f"{worker} upkeep"] = upkeep(self.world)

    def turn(self, name: str) -> None:
        try:
            next(self.tasks[name])
        except (StopIteration, Taken):  # a request is over, or is answered with an error
            del self.tasks[name]

    def die(self, worker: str) -> None:
        """Kill -9: what it was about to do it never does, and its leases run out."""
        self.world.note("died", worker)
        for name in [name for name in self.tasks if name.startswith(worker)]:
            self.tasks.pop(name).close()
        for key in [key for key, holder in self.world.leases.items() if holder == worker]:
            del self.world.leases[key]
        self.arise(worker)

    def move(self, number: int, pick: int) -> None:
        """One thing happens: mostly somebody takes his turn, now and then something goes wrong, or a user wants something."""
        if number < 92:
            names = list(self.tasks)
            self.turn(names[pick % len(names)])
        elif number < 95:
            self.ask(pick % 8, pick)
        elif self.faults < FAULTS_MAX:
            self.faults += 1
            self.fail(pick % 12, pick // 12)

    def ask(self, what: int, pick: int) -> None:
        world = self.world
        found = list(world.workspaces.values())
        workspace = found[pick % len(found)] if found else None
        if what == 0 or workspace is None:
            if sum(name.startswith("request") for name in self.tasks) + len(found) < 4:
                self.tasks[f"request {world.number()}"] = new_workspace(world)
        elif what in {1, 2}:
            wake(world, workspace)
        elif what == 3 and workspace.wanted:
            world.start(SUSPEND, str(workspace.id))
        elif what == 4:
            workspace.gone = True
        elif what in {5, 6}:
            vm = world.vm_of(workspace.id)
            awake = vm is not None and vm.reachable and world.answers(vm)
            if awake and vm is not None and world.containers[vm.id].id not in world.resting and world.disks.get(vm.id):
                world.in_use.symmetric_difference_update({workspace.id})
                workspace.work += 1
                world.disks[vm.id] = workspace.work
        elif workspace.id in world.in_use:
            world.in_use.discard(workspace.id)

    def fail(self, what: int, pick: int) -> None:
        world = self.world
        vm_ids = sorted(world.containers) or sorted(world.rows)
        if what < 2:
            self.die(("one", "two")[what])
        elif what < 5 and world.leases:  # a worker is paused for longer than its lease, and goes on
            key = sorted(world.leases)[pick % len(world.leases)]
            world.note("lease of", key[-4:], "runs out")
            del world.leases[key]
        elif vm_ids:
            vm_id = vm_ids[pick % len(vm_ids)]
            vm = world.rows.get(vm_id)
            world.note("fault", what, vm_id)
            if isinstance(vm, Vm):
                world.in_use.discard(vm.workspace_id)
            if what < 8:
                world.stop(vm_id)
            elif what < 10:
                world.containers.pop(vm_id, None)
            elif what == 10:
                world.containers.pop(vm_id, None)
                world.disks.pop(vm_id, None)
                if isinstance(vm, Vm) and vm.workspace_id in world.workspaces:
                    world.workspaces[vm.workspace_id].hurt = True
            elif vm_id in world.containers and isinstance(vm, Vm) and str(vm.workspace_id) not in world.ops:
                world.silent.add(world.containers[vm_id].id)

    def settle(self) -> None:
        """Everybody gets his turns, and nothing more goes wrong. Raises when it never comes to rest."""
        world = self.world
        world.note("from here on all is well")
        world.in_use.clear()
        for name in [name for name in self.tasks if name.startswith("request")]:
            self.tasks.pop(name).close()
        still = 0
        for _ in range(ROUNDS_MAX):
            before = world.state()
            for name in list(self.tasks):
                self.turn(name)
            still = still + 1 if before == world.state() and not world.ops else 0
            if still > STILL:
                return
        raise AssertionError("it never settles")


def require_order(world: World) -> None:
    """Nothing without its partner, nothing lost, everybody READY, FAILED for a reason, or gone."""
    assert world.ops == {}
    assert world.containers.keys() | world.disks.keys() <= world.rows.keys(), "something that nobody knows of"
    for vm in world.rows.values():
        seen = world.containers.get(vm.id)
        running = seen is not None and seen.running
        if isinstance(vm, Vm):
            assert vm.workspace_id in world.workspaces, "a VM of nobody's workspace"
        else:
            assert (vm.status, running) == (VmStatus.WARM, True), vm
        assert running == (vm.status in {VmStatus.RUNNING, VmStatus.WARM}), vm
        if running:
            assert world.answers(vm), vm
    for workspace in world.workspaces.values():
        assert not workspace.gone, "it should have been deleted"
        vm = world.vm_of(workspace.id)
        if workspace.status is WorkspaceStatus.READY:
            assert vm is not None
            assert vm.status in {VmStatus.RUNNING, VmStatus.SUSPENDED}, vm
            found = world.disks.get(vm.id)  # what was lost while it slept is noticed, and restored, when it wakes
            lost = workspace.hurt and (found == workspace.saved or vm.status is VmStatus.SUSPENDED)
            assert lost or found == workspace.work, "work was lost"
        else:
            assert workspace.status is WorkspaceStatus.FAILED, workspace
    assert sum(vm.status is VmStatus.WARM for vm in world.rows.values()) == 1, "the pool is full"


@settings(
    max_examples=400,
    deadline=None,
    suppress_health_check=list(HealthCheck),
    phases=[Phase.explicit, Phase.reuse, Phase.generate, Phase.shrink],
    report_multiple_bugs=False,
)
@given(worlds(), st.integers(0, MOVES_MAX), st.integers(0, 2**32))
def test_it_settles_from_any_state_and_any_interleaving(world: World, moves: int, seed: int) -> None:
    sound = {workspace.id for workspace in world.workspaces.values() if workspace.wanted and not workspace.hurt}
    run, dice = Run(world), Random(seed)
    try:
        for _ in range(moves):
            run.move(dice.randrange(100), dice.randrange(60))
        run.settle()
        require_order(world)
        for workspace in world.workspaces.values():
            wake(world, workspace)
        run.settle()
        require_order(world)
        assert not any(vm.status is VmStatus.SUSPENDED for vm in world.rows.values()), "whoever is woken wakes"
        for workspace_id in sound:
            workspace = world.workspaces.get(workspace_id)
            assert workspace is None or workspace.hurt or workspace.status is WorkspaceStatus.READY, "it was well, and failed"
    except Exception as error:
        raise AssertionError("\n".join([repr(error), *world.story[:1], *world.story[-80:], repr(world)])) from error


def test_every_step_and_every_end_has_a_model() -> None:
    assert {type(step) for kind in KINDS.values() for step in kind.steps} == set(STEPS)
    assert {kind.on_settled.__func__ for kind in KINDS.values() if kind.on_settled is not None} == set(SETTLERS)
