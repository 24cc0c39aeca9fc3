"""Whoever asks for a workspace that is not awake waits for it, is told what for, and wakes it once."""

import asyncio

import httpx2
from here import LIMIT_S, Enter, Here

from ff_cloud.operations.errors import Later
from ff_cloud.testing.cloud import worker_of
from ff_cloud.vms.model import Desired
from ff_core.contract.daemon import Rest
from ff_core.contract.workspace import VmStatus, WorkspaceView


async def kinds(here: Here, kind: str) -> int:
    return int((await here.run("select count(*) as n from operations where kind = :kind", kind=kind))[0].n)


async def wrote(here: Here, text: str) -> WorkspaceView:
    workspace = await here.user.ready()
    await here.user.shell(workspace.id, f"echo {text} > kept.txt")
    return workspace


async def test_a_command_wakes_it_and_says_so(here: Enter) -> None:
    async with here() as cloud:
        workspace = await wrote(cloud, "before the nap")
        before = await cloud.suspended(workspace.id)
        ran = await cloud.user.run(workspace.id, "cat", "kept.txt")
        assert ran.stdout == b"before the nap\n"
        assert ran.notices == ["The workspace was asleep and wakes up."]
        after = await cloud.vm_of(workspace.id)
        assert (after.id, after.generation, after.status, after.suspended_at) == (
            before.id,
            before.generation,
            VmStatus.RUNNING,
            None,
        )
        assert (await cloud.user.run(workspace.id, "true")).notices == []
        await cloud.settled()


async def test_looking_does_not_wake_it(here: Enter) -> None:
    async with here() as cloud:
        workspace = await wrote(cloud, "sleep well")
        await cloud.suspended(workspace.id)
        found = await cloud.user.workspace(workspace.id)
        assert (found.status, found.vm.status) == ("READY", "SUSPENDED")
        await cloud.user.call("GET", "/v1/workspaces")
        await cloud.user.call("GET", f"/v1/workspaces/{workspace.id}/sessions")
        assert [event.seq async for event in _first(cloud, workspace, found.last_seq)] == list(range(1, found.last_seq + 1))
        assert (await cloud.vm_of(workspace.id)).status is VmStatus.SUSPENDED
        assert await kinds(cloud, "wake") == 0


async def _first(here: Here, workspace: WorkspaceView, newest: int):
    async for event in here.user.events(workspace.id):
        yield event
        if event.seq == newest:
            return


async def test_many_requests_wake_it_once(here: Enter) -> None:
    async with here() as cloud:
        workspace = await wrote(cloud, "together")
        await cloud.suspended(workspace.id)
        ran = await asyncio.gather(*(cloud.user.run(workspace.id, "cat", "kept.txt") for _ in range(8)))
        assert {each.stdout for each in ran} == {b"together\n"}
        assert await kinds(cloud, "wake") == 1
        await cloud.settled()


async def test_a_question_about_the_checkout_wakes_it_too(here: Enter) -> None:
    async with here() as cloud:
        workspace = await wrote(cloud, "dirty")
        await cloud.suspended(workspace.id)
        found = await cloud.user.call("GET", f"/v1/workspaces/{workspace.id}/repository")
        assert found["untracked"] == 1
        assert (await cloud.vm_of(workspace.id)).status is VmStatus.RUNNING


class Hold:
    """A place where operations wait for as long as the test wants."""

    def __init__(self, place: str) -> None:
        self.place = place
        self.reached = asyncio.Event()
        self.over = False

    def __call__(self, place: str) -> None:
        if place == self.place and not self.over:
            self.reached.set()
            raise Later("It waits for the test.", delay_s=0.05)


async def test_one_that_is_falling_asleep_is_kept_awake(here: Enter) -> None:
    """There is a way back until it is being stopped."""
    hold = Hold("suspend:journal:do:before")
    async with here(workers=0) as cloud, worker_of(cloud.cloud, crash=hold):
        workspace = await wrote(cloud, "not yet")
        vm = await cloud.vm_of(workspace.id)
        await cloud.user.call("POST", f"/v1/workspaces/{workspace.id}/suspend")
        await asyncio.wait_for(hold.reached.wait(), LIMIT_S)
        assert (await cloud.vm_of(workspace.id)).desired is Desired.SUSPENDED
        ran = await cloud.user.run(workspace.id, "cat", "kept.txt")
        assert (ran.stdout, ran.notices) == (b"not yet\n", ["The workspace is falling asleep, and is woken."])
        ended = await cloud.operation("suspend")
        assert (ended.status, ended.error_code) == ("undone", "cancelled")
        now = await cloud.vm_of(workspace.id)
        assert (now.id, now.generation, now.address) == (vm.id, vm.generation, vm.address), "it was never stopped"
        await cloud.settled()


