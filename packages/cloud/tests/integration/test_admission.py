"""A machine takes so many VMs; who comes later waits in order, is shown his place, and comes before the pool."""

import asyncio
from dataclasses import replace

from here import LIMIT_S, Enter, Here

from ff_cloud.testing.engine import ROOM
from ff_core.contract.workspace import VmStatus, WorkspaceView


async def place_of(here: Here, workspace: WorkspaceView, place: int | None) -> WorkspaceView:
    """The workspace, once it shows this place in the queue."""
    async with asyncio.timeout(LIMIT_S):
        while True:
            found = await here.user.workspace(workspace.id)
            if found.queue_place == place:
                return found
            await asyncio.sleep(0.05)


async def admitted(here: Here) -> int:
    statement = (
        "select count(*) as n from vms where admitted_at is not null and status in ('CREATING','WARM','CLAIMED','RUNNING')"
    )
    return int((await here.run(statement))[0].n)


async def test_who_does_not_fit_waits_in_order_and_goes_on_by_himself(here: Enter) -> None:
    async with here(vms_max=2) as cloud:
        first, second = [await cloud.user.ready() for _ in range(2)]
        third = await cloud.user.order()
        await place_of(cloud, third, 1)
        fourth = await cloud.user.order()
        waiting = await place_of(cloud, fourth, 2)
        assert waiting.status == "PROVISIONING"
        shown = await cloud.user.call("GET", f"/v1/operations/{fourth.operation_id}")
        assert shown["step"] == "admit"
        assert "2 in the queue" in shown["error"]["message"], shown
        assert await admitted(cloud) == 2
        await cloud.user.delete(first.id)
        assert (await cloud.user.settled(third.id)).status == "READY"
        await place_of(cloud, fourth, 1)
        assert await admitted(cloud) == 2
        await cloud.suspended(second.id)
        assert (await cloud.user.settled(fourth.id)).status == "READY", "one that sleeps makes room"
        await cloud.settled()


async def test_many_at_once_never_overfill_the_machine(here: Enter) -> None:
    async with here(vms_max=3, workers=2) as cloud:
        orders = [await cloud.user.order() for _ in range(8)]
        most = 0
        left = {order.id for order in orders}
        async with asyncio.timeout(LIMIT_S * 2):
            while left:
                most = max(most, await admitted(cloud))
                for workspace_id in list(left):
                    if (await cloud.user.workspace(workspace_id)).status == "READY":
                        left.discard(workspace_id)
                        await cloud.user.call("DELETE", f"/v1/workspaces/{workspace_id}")
        assert most == 3
        await cloud.settled()
        assert await cloud.vms() == []


async def test_a_command_for_one_that_sleeps_waits_for_room_and_says_so(here: Enter) -> None:
    async with here(vms_max=1) as cloud:
        asleep = await cloud.user.ready()
        await cloud.suspended(asleep.id)
        awake = await cloud.user.ready()
        running = asyncio.create_task(cloud.user.run(asleep.id, "echo", "here I am"))
        await place_of(cloud, asleep, 1)
        await cloud.suspended(awake.id)
        ran = await running
        assert ran.stdout == b"here I am\n"
        assert any("queue" in notice for notice in ran.notices), ran.notices
        await cloud.settled()


async def test_the_pool_gives_way_to_whoever_waits(here: Enter) -> None:
    """A VM that sleeps needs its own: the warm ones are of no use to it, and hold the room."""
    async with here(vms_max=2, pool_size=2, pool_at_once=2) as cloud:
        await cloud.filled(2)
        workspace = await cloud.user.ready()
        await cloud.suspended(workspace.id)
        await cloud.filled(2)
        assert (await cloud.user.run(workspace.id, "true")).exit_code == 0
        async with asyncio.timeout(LIMIT_S):
            while await admitted(cloud) > 2 or len(await cloud.vms(VmStatus.WARM)) != 1:
                await asyncio.sleep(0.05)
        await cloud.settled()


async def test_who_waited_too_long_leaves_nothing_and_stops_nobody(here: Enter) -> None:
    async with here(vms_max=1, provision_deadline_s=5.0, pool_size=1) as cloud:
        await cloud.filled(1)
        first = await cloud.user.ready()
        late = await cloud.user.order()
        failed = await cloud.user.settled(late.id)
        assert (failed.status, failed.error.code, failed.vm) == ("FAILED", "provision_timed_out", None)
        assert len(await cloud.vms()) == 1
        await cloud.user.delete(first.id)
        await cloud.filled(1)
        await cloud.settled()


async def test_a_workspace_that_waits_can_be_deleted(here: Enter) -> None:
    async with here(vms_max=1) as cloud:
        await cloud.user.ready()
        waiting = await cloud.user.order()
        await place_of(cloud, waiting, 1)
        await cloud.user.delete(waiting.id)
        await cloud.settled()
        assert len(await cloud.vms()) == 1


async def test_with_a_full_disk_nothing_new_is_made_and_it_is_said(here: Enter) -> None:
    async with here(disk_free_bytes_min=1 << 30) as cloud:
        workspace = await cloud.user.ready()
        cloud.engine.room = replace(ROOM, disk_free_bytes=1 << 29)
        async with asyncio.timeout(LIMIT_S):
            while not await cloud.run("select 1 from fleet where refusing = 'disk_low'"):
                await asyncio.sleep(0.1)
        refused = await cloud.user.refused("POST", "/v1/workspaces", {"name": "one more"})
        assert (refused.status, refused.code, refused.problem["reason"]) == (503, "server_full", "disk_low")
        assert "Delete workspaces" in refused.problem["detail"]
        assert (await cloud.user.run(workspace.id, "true")).exit_code == 0, "what is there goes on"
        cloud.engine.room = ROOM
        async with asyncio.timeout(LIMIT_S):
            while await cloud.run("select 1 from fleet where refusing is not null"):
                await asyncio.sleep(0.1)
        assert (await cloud.user.ready()).vm.status == "RUNNING"
