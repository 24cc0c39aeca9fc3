"""What keeps a VM awake, what lets it sleep, and what it is like when it wakes: with everything, as if nothing had been."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack, suppress
from uuid import UUID

import pytest
import pytest_asyncio
from api_user import Refused, User
from stack import Stack, beside, docker, scratch

from ff_cloud.testing.server import running_server
from ff_cloud.testing.vm_image import image_running

pytestmark = [pytest.mark.docker, pytest.mark.asyncio(loop_scope="session")]

IDLE_S = 3
LIMIT_S = 80.0


@pytest.fixture(scope="module")
def drowsy(stack: Stack) -> Iterator[str]:
    """A server that suspends what nobody used for three seconds."""
    with ExitStack() as exits:
        settings = exits.enter_context(beside(stack, "z")) | {"FF_SUSPEND_AFTER_S": str(IDLE_S)}
        yield exits.enter_context(running_server(exits.enter_context(scratch()), settings)).url


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def sleeper(drowsy: str) -> AsyncIterator[User]:
    async with User.sign_up(drowsy) as user:
        yield user


async def vm_status(user: User, workspace_id: UUID) -> str:
    return str((await user.workspace(workspace_id)).vm.status)


async def asleep(user: User, workspace_id: UUID) -> None:
    async with asyncio.timeout(LIMIT_S):
        while await vm_status(user, workspace_id) != "SUSPENDED":
            await asyncio.sleep(0.1)


async def stays_awake(user: User, workspace_id: UUID, *, for_s: float = 3 * IDLE_S) -> None:
    with suppress(TimeoutError):
        async with asyncio.timeout(for_s):
            while True:
                assert await vm_status(user, workspace_id) == "RUNNING"
                await asyncio.sleep(0.3)


@pytest.mark.claude
async def test_an_idle_workspace_sleeps_and_wakes_with_its_files_and_its_conversation(sleeper: User, stack: Stack) -> None:
    workspace = await sleeper.ready()
    session = await sleeper.session(workspace.id, permissions="YOLO")
    async with sleeper.watch(workspace.id) as heard:
        await sleeper.say(session.id, "%say the turn before the nap")
        await heard.turn(1)
    await sleeper.shell(workspace.id, "echo kept > kept.txt; git add kept.txt; echo changed > kept.txt")
    before = await sleeper.shell(workspace.id, "git status --porcelain=v2; cat kept.txt")
    await asleep(sleeper, workspace.id)
    found = await sleeper.workspace(workspace.id)
    assert (found.status, found.vm.status) == ("READY", "SUSPENDED")
    assert found.vm.suspended_at is not None
    assert found.last_saved_at is not None, "its state was stored before it was stopped"
    assert [event.seq for event in await history(sleeper, workspace.id)] == list(range(1, found.last_seq + 1)), (
        "read while asleep"
    )
    assert await vm_status(sleeper, workspace.id) == "SUSPENDED", "looking does not wake it"

    ran = await sleeper.run(workspace.id, "sh", "-c", "git status --porcelain=v2; cat kept.txt")
    assert ran.notices == ["The workspace was asleep and wakes up."]
    assert ran.stdout.decode() == before
    await asleep(sleeper, workspace.id)
    await sleeper.say(session.id, "%say the turn after it")  # a prompt wakes it too
    async with sleeper.watch(workspace.id) as heard:
        await heard.turn(2)
    assert "the turn before the nap" in str(stack.model.requests[-1].body["messages"]), "the same conversation"
    await sleeper.delete(workspace.id)


async def history(user: User, workspace_id: UUID) -> list:
    found, newest = [], (await user.workspace(workspace_id)).last_seq
    async for event in user.events(workspace_id):
        if event.seq is not None:
            found.append(event)
        if event.seq == newest:
            break
    return found


@pytest.mark.claude
async def test_a_turn_keeps_it_awake(sleeper: User) -> None:
    workspace = await sleeper.ready()
    session = await sleeper.session(workspace.id, permissions="YOLO")
    await sleeper.say(session.id, f"%stream {12 * IDLE_S * 20} 20")
    await stays_awake(sleeper, workspace.id)
    refused = await sleeper.refused("POST", f"/v1/workspaces/{workspace.id}/exec", {"argv": []})
    assert refused.status == 422
    operation = await sleeper.call("POST", f"/v1/workspaces/{workspace.id}/suspend")
    ended = await settled(sleeper, operation["id"])
    assert (ended["status"], ended["error"]["code"]) == ("undone", "vm_in_use")
    operation = await sleeper.call("POST", f"/v1/workspaces/{workspace.id}/suspend?force=true")
    assert (await settled(sleeper, operation["id"]))["status"] == "done"
    assert await vm_status(sleeper, workspace.id) == "SUSPENDED"
    await sleeper.delete(workspace.id)


async def settled(user: User, operation_id: str) -> dict:
    async with asyncio.timeout(LIMIT_S):
        while (found := await user.call("GET", f"/v1/operations/{operation_id}"))["status"] in {"queued", "running"}:
            await asyncio.sleep(0.1)
    return found


async def test_a_process_in_the_background_keeps_it_awake(sleeper: User) -> None:
    workspace = await sleeper.ready()
    await sleeper.shell(workspace.id, "nohup sleep 600 >/dev/null 2>&1 & echo $! > ~/pid")
    await stays_awake(sleeper, workspace.id)
    await sleeper.shell(workspace.id, "kill $(cat ~/pid)")
    await asleep(sleeper, workspace.id)
    await sleeper.delete(workspace.id)


async def test_an_attached_client_keeps_it_awake(sleeper: User) -> None:
    workspace = await sleeper.ready()
    async with sleeper.watch(workspace.id):
        await stays_awake(sleeper, workspace.id)
    await asleep(sleeper, workspace.id)
    await sleeper.delete(workspace.id)


async def test_many_requests_at_once_wake_it_once(sleeper: User) -> None:
    workspace = await sleeper.ready()
    generation = (await sleeper.workspace(workspace.id)).vm.generation
    await asleep(sleeper, workspace.id)
    ran = await asyncio.gather(*(sleeper.run(workspace.id, "echo", str(number)) for number in range(6)))
    assert [each.stdout for each in ran] == [f"{number}\n".encode() for number in range(6)]
    found = await sleeper.workspace(workspace.id)
    assert (found.vm.id, found.vm.generation) == (workspace.vm.id, generation)
    await sleeper.delete(workspace.id)


async def test_a_new_image_reaches_a_resting_and_a_sleeping_workspace_in_place(stack: Stack) -> None:
    with ExitStack() as exits:
        newer = exits.enter_context(image_running(["/opt/ff/bin/ff-daemon"]))
        settings = exits.enter_context(beside(stack, "u"))
        folder = exits.enter_context(scratch())
        with running_server(folder, settings) as server:
            async with User.sign_up(server.url) as user:
                token = user.http.headers["Authorization"]
                resting, sleeping = await user.ready(name="resting"), await user.ready(name="sleeping")
                for workspace in (resting, sleeping):
                    await user.shell(workspace.id, "echo before > file.txt")
                operation = await user.call("POST", f"/v1/workspaces/{sleeping.id}/suspend")
                assert (await settled(user, operation["id"]))["status"] == "done"
        with running_server(folder, settings | {"FF_VM_IMAGE": newer}) as server:
            async with User.sign_up(server.url) as user:
                user.http.headers["Authorization"] = token
                assert await user.shell(sleeping.id, "cat file.txt") == "before\n"
                assert (await user.workspace(sleeping.id)).vm.generation == 2
                async with asyncio.timeout(LIMIT_S):
                    while (await user.workspace(resting.id)).vm.generation == 1:
                        await asyncio.sleep(0.2)
                async with asyncio.timeout(LIMIT_S):
                    while True:
                        with suppress(Refused):
                            assert await user.shell(resting.id, "cat file.txt") == "before\n"
                            break
                        await asyncio.sleep(0.2)
                label = f"label=ff.deployment={settings['FF_DEPLOYMENT']}"
                assert docker("ps", "--filter", label, "--format", "{{.Image}}") == [newer, newer]
                for workspace in (resting, sleeping):
                    await user.delete(workspace.id)