async def test_one_that_is_being_stopped_sleeps_first_and_wakes_then(here: Enter) -> None:
    hold = Hold("suspend:stop:do:before")
    async with here(workers=0) as cloud, worker_of(cloud.cloud, crash=hold):
        workspace = await wrote(cloud, "too late")
        await cloud.user.call("POST", f"/v1/workspaces/{workspace.id}/suspend")
        await asyncio.wait_for(hold.reached.wait(), LIMIT_S)
        running = asyncio.create_task(cloud.user.run(workspace.id, "cat", "kept.txt"))
        await asyncio.sleep(0.3)
        assert not running.done()
        hold.over = True
        ran = await running
        assert ran.stdout == b"too late\n"
        assert ran.notices == ["The workspace is falling asleep, and is woken.", "The workspace was asleep and wakes up."]
        assert (await cloud.operation("suspend")).status == "done"
        await cloud.settled()


async def test_a_daemon_that_rests_between_look_and_call_is_asked_again(here: Enter) -> None:
    async with here() as cloud:
        workspace = await wrote(cloud, "patience")
        daemon = cloud.cloud.daemons.client(await cloud.vm_of(workspace.id))
        await daemon.rest(Rest(idle_s=0, force=True))
        running = asyncio.create_task(cloud.user.run(workspace.id, "cat", "kept.txt"))
        await asyncio.sleep(0.1)
        await daemon.end_rest()
        assert (await running).stdout == b"patience\n"


async def test_a_suspension_that_was_cancelled_leaves_no_rest_behind(here: Enter) -> None:
    """What a worker wrote late, after its operation had been turned back: the row says asleep, and nobody works on it."""
    async with here() as cloud:
        workspace = await wrote(cloud, "in use")
        vm = await cloud.vm_of(workspace.id)
        using = asyncio.create_task(cloud.user.run(workspace.id, "sleep", "3"))
        await asyncio.sleep(0.3)
        await cloud.run("update vms set desired = 'SUSPENDED' where id = :id", id=vm.id)
        assert (await using).exit_code == 0, "a VM in use is asked, and not stopped"
        await cloud.status(workspace.id, VmStatus.RUNNING)
        await cloud.settled()


async def test_it_is_told_when_it_takes_too_long(here: Enter) -> None:
    async with here(workers=0, wake_wait_s=1.0) as cloud:
        order = await cloud.user.order()
        path = f"/v1/workspaces/{order.id}/exec"
        async with cloud.user.http.stream("POST", path, json={"argv": ["true"]}) as response:
            lines = [line async for line in response.aiter_lines()]
        assert '"The workspace\'s VM is being made."' in lines[0]
        assert '"vm_not_awake"' in lines[-1]


async def test_a_workspace_that_failed_wakes_nobody(here: Enter) -> None:
    async with here() as cloud:
        workspace = await cloud.user.ready()
        await cloud.suspended(workspace.id)
        await cloud.run("update workspaces set status = 'FAILED', error_code = 'x', error_message = 'It broke.'")
        refused = await cloud.user.refused("POST", f"/v1/workspaces/{workspace.id}/exec", {"argv": ["true"]})
        assert (refused.status, refused.code) == (409, "workspace_not_ready")
        assert await kinds(cloud, "wake") == 0


async def test_a_plan_that_is_used_up_is_said_instead_of_waking(here: Enter) -> None:
    async with here() as cloud:
        await cloud.run("update plans set running_vms_max = 1 where name = 'team'")
        asleep = await cloud.user.ready()
        await cloud.suspended(asleep.id)
        await cloud.user.ready()
        path = f"/v1/workspaces/{asleep.id}/exec"
        async with cloud.user.http.stream("POST", path, json={"argv": ["true"]}) as response:
            lines = [line async for line in response.aiter_lines()]
        assert '"limit_reached"' in lines[-1]
        assert (await cloud.vm_of(asleep.id)).status is VmStatus.SUSPENDED


async def test_who_goes_away_while_he_waits_leaves_it_awake_for_the_next(here: Enter) -> None:
    async with here() as cloud:
        workspace = await wrote(cloud, "later")
        await cloud.suspended(workspace.id)
        path = f"/v1/workspaces/{workspace.id}/exec"
        try:
            async with cloud.user.http.stream("POST", path, json={"argv": ["cat", "kept.txt"]}) as response:
                async for _ in response.aiter_lines():
                    break
        except httpx2.HTTPError:
            pass
        await cloud.status(workspace.id, VmStatus.RUNNING)
        assert (await cloud.user.run(workspace.id, "cat", "kept.txt")).stdout == b"later\n"
        await cloud.settled()
