"""Two real workers over a real database and real daemons settle from states that dice have made. The model of it, which knows
many more states, is packages/cloud/tests/properties/test_vm_plan.py.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from random import Random

import pytest
from here import Enter, Here

from ff_cloud.operations.model import Direction
from ff_cloud.operations.service import active_keys, start
from ff_cloud.testing.cloud import IMAGE, worker_of
from ff_cloud.testing.kinds import kinds_to_look_at
from ff_cloud.testing.processes import ProcessEngine
from ff_cloud.vms.engine.base import Limits, Observed, VmSpec
from ff_cloud.vms.model import Desired, Vm
from ff_cloud.vms.plan import FAILURES_MAX
from ff_cloud.workspaces.kinds import CHECKPOINT, REVIVE, SUSPEND, UPGRADE, WAKE
from ff_core.contract.operation import TERMINATE
from ff_core.contract.workspace import VmStatus, WorkspaceView
from ff_core.ids import VmId
from ff_core.world import SystemWorld

WORKSPACES = 6
WORLD = SystemWorld()
LAST = {REVIVE: 4, SUSPEND: 3, WAKE: 5, UPGRADE: 7, CHECKPOINT: 0}
"""The last step of each kind, to begin at any of them."""


@asynccontextmanager
async def made(here: Here) -> AsyncIterator[list[WorkspaceView]]:
    """Workspaces that hold something which is stored, some of them asleep; no worker runs any more."""
    async with worker_of(here.cloud):
        workspaces = await asyncio.gather(*(here.user.ready() for _ in range(WORKSPACES)))
        for number, workspace in enumerate(workspaces):
            await here.user.shell(workspace.id, f"echo {number} > kept.txt")
        await asyncio.gather(*(here.suspended(workspace.id) for workspace in workspaces))
        for workspace in workspaces[::2]:
            await here.user.shell(workspace.id, "true")
        await here.settled()
    yield workspaces


async def spoil(here: Here, vm: Vm, dice: Random) -> bool:
    """Anything may have happened to a VM, its row and its operations; returns whether it is to be deleted."""
    await harm(here, vm, dice.choice(["nothing", "nothing", "die", "freeze", "lose container", "lose volume", "run", "older"]))
    row = dice.choice(["as it is", "as it is", "CREATING", "CLAIMED", "RUNNING", "SUSPENDED", "FAILED"])
    changes = {
        "status = :value": (0.0 if row == "as it is" else 1.0, row),
        "desired = :value": (0.3, dice.choice([Desired.RUNNING, Desired.SUSPENDED])),
        "health_failures = :value": (0.3, FAILURES_MAX),
        "address = :value": (0.2, "127.0.0.9"),
    }
    for change, (chance, value) in changes.items():
        if dice.random() < chance:
            await here.run(f"update vms set {change} where id = :id", value=value, id=vm.id)
    gone = dice.random() < 0.15
    if gone:
        await here.run("update workspaces set desired = 'GONE' where id = :id", id=vm.workspace_id)
    if dice.random() < 0.4:
        await begun(here, vm, dice, gone=gone)
    return gone


async def harm(here: Here, vm: Vm, what: str) -> None:
    match what:
        case "die":
            await here.engine.lose(vm.id)
        case "freeze":
            await here.engine.freeze(vm.id)
        case "lose container":
            await here.engine.lose_container(vm.id)
        case "lose volume":
            await here.engine.lose_volume(vm.id)
        case "run" if vm.status is VmStatus.SUSPENDED:
            await here.engine.start(vm.id)
        case "older":
            await here.run("update vms set generation = generation + 1 where id = :id", id=vm.id)


async def begun(here: Here, vm: Vm, dice: Random, *, gone: bool) -> None:
    """A worker died in the middle of something."""
    if gone and dice.random() < 0.5:
        await here.run("update workspaces set status = 'ARCHIVING' where id = :id", id=vm.workspace_id)
        kind, step, direction = TERMINATE, 0, Direction.FORWARD
    else:
        kind = dice.choice(list(LAST))
        step = dice.randint(0, LAST[kind])
        direction = Direction.BACKWARD if step and kind != SUSPEND and dice.random() < 0.3 else Direction.FORWARD
    async with here.db.system_transaction() as tx:
        cancellable = kind != TERMINATE and direction is Direction.FORWARD and (kind != SUSPEND or step < LAST[SUSPEND])
        operation = await start(
            tx, kind, key=str(vm.workspace_id), user_id=vm.user_id, input={}, world=WORLD, cancellable=cancellable, done=step
        )
    await here.run(
        "update operations set direction = :direction, attempts = 1, error_code = :code where id = :id",
        direction=direction,
        code="step_timed_out" if direction is Direction.BACKWARD else None,
        id=operation,
    )


async def orphans(here: Here, dice: Random) -> None:
    """Containers and rows that only the other side, or nobody, knows of."""
    for _ in range(dice.randint(0, 2)):
        vm_id = VmId(WORLD.new_id())
        limits = Limits(memory_bytes=1 << 28, cpus=1.0, pids=100)
        await here.engine.ensure(VmSpec(vm_id, 1, 1, IMAGE, limits, token_sha256="0" * 64))
        if dice.random() < 0.5:
            await here.engine.lose_container(vm_id)
    for status in dice.sample(["CREATING", "WARM", "TERMINATING"], dice.randint(0, 3)):
        await here.run(
            "insert into vms (id, status, generation, image, health_failures, created_at, admitted_at, warm_at) "
            "values (gen_random_uuid(), :status, 1, :image, 0, now(), now(), now())",
            status=status,
            image=IMAGE,
        )


@pytest.mark.parametrize("seed", [1, 6])
async def test_two_workers_settle_whatever_they_find(here: Enter, seed: int) -> None:
    dice = Random(seed)
    async with here(workers=0, pool_size=1) as cloud, made(cloud) as workspaces:
        gone = [await spoil(cloud, await cloud.vm_of(workspace.id), dice) for workspace in workspaces]
        await orphans(cloud, dice)
        async with AsyncExitStack() as workers:
            for _ in range(2):
                await workers.enter_async_context(worker_of(cloud.cloud))
            await cloud.settled(timeout_s=90)
            for number, workspace in enumerate(workspaces):
                if gone[number]:
                    await cloud.user.gone(workspace.id)
                else:
                    assert await cloud.user.shell(workspace.id, "cat kept.txt") == f"{number}\n"
            await cloud.settled()


def test_it_knows_how_many_steps_there_are() -> None:
    kinds = kinds_to_look_at()
    assert {name: len(kinds[name].steps) - 1 for name in LAST} == LAST


class Late(ProcessEngine):
    """Tells of a moment before there was any VM."""

    async def observe_all(self) -> list[Observed]:
        return []


async def test_what_was_seen_before_the_row_changed_is_looked_at_again(here: Enter) -> None:
    async with here(workers=0) as cloud:
        async with worker_of(cloud.cloud):
            workspace = await cloud.user.ready()
        reconciler = cloud.reconciler(Late(cloud.engine.root, IMAGE))
        await reconciler.once()
        async with cloud.db.system_transaction() as tx:
            assert await active_keys(tx) == set()
        await cloud.engine.lose((await cloud.vm_of(workspace.id)).id)
        await reconciler.once()
        async with cloud.db.system_transaction() as tx:
            assert await active_keys(tx) == {str(workspace.id)}
