"""Claims of warm VMs: each VM goes to one workspace, each workspace gets one VM, and what is dead is given to nobody again."""

import asyncio

import pytest
from here import Enter, Here
from psycopg.errors import ForeignKeyViolation, UniqueViolation
from sqlalchemy import text
from sqlalchemy.exc import IntegrityError

from ff_cloud.kit.db import Database
from ff_cloud.testing.tenants import add_user
from ff_cloud.vms.model import Desired, Vm
from ff_cloud.vms.repository import SystemVmRepository, VmRepository
from ff_cloud.workspaces.repository import WorkspaceRepository
from ff_core.contract.workspace import NewWorkspace, VmStatus
from ff_core.ids import OperationId, UserId, VmId, WorkspaceId
from ff_core.world import SystemWorld

WORLD = SystemWorld()
IMAGE = "test:1"


async def warm_vm(db: Database, *, image: str = IMAGE, runtime: str | None = None, desired: Desired = Desired.RUNNING) -> VmId:
    vm_id = VmId(WORLD.new_id())
    async with db.system_transaction() as tx:
        vms = SystemVmRepository(tx)
        await vms.insert_warm(vm_id, image=image, runtime=runtime, deadline_s=60)
        await vms.change(vm_id, status=VmStatus.WARM, warm_at=WORLD.now(), desired=desired)
    return vm_id


async def somebody(db: Database) -> tuple[UserId, WorkspaceId]:
    """A user with a workspace that has no VM yet."""
    user_id = UserId(WORLD.new_id())
    async with db.system_transaction() as tx:
        await add_user(tx, user_id, user_id.hex)
    return user_id, await workspace_of(db, user_id)


async def workspace_of(db: Database, user_id: UserId) -> WorkspaceId:
    workspace_id = WorkspaceId(WORLD.new_id())
    async with db.transaction(user_id) as tx:
        wanted = NewWorkspace(name=workspace_id.hex)
        operation_id = OperationId(WORLD.new_id())
        repository = WorkspaceRepository(tx)
        await repository.insert(workspace_id, wanted, repo_token_sealed=None, operation_id=operation_id, deadline_s=60.0)
    return workspace_id


async def claim(db: Database, user_id: UserId, workspace_id: WorkspaceId, *, runtime: str | None = None) -> Vm | None:
    async with db.transaction(user_id) as tx:
        return await VmRepository(tx).claim(workspace_id, image=IMAGE, runtime=runtime)


async def test_of_twenty_claims_on_five_vms_five_win_a_vm_each(db: Database) -> None:
    warm = {await warm_vm(db) for _ in range(5)}
    people = [await somebody(db) for _ in range(20)]
    claimed = await asyncio.gather(*(claim(db, *each) for each in people))
    won = [vm for vm in claimed if vm is not None]
    assert {vm.id for vm in won} == warm
    assert len(won) == 5
    for (user_id, workspace_id), vm in zip(people, claimed, strict=True):
        if vm is not None:
            assert (vm.user_id, vm.workspace_id, vm.status) == (user_id, workspace_id, VmStatus.CLAIMED)
    assert await claim(db, *await somebody(db)) is None


async def test_the_oldest_goes_first(db: Database) -> None:
    first, second = await warm_vm(db), await warm_vm(db)
    claimed = [await claim(db, *await somebody(db)) for _ in range(2)]
    assert [vm and vm.id for vm in claimed] == [first, second]


async def test_a_workspace_never_gets_two(db: Database) -> None:
    for _ in range(2):
        await warm_vm(db)
    user_id, workspace_id = await somebody(db)
    first = await claim(db, user_id, workspace_id)
    assert first is not None
    with pytest.raises(UniqueViolation):
        await claim(db, user_id, workspace_id)
    racers = await asyncio.gather(*(claim(db, *each) for each in [await somebody(db)] * 4), return_exceptions=True)
    assert sum(isinstance(vm, Vm) for vm in racers) == 1


async def test_nobody_claims_for_the_workspace_of_another(db: Database) -> None:
    await warm_vm(db)
    stranger, _ = await somebody(db)
    _, workspace_id = await somebody(db)
    with pytest.raises(ForeignKeyViolation):
        await claim(db, stranger, workspace_id)
    async with db.system_transaction() as tx:
        assert [vm.status for vm in await SystemVmRepository(tx).everything()] == [VmStatus.WARM]


async def test_a_user_can_not_take_a_vm_for_another_nor_change_what_it_is(db: Database) -> None:
    vm_id = await warm_vm(db)
    user_id, workspace_id = await somebody(db)
    stranger, _ = await somebody(db)
    for statement in (
        "update vms set status = 'CLAIMED', user_id = :stranger, workspace_id = :workspace where id = :vm",
        "update vms set user_id = :me where id = :vm",
        "update vms set address = '10.0.0.1' where id = :vm",
        "delete from vms where id = :vm",
    ):
        values = {"stranger": stranger, "me": user_id, "workspace": workspace_id, "vm": vm_id}
        with pytest.raises(Exception, match=r"row-level security|permission denied|check constraint"):
            async with db.transaction(user_id) as tx:
                await tx.execute(text(statement), {name: values[name] for name in values if f":{name}" in statement})


