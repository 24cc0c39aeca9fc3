"""Handoffs that come to nothing, or to something else: whatever ends them, one side has the workspace, and nothing is left."""

import asyncio
from typing import Any
from uuid import UUID

import pytest
from api_user import Refused
from handing import SESSION, Desktop, Made
from here import LIMIT_S, Enter, Here

from ff_core.contract.base import dump
from ff_core.contract.handoff import HandoffStatus, HandoffView
from ff_core.contract.workspace import VmStatus


async def sent(desktop: Desktop, made: Made, **more: Any) -> HandoffView:
    """A send that is READY."""
    handoff = await desktop.begin(desktop.sent(made.workspace_id, made.content, **made.sent(**more)))
    return await desktop.until(await desktop.upload(handoff, made.content), HandoffStatus.READY)


async def nothing_left(cloud: Here, workspace_id: UUID) -> None:
    """Of one that never was here."""
    await cloud.user.gone(workspace_id)
    await cloud.settled()
    assert await cloud.vms() == []
    await eventually(cloud, "select 1 where not exists (select from handoff_pieces)")


async def eventually(cloud: Here, statement: str, **values: Any) -> None:
    """The statement has rows."""
    async with asyncio.timeout(LIMIT_S):
        while not await cloud.run(statement, **values):
            await asyncio.sleep(0.02)


async def test_what_was_sent_is_taken_back_and_sent_again(here: Enter, made: Made) -> None:
    async with here() as cloud:
        desktop = Desktop(cloud.user)
        first = await sent(desktop, made)
        refused = await cloud.user.refused("POST", f"/v1/workspaces/{made.workspace_id}/exec", {"argv": ["true"]})
        assert refused.code == "workspace_elsewhere"
        assert (await desktop.abort(first)).status is HandoffStatus.ABORTED
        await nothing_left(cloud, made.workspace_id)
        again = await sent(desktop, made)
        done, repeated = await asyncio.gather(desktop.commit(again), desktop.commit(again))
        assert done == repeated == await desktop.commit(again)
        assert done.receipt is not None
        assert (done.status, done.receipt.equal, done.epoch) == (HandoffStatus.COMMITTED, True, 1)
        # Asked for before the VM was told: it is waited for, like one that wakes.
        assert await cloud.user.shell(made.workspace_id, "cat a.txt && git diff --cached a.txt | tail -1") == "three\n+two\n"
        assert (await cloud.user.call("GET", f"/v1/sessions/{SESSION}"))["name"] == "talk"
        refused = await cloud.user.refused("POST", f"/v1/handoffs/{again.id}/abort")
        assert refused.code == "handoff_committed"
        await cloud.settled()
        kinds = {each["action"] for each in (await cloud.user.call("GET", "/v1/me/audit"))["items"]}
        assert {"handoff.begun", "handoff.aborted", "handoff.committed"} <= kinds


async def test_a_warm_vm_is_taken_where_there_is_one(here: Enter, made: Made) -> None:
    async with here(pool_size=1) as cloud:
        (warm,) = await cloud.filled(1)
        desktop = Desktop(cloud.user)
        handoff = await desktop.begin(desktop.announced(made.workspace_id))
        await eventually(cloud, "select 1 from vms where id = :id and status = 'CLAIMED'", id=warm)
        await cloud.filled(1)  # however long the desktop takes
        late = "select 1 from vms taken, vms next where taken.id = :id and next.warm_at > taken.claimed_at + interval '2 seconds'"
        assert await cloud.run(late, id=warm), "what is sent goes first"
        await desktop.announce(handoff, made.bundle, made.contents)
        handoff = await desktop.until(await desktop.upload(handoff, made.content), HandoffStatus.READY)
        vm = await cloud.vm_of(made.workspace_id)
        assert (vm.id, vm.status, vm.limits and vm.limits.memory_bytes) == (warm, VmStatus.CLAIMED, 4 << 30)
        await desktop.commit(handoff)
        assert await cloud.user.shell(made.workspace_id, "cat b.txt") == "new\n"
        await eventually(cloud, "select 1 from checkpoints where state = 'SAVED'")
        await cloud.settled()


