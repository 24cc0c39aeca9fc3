"""Sleeping, waking, restarting, upgrading: what keeps a VM awake, what outlives its container, what heals by itself."""

import asyncio
from contextlib import AsyncExitStack
from uuid import UUID

import pytest
from here import LIMIT_S, Enter, Here

from ff_cloud.operations.service import start
from ff_cloud.testing.cloud import IMAGE, NEXT_IMAGE, api_of, worker_of
from ff_cloud.vms.model import Desired
from ff_cloud.workspaces.kinds import UPGRADE
from ff_core.contract.workspace import VmStatus, WorkspaceView


async def wrote(here: Here, text: str) -> WorkspaceView:
    workspace = await here.user.ready()
    await here.user.shell(workspace.id, f"echo {text} > kept.txt && git add kept.txt && echo more >> kept.txt")
    return workspace


async def read(here: Here, workspace_id: UUID) -> str:
    return await here.user.shell(workspace_id, "cat kept.txt && git status --porcelain")


async def refused_to_sleep(here: Here, workspace_id: UUID) -> None:
    await here.user.call("POST", f"/v1/workspaces/{workspace_id}/suspend")
    ended = await here.operation("suspend")
    assert (ended.status, ended.error_code) == ("undone", "vm_in_use")
    assert (await here.vm_of(workspace_id)).desired is Desired.RUNNING


async def test_what_is_used_is_not_put_to_sleep_unless_by_force(here: Enter) -> None:
    async with here() as cloud:
        workspace = await wrote(cloud, "mine")
        running = asyncio.create_task(cloud.user.run(workspace.id, "sh", "-c", "echo begun > begun; sleep 60"))
        async with asyncio.timeout(LIMIT_S):
            while (await cloud.user.run(workspace.id, "test", "-e", "begun")).exit_code:
                pass
        await refused_to_sleep(cloud, workspace.id)
        await cloud.suspended(workspace.id, force=True)
        assert (await running).exit_code != 0, "it was cut off, and that is said"
        assert await read(cloud, workspace.id) == "mine\nmore\nAM kept.txt\n?? begun\n"
        await cloud.settled()


async def test_a_process_in_the_background_keeps_it_awake(here: Enter) -> None:
    async with here() as cloud:
        workspace = await wrote(cloud, "busy")
        await cloud.user.shell(workspace.id, "nohup setsid sleep 600 >/dev/null 2>&1 & echo $! > ~/pid")
        await refused_to_sleep(cloud, workspace.id)
        await cloud.user.shell(workspace.id, "kill $(cat ~/pid)")
        await cloud.suspended(workspace.id)


async def test_an_attached_client_keeps_it_awake(here: Enter) -> None:
    async with here() as cloud:
        workspace = await wrote(cloud, "watched")
        async with cloud.user.watch(workspace.id) as heard:
            await heard.until(lambda watch: watch.events)
            await refused_to_sleep(cloud, workspace.id)
        async with asyncio.timeout(LIMIT_S):
            while (await cloud.cloud.daemons.client(await cloud.vm_of(workspace.id)).health()).use.any:
                await asyncio.sleep(0.05)
        await cloud.suspended(workspace.id)


async def test_an_idle_one_sleeps_by_itself_and_one_in_use_does_not(here: Enter) -> None:
    async with here(suspend_after_s=2.0) as cloud:
        idle, used = await wrote(cloud, "idle"), await wrote(cloud, "used")
        running = asyncio.create_task(cloud.user.run(used.id, "sleep", "60"))
        began = asyncio.get_running_loop().time()
        await cloud.asleep(idle.id)
        assert asyncio.get_running_loop().time() - began > 1.0
        assert (await cloud.vm_of(used.id)).status is VmStatus.RUNNING
        running.cancel()
        await asyncio.wait({running})
        await cloud.asleep(used.id)
        assert await read(cloud, idle.id) == "idle\nmore\nAM kept.txt\n"
        await cloud.asleep(idle.id)
        await cloud.settled()


async def test_its_state_is_stored_and_its_history_copied_before_it_sleeps(here: Enter) -> None:
    async with here() as cloud:
        workspace = await wrote(cloud, "stored")
        await cloud.suspended(workspace.id)
        found = await cloud.user.workspace(workspace.id)
        assert found.last_saved_at is not None
        assert found.last_seq > 0
        assert (await cloud.vm_of(workspace.id)).admitted_at is None
        assert (await cloud.run("select count(*) as n from events"))[0].n == found.last_seq


async def test_lost_files_come_back_from_what_was_stored(here: Enter) -> None:
    async with here() as cloud:
        workspace = await wrote(cloud, "precious")
        vm = await cloud.suspended(workspace.id)
        await cloud.engine.lose_volume(vm.id)
        assert await read(cloud, workspace.id) == "precious\nmore\nAM kept.txt\n"
        await cloud.settled()