@pytest.mark.parametrize(
    "unfit",
    [{"image": "test:0"}, {"runtime": "runsc"}, {"desired": Desired.GONE}, {"desired": Desired.SUSPENDED}],
    ids=str,
)
async def test_what_does_not_fit_is_passed_over(db: Database, unfit: dict) -> None:
    await warm_vm(db, **unfit)
    assert await claim(db, *await somebody(db)) is None
    fits = await warm_vm(db)
    found = await claim(db, *await somebody(db))
    assert found is not None
    assert found.id == fits


async def test_a_plan_with_a_runtime_gets_a_vm_of_that_runtime(db: Database) -> None:
    await warm_vm(db)
    special = await warm_vm(db, runtime="runsc")
    found = await claim(db, *await somebody(db), runtime="runsc")
    assert found is not None
    assert found.id == special


async def test_a_burst_beyond_the_pool_is_served_cold_and_everybody_gets_his_own(here: Enter) -> None:
    async with here(pool_size=3, pool_at_once=3, worker_concurrency=16) as cloud:
        warm = await cloud.filled(3)
        orders = await asyncio.gather(*(cloud.user.order() for _ in range(9)))
        assert sum(order.vm.status == "RUNNING" and order.vm.id in warm for order in orders) == 3
        said = await asyncio.gather(*(cloud.user.run(order.id, "printenv", "HOME") for order in orders))
        assert len({ran.stdout for ran in said}) == 9, "each has files of its own"
        settled = await asyncio.gather(*(cloud.user.settled(order.id) for order in orders))
        assert {each.status for each in settled} == {"READY"}
        assert len({each.vm.id for each in settled}) == 9
        await cloud.settled()


async def test_a_dead_vm_is_given_to_nobody_again(here: Enter) -> None:
    async with here(pool_size=2, pool_at_once=2, health_interval_s=60, sweep_interval_s=60) as cloud:
        oldest, _ = await cloud.filled(2)
        await cloud.engine.freeze(oldest)  # its container runs, so nobody has noticed
        order = await cloud.user.order()
        assert order.vm.id != oldest
        assert order.vm.status == "RUNNING"
        assert (await cloud.user.settled(order.id)).status == "READY"
        [dead] = [vm for vm in await cloud.vms() if vm.id == oldest]
        assert not isinstance(dead, Vm)
        assert (dead.status, dead.desired) == (VmStatus.TERMINATING, Desired.GONE)


async def test_when_several_are_dead_one_is_made(here: Enter) -> None:
    async with here(pool_size=4, pool_at_once=4, health_interval_s=60) as cloud:
        warm = await cloud.filled(4)
        for vm_id in warm:
            await cloud.engine.freeze(vm_id)
        order = await cloud.user.order()
        assert order.vm.status == "CREATING"
        assert (await cloud.user.settled(order.id)).status == "READY"
        assert order.vm.id not in warm


async def hurry(here: Here) -> None:
    """The grace is over that a request has to bind what it claimed."""
    await here.run("update operations set run_at = now() where kind = 'provision' and status = 'queued'")


async def test_an_api_that_dies_between_claim_and_bind_leaves_it_to_the_operation(here: Enter) -> None:
    async with here(pool_size=1) as cloud:
        await cloud.filled(1)
        order = await unsettled_order(cloud)
        [vm] = await cloud.vms(VmStatus.CLAIMED)
        await hurry(cloud)
        ready = await cloud.user.settled(order)
        assert (ready.status, ready.vm.id, ready.vm.status) == ("READY", vm.id, "RUNNING")
        assert await cloud.user.shell(order, "git rev-parse --is-inside-work-tree") == "true\n"


async def test_a_vm_that_dies_before_its_operation_begins_is_started_again(here: Enter) -> None:
    async with here(pool_size=1) as cloud:
        [vm_id] = await cloud.filled(1)
        order = await unsettled_order(cloud)
        await cloud.engine.lose(vm_id)
        await hurry(cloud)
        assert (await cloud.user.settled(order)).status == "READY"
        await cloud.settled()


async def unsettled_order(here: Here) -> WorkspaceId:
    """An order whose request dies as soon as it has committed."""
    user_id = UserId((await here.run("select id from users"))[0].id)
    async with here.db.transaction(user_id) as tx:
        found = await here.workspaces.order(tx, NewWorkspace(name="orphaned"))
    assert found.vm is not None
    assert found.vm.status is VmStatus.CLAIMED
    return found.workspace.id


async def test_a_vm_that_comes_too_late_does_not_keep_a_workspace_from_going(here: Enter) -> None:
    """Its request gave a dead VM up, fell asleep, and found another one after the workspace's own was removed."""
    async with here() as cloud:
        workspace = await cloud.user.ready()
        vm = await cloud.vm_of(workspace.id)
        await cloud.user.call("DELETE", f"/v1/workspaces/{workspace.id}")
        late = VmId(WORLD.new_id())
        async with asyncio.timeout(20):
            while True:
                try:
                    await cloud.run(
                        "insert into vms (id, user_id, workspace_id, status, generation, health_failures, created_at) "
                        "values (:id, :user, :workspace, 'CREATING', 1, 0, now())",
                        id=late,
                        user=vm.user_id,
                        workspace=workspace.id,
                    )
                    break
                except IntegrityError:
                    await asyncio.sleep(0)
        await cloud.user.gone(workspace.id)
        assert await cloud.vms() == []
