"""The worst that can happen to a machine: a VM's container and its volume are gone. The last checkpoint brings the work back."""

import asyncio

import pytest
from api_user import Refused, User
from stack import Stack

from ff_cloud.vms.engine.docker import docker_engine

pytestmark = [pytest.mark.docker, pytest.mark.claude, pytest.mark.asyncio(loop_scope="session")]

LIMIT_S = 100.0
WORK = """
git config user.name A; git config user.email a@example.com
echo one > a.txt; git add a.txt; git commit -qm one
echo staged > b.txt; git add b.txt
echo loose > c.txt; chmod +x c.txt
"""
LOOK = "git log --oneline; git status --porcelain=v2; cat a.txt b.txt c.txt; ls -l c.txt"


async def lose(stack: Stack, vm_id) -> None:
    """Container, volume and whatever holds the volume's files are gone, behind the server's back."""
    async with docker_engine(stack.network.deployment) as engine:
        await engine.remove(vm_id)


async def saved_after(user: User, workspace_id, marker) -> None:
    """Wait until the state of ``marker`` or later is stored."""
    async with asyncio.timeout(LIMIT_S):
        while (saved := (await user.workspace(workspace_id)).last_saved_at) is None or saved < marker:
            await asyncio.sleep(0.2)


async def test_container_and_volume_lost_the_work_and_the_conversation_come_back(user: User, stack: Stack) -> None:
    workspace = await user.ready()
    session = await user.session(workspace.id, permissions="YOLO")
    async with user.watch(workspace.id) as heard:
        await user.shell(workspace.id, WORK)
        await user.say(session.id, "%say the turn before the loss")
        ended = await heard.turn(1)
        assert ended.outcome == "done"
        await saved_after(user, workspace.id, heard.events[-1].at)
        before = await user.shell(workspace.id, LOOK)

        await lose(stack, workspace.vm.id)

        restored = await heard.until(lambda h: h.of("workspace.restored"), limit_s=LIMIT_S)
        assert restored[0].checkpoint >= 1
        async with asyncio.timeout(LIMIT_S):
            while True:
                try:
                    after = await user.shell(workspace.id, LOOK)
                    break
                except Refused as refused:
                    assert refused.code in {"vm_unreachable", "not_bound"}, refused
                    await asyncio.sleep(0.2)
        assert after == before
        await user.say(session.id, "%say the turn after it")
        await heard.turn(2)
        assert [event.seq for event in heard.events] == list(range(1, len(heard.events) + 1))
    messages = str(stack.model.requests[-1].body["messages"])
    assert "the turn before the loss" in messages, "the conversation goes on"
    found = await user.workspace(workspace.id)
    assert found.status == "READY"
    await user.delete(workspace.id)


async def test_lost_before_anything_was_stored_is_said_and_not_hidden(user: User, stack: Stack) -> None:
    workspace = await user.ready()
    await lose(stack, workspace.vm.id)
    async with asyncio.timeout(LIMIT_S):
        while (found := await user.workspace(workspace.id)).status != "FAILED":
            await asyncio.sleep(0.2)
    assert found.error.code == "vm_data_lost"
    await user.delete(workspace.id)