async def test_a_vm_waits_for_its_bundle_and_goes_when_there_is_none(here: Enter, made: Made) -> None:
    async with here() as cloud:
        desktop = Desktop(cloud.user)
        waits = "select 1 from operations where kind = 'receive' and status = 'queued' and step_name = 'bundle'"
        for end in (desktop.abort, None):
            handoff = await desktop.begin(desktop.announced(made.workspace_id))
            await eventually(cloud, waits)
            vm = await cloud.vm_of(made.workspace_id)
            assert vm.status is VmStatus.CLAIMED
            if end is not None:
                await end(handoff)
                await nothing_left(cloud, made.workspace_id)
                continue
            await desktop.announce(handoff, made.bundle, made.contents)
            handoff = await desktop.until(await desktop.upload(handoff, made.content), HandoffStatus.READY)
            assert (await cloud.vm_of(made.workspace_id)).id == vm.id
            await desktop.commit(handoff)
            assert await cloud.user.shell(made.workspace_id, "cat b.txt") == "new\n"
        await cloud.settled()


async def test_a_vm_that_dies_while_the_bundle_comes_is_made_again(here: Enter, made: Made) -> None:
    async with here() as cloud:
        desktop = Desktop(cloud.user)
        handoff = await desktop.begin(desktop.announced(made.workspace_id))
        await eventually(cloud, "select 1 from operations where kind = 'receive' and step_name = 'bundle'")
        await cloud.engine.lose((await cloud.vm_of(made.workspace_id)).id)
        await desktop.announce(handoff, made.bundle, made.contents)
        handoff = await desktop.until(await desktop.upload(handoff, made.content), HandoffStatus.READY)
        await desktop.commit(handoff)
        assert await cloud.user.shell(made.workspace_id, "cat b.txt") == "new\n"
        await cloud.settled()


async def test_what_arrives_broken_goes_without_a_trace(here: Enter, made: Made) -> None:
    async with here() as cloud:
        desktop = Desktop(cloud.user)
        broken = made.content[:-100] + bytes(100)
        handoff = await desktop.begin(desktop.sent(made.workspace_id, broken, **made.sent()))
        await desktop.upload(handoff, broken)
        async with asyncio.timeout(LIMIT_S):
            while (found := await desktop.look(handoff)).status.open:
                await asyncio.sleep(0.05)
        assert found.error is not None
        assert (found.status, found.error.code) == (HandoffStatus.FAILED, "bundle_broken")
        await nothing_left(cloud, made.workspace_id)
        over = await cloud.user.refused("POST", f"/v1/handoffs/{handoff.id}/commit", {})
        assert (over.code, over.problem["reason"]) == ("handoff_over", "bundle_broken")


async def test_what_does_not_go_on_expires(here: Enter, made: Made) -> None:
    async with here(handoff_expires_s=2.0) as cloud:
        desktop = Desktop(cloud.user)
        workspace = await cloud.user.ready()
        pull = await desktop.until(await desktop.begin_pull(workspace.id, epoch=1), HandoffStatus.READY)
        send = await desktop.begin(desktop.sent(made.workspace_id, made.content, **made.sent()))
        await desktop.put(send, 0, made.content[:10])
        for handoff in (pull, send):
            async with asyncio.timeout(LIMIT_S):
                while (found := await desktop.look(handoff)).status is not HandoffStatus.EXPIRED:
                    await asyncio.sleep(0.05)
            assert found.error is not None
            assert found.error.code == "expired"
        await cloud.user.gone(made.workspace_id)
        await cloud.settled()
        assert await cloud.user.shell(workspace.id, "echo here") == "here\n"
        await eventually(cloud, "select 1 where not exists (select from handoff_pieces)")