async def test_lost_files_that_were_never_stored_are_said_to_be_lost(here: Enter) -> None:
    async with here() as cloud:
        workspace = await wrote(cloud, "gone")
        vm = await cloud.vm_of(workspace.id)
        await cloud.run("delete from checkpoints")
        await cloud.engine.lose_volume(vm.id)
        async with asyncio.timeout(LIMIT_S):
            while (found := await cloud.user.workspace(workspace.id)).status != "FAILED":
                await asyncio.sleep(0.05)
        assert found.error is not None
        assert found.error.code == "vm_data_lost"
        await cloud.settled()
        await cloud.user.delete(workspace.id)
        assert await cloud.vms() == []


@pytest.mark.parametrize("harm", ["lose", "freeze", "lose_container"])
async def test_what_dies_is_started_again_over_its_files(here: Enter, harm: str) -> None:
    async with here() as cloud:
        workspace = await wrote(cloud, "survivor")
        vm = await cloud.vm_of(workspace.id)
        await getattr(cloud.engine, harm)(vm.id)
        ended = await cloud.operation("revive")
        assert ended.status == "done"
        assert await read(cloud, workspace.id) == "survivor\nmore\nAM kept.txt\n"
        now = await cloud.vm_of(workspace.id)
        assert now.id == vm.id
        assert now.generation == vm.generation + (harm == "freeze"), "what runs and is silent is not taken up again"
        await cloud.settled()


async def test_an_engine_that_is_away_fails_nobody(here: Enter) -> None:
    async with here() as cloud:
        workspace = await wrote(cloud, "patient")
        vm = await cloud.vm_of(workspace.id)
        await cloud.engine.lose(vm.id)
        async with asyncio.timeout(LIMIT_S):
            while not await cloud.run("select 1 from operations where kind = 'revive'"):
                await asyncio.sleep(0.005)
        cloud.engine.go_away()
        undone = "select 1 from operations where kind = 'revive' and status = 'undone' and error_code = 'docker_unreachable'"
        done = "select 1 from operations where kind = 'revive' and status = 'done'"
        async with asyncio.timeout(LIMIT_S):
            while not await cloud.run(f"{undone} union {done}"):
                await asyncio.sleep(0.05)
        assert (await cloud.user.workspace(workspace.id)).status == "READY"
        cloud.engine.go_away(away=False)
        await cloud.settled()
        assert await read(cloud, workspace.id) == "patient\nmore\nAM kept.txt\n"


async def test_a_new_image_comes_in_place(here: Enter) -> None:
    """Asleep: when it wakes. Awake and at rest: by itself. The files stay."""
    async with here(workers=0) as cloud:
        async with worker_of(cloud.cloud):
            asleep, awake = await wrote(cloud, "asleep"), await wrote(cloud, "awake")
            await cloud.suspended(asleep.id)
            before = await cloud.vm_of(awake.id)
            assert before.image == IMAGE
        async with AsyncExitStack() as later:
            cloud.user.http.base_url = await later.enter_async_context(api_of(cloud.cloud, image=NEXT_IMAGE))
            await later.enter_async_context(worker_of(cloud.cloud, image=NEXT_IMAGE))
            assert await read(cloud, asleep.id) == "asleep\nmore\nAM kept.txt\n"
            assert (await cloud.vm_of(asleep.id)).image == NEXT_IMAGE
            async with cloud.db.system_transaction() as tx:  # as the reconciler does, once nothing has happened for a while
                key = str(awake.id)
                await start(tx, UPGRADE, key=key, user_id=before.user_id, input={"idle_s": 0}, world=cloud.cloud.world)
            assert (await cloud.operation(UPGRADE)).status == "done"
            now = await cloud.vm_of(awake.id)
            assert (now.id, now.generation, now.refused_image) == (before.id, before.generation + 1, None)
            assert await read(cloud, awake.id) == "awake\nmore\nAM kept.txt\n"
            await cloud.settled()


async def test_an_image_that_can_not_be_had_leaves_the_old_one(here: Enter) -> None:
    async with here(workers=0) as cloud:
        async with worker_of(cloud.cloud):
            workspace = await wrote(cloud, "old and good")
            vm = await cloud.suspended(workspace.id)
        async with worker_of(cloud.cloud, image="no-such-image:1"):
            running = asyncio.create_task(cloud.user.run(workspace.id, "cat", "kept.txt"))
            assert (await running).stdout == b"old and good\nmore\n"
            ended = await cloud.run("select status, error_code from operations where kind = 'wake' order by created_at")
            assert ended == [("undone", "image_missing"), ("done", None)]
            now = await cloud.vm_of(workspace.id)
            assert (now.id, now.image, now.refused_image) == (vm.id, IMAGE, "no-such-image:1")
            await cloud.settled()