async def test_a_pull_that_is_given_up_thaws_what_it_froze(here: Enter) -> None:
    async with here() as cloud:
        desktop, tower = Desktop(cloud.user), Desktop(cloud.user, "tower")
        workspace = await cloud.user.ready()
        session = await cloud.user.call("POST", f"/v1/workspaces/{workspace.id}/sessions", {})
        pull = await desktop.until(await desktop.begin_pull(workspace.id, epoch=1), HandoffStatus.READY)
        with pytest.raises(Refused) as caught:
            await tower.begin_pull(workspace.id, epoch=1)
        assert (caught.value.code, caught.value.problem["handoff_id"]) == ("handoff_open", str(pull.id))
        assert (await cloud.user.call("GET", f"/v1/sessions/{session['id']}"))["id"] == session["id"], "it can be read"
        prompt = {"text": "hello"}
        refused = await cloud.user.refused("POST", f"/v1/sessions/{session['id']}/messages", prompt)
        assert refused.code in {"workspace_moving", "model_key_missing"}
        wrong = dump(pull.bundle.fingerprint if pull.bundle else None) | {"records": "f" * 64}
        refused = await cloud.user.refused("POST", f"/v1/handoffs/{pull.id}/commit", {"arrived": wrong})
        assert refused.code == "fingerprint_differs"
        refused = await cloud.user.refused("POST", f"/v1/handoffs/{pull.id}/commit", {})
        assert refused.code == "fingerprint_differs"
        await desktop.abort(pull)
        await cloud.settled()
        assert await cloud.user.shell(workspace.id, "echo here") == "here\n"
        pull = await tower.until(await tower.begin_pull(workspace.id, epoch=1), HandoffStatus.READY)
        assert pull.bundle is not None
        await tower.commit(pull, pull.bundle.fingerprint)
        with pytest.raises(Refused) as caught:
            await desktop.begin_pull(workspace.id, epoch=1)
        assert (caught.value.code, caught.value.problem["desktop"]) == ("stale_epoch", "tower")
        await cloud.settled()
        async with cloud.user.watch(workspace.id) as heard:
            await heard.until(lambda watch: len(watch.of("handoff.started")) == 2)
        assert len(heard.of("handoff.aborted")) == 1


async def test_a_workspace_in_use_is_not_taken_unless_it_is_to_be_interrupted(here: Enter) -> None:
    async with here() as cloud:
        desktop = Desktop(cloud.user)
        workspace = await cloud.user.ready()
        running = asyncio.create_task(cloud.user.run(workspace.id, "sh", "-c", "touch begun; sleep 60"))
        async with asyncio.timeout(LIMIT_S):
            while (await cloud.user.run(workspace.id, "test", "-e", "begun")).exit_code:
                await asyncio.sleep(0.02)
        wanted = desktop.wanted("PULL", workspace.id, epoch=1)
        with pytest.raises(Refused) as caught:
            await desktop.begin(wanted)
        assert (caught.value.status, caught.value.code) == (409, "command_running")
        assert await cloud.run("select 1 from handoffs") == []
        assert (await cloud.user.workspace(workspace.id)).moving is None
        pull = await desktop.begin({**wanted, "interrupt": True})
        assert (await running).exit_code != 0
        pull = await desktop.until(pull, HandoffStatus.READY)
        await desktop.abort(pull)
        await cloud.settled()


async def test_one_that_sleeps_is_woken_for_its_move_and_its_copy_goes_in_time(here: Enter) -> None:
    async with here(handoff_kept_s=1.0) as cloud:
        desktop = Desktop(cloud.user)
        workspace = await cloud.user.ready()
        await cloud.user.shell(workspace.id, "echo kept > kept.txt")
        await cloud.suspended(workspace.id)
        pull = await desktop.begin_pull(workspace.id, epoch=1)
        pull = await desktop.until(pull, HandoffStatus.READY)
        assert pull.bundle is not None
        assert pull.contents is not None
        assert pull.contents.files == 1
        await desktop.commit(pull, pull.bundle.fingerprint)
        await eventually(cloud, "select 1 from workspaces where kept_until is null and last_checkpoint = 0")
        assert await cloud.vms() == []
        found = await cloud.user.workspace(workspace.id)
        assert (found.status, found.location, found.vm) == ("READY", "DESKTOP", None)
        await cloud.settled()
        assert await cloud.run("select 1 from checkpoints") == []
        async with cloud.user.watch(workspace.id) as heard:
            await heard.until(lambda watch: watch.of("handoff.started"))


async def test_a_desktop_takes_its_copy_back_by_force(here: Enter) -> None:
    async with here() as cloud:
        desktop, other = Desktop(cloud.user), Desktop(cloud.user, "tower")
        workspace = await cloud.user.ready()
        path = f"/v1/workspaces/{workspace.id}/takeover"
        refused = await cloud.user.refused("POST", path, {"epoch": 1, "desktop_id": str(desktop.id)})
        assert (refused.code, refused.problem["location"], refused.problem["epoch"]) == ("stale_epoch", "CLOUD", 1)
        pull = await other.until(await other.begin_pull(workspace.id, epoch=1), HandoffStatus.READY)
        for _ in range(2):
            taken = await cloud.user.call("POST", path, {"epoch": 2, "desktop_id": str(desktop.id)})
            assert (taken["location"], taken["epoch"], taken["moving"]) == ("DESKTOP", 2, None)
        refused = await cloud.user.refused("POST", path, {"epoch": 2, "desktop_id": str(other.id)})
        assert refused.code == "stale_epoch"
        assert (await other.look(pull)).status is HandoffStatus.ABORTED
        over = await cloud.user.refused("POST", f"/v1/handoffs/{pull.id}/commit", {"arrived": {}})
        assert over.status in {409, 422}
        await cloud.asleep(workspace.id)
        await cloud.settled()
        assert (await cloud.run("select kept_until > now() + interval '6 days' as kept from workspaces"))[0].kept


async def test_deleting_works_wherever_a_handoff_is(here: Enter, made: Made) -> None:
    async with here() as cloud:
        desktop = Desktop(cloud.user)
        for where in ("uploading", "restoring", "ready", "exporting", "pulled"):
            if where in {"exporting", "pulled"}:
                workspace_id = (await cloud.user.ready()).id
                handoff = await desktop.begin_pull(workspace_id, epoch=1)
                if where == "pulled":
                    handoff = await desktop.until(handoff, HandoffStatus.READY)
            else:
                workspace_id = made.workspace_id
                handoff = await desktop.begin(desktop.sent(workspace_id, made.content, **made.sent()))
                if where != "uploading":
                    handoff = await desktop.upload(handoff, made.content)
                if where == "ready":
                    handoff = await desktop.until(handoff, HandoffStatus.READY)
            await cloud.user.delete(workspace_id)
            found = await desktop.look(handoff)
            assert found.error is not None, where
            assert (found.status, found.error.code) == (HandoffStatus.ABORTED, "workspace_deleted"), where
        await eventually(cloud, "select 1 where not exists (select from handoff_pieces)")
        await cloud.settled()
        assert await cloud.vms() == []


async def test_a_vm_that_dies_before_the_commit_is_started_again_after_it(here: Enter, made: Made) -> None:
    async with here() as cloud:
        desktop = Desktop(cloud.user)
        handoff = await sent(desktop, made)
        vm = await cloud.vm_of(made.workspace_id)
        await cloud.engine.lose(vm.id)
        await cloud.reconciler().once()
        assert await cloud.run("select from operations where status in ('queued', 'running')") == [], "nobody takes it up"
        assert (await cloud.vm_of(made.workspace_id)).status is VmStatus.CLAIMED
        assert (await desktop.look(handoff)).status is HandoffStatus.READY
        await desktop.commit(handoff)
        assert await cloud.user.shell(made.workspace_id, "cat a.txt b.txt") == "three\nnew\n"
        await cloud.settled()


async def test_a_frozen_vm_that_dies_goes_on_when_it_is_not_taken(here: Enter) -> None:
    async with here() as cloud:
        desktop = Desktop(cloud.user)
        workspace = await cloud.user.ready()
        pull = await desktop.until(await desktop.begin_pull(workspace.id, epoch=1), HandoffStatus.READY)
        vm = await cloud.vm_of(workspace.id)
        await cloud.engine.lose(vm.id)
        assert len(await desktop.download(pull)) == (pull.bundle.size if pull.bundle else 0)
        await desktop.abort(pull)
        await cloud.settled()
        assert await cloud.user.shell(workspace.id, "echo here") == "here\n"
