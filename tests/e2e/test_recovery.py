"""Kills and cuts: nothing that was acknowledged is lost, nothing is shown twice, and everything goes on by itself."""

import asyncio
import os
import signal
from contextlib import AsyncExitStack, ExitStack

import httpx2
import pytest
from api_user import Refused, User, new_id
from stack import Stack, scratch

from ff_cloud.testing.server import running_server

pytestmark = [pytest.mark.docker, pytest.mark.asyncio(loop_scope="session")]


@pytest.mark.claude
async def test_a_cut_event_stream_resumes_without_gap_or_duplicate(user: User) -> None:
    workspace = await user.ready()
    session = await user.session(workspace.id, permissions="YOLO")
    seen: list[int] = []

    async def until_answered() -> None:
        """Read three events per connection, so that the turn is followed over many cuts."""
        while True:
            taken = 0
            async for event in user.events(workspace.id, resume=seen[-1] if seen else 0):
                if event.seq is None:
                    continue
                seen.append(event.seq)
                taken += 1
                if event.body.kind == "turn.finished":
                    return
                if taken == 3:
                    break

    prompt = "\n".join(f"%bash echo step {number}" for number in range(8)) + "\n%say done"
    await user.say(session.id, prompt)
    await asyncio.wait_for(until_answered(), 60)
    assert seen == list(range(1, len(seen) + 1))
    assert len(seen) > 20
    replayed = []
    async for event in user.events(workspace.id):
        if event.seq is not None:
            replayed.append(event.seq)
        if len(replayed) == len(seen):
            break
    assert replayed == seen
    await user.delete(workspace.id)


@pytest.mark.claude
async def test_a_killed_daemon_comes_back_with_its_whole_journal(user: User, stack: Stack) -> None:
    workspace = await user.ready()
    session = await user.session(workspace.id, permissions="YOLO")
    async with user.watch(workspace.id) as heard:
        await user.say(session.id, "%say before the crash")
        await heard.turn(1)
        await user.shell(workspace.id, "echo kept > kept.txt")
        await user.say(session.id, "%stream 6000 60")
        await heard.until(lambda h: len(h.of("message.user")) == 2)
        queued = await user.say(session.id, "%say after the crash")
        await _docker("exec", f"ff-{stack.network.deployment}-{workspace.vm.id}", "pkill", "-KILL", "-f", "ff-daemon")
        # The queue is durable: what waited is answered by the revived daemon without being asked again.
        answered = await heard.until(
            lambda h: [turn for turn in h.of("turn.finished") if queued.id in turn.message_ids], limit_s=90
        )
        assert answered[0].outcome == "done"
        assert [event.seq for event in heard.events] == list(range(1, len(heard.events) + 1))
        interrupted = [turn for turn in heard.of("turn.finished") if turn.outcome != "done"]
        assert len(interrupted) == 1
    assert heard.of("message.assistant")[-1].text == "after the crash"
    assert "before the crash" in str(stack.model.requests[-1].body["messages"]), "the conversation went on, not a new one"
    assert await user.shell(workspace.id, "cat kept.txt") == "kept\n"
    async with user.watch(workspace.id) as again:
        await again.until(lambda h: h.cursor >= heard.cursor)
    assert again.events[: len(heard.events)] == heard.events
    await user.delete(workspace.id)


async def test_a_killed_server_finishes_what_it_began(stack: Stack) -> None:
    with ExitStack() as exits:
        folder = exits.enter_context(scratch())
        settings = stack.settings | {
            "FF_DEPLOYMENT": f"{stack.network.deployment}-k",
            "FF_VM_NETWORK": stack.network.name,
            "FF_POOL_SIZE": "0",
        }
        killed = ExitStack()
        server = killed.enter_context(running_server(folder, settings))
        async with User.sign_up(server.url) as user:
            token = user.http.headers["Authorization"]
            orders = [await user.order(name=f"survivor {number}") for number in range(3)]
            os.kill(server.pid, signal.SIGKILL)
            with pytest.raises(httpx2.TransportError):
                while True:
                    await user.call("GET", "/healthz")
        killed.close()
        server = exits.enter_context(running_server(folder, settings))
        async with User.sign_up(server.url) as somebody:
            somebody.http.headers["Authorization"] = token
            for ordered in orders:
                found = await somebody.settled(ordered.id)
                assert found.status == "READY", found
            for ordered in orders:
                await somebody.delete(ordered.id)
        containers = await _docker("ps", "-aq", "--filter", f"label=ff.deployment={settings['FF_DEPLOYMENT']}")
        volumes = await _docker("volume", "ls", "-q", "--filter", f"label=ff.deployment={settings['FF_DEPLOYMENT']}")
        assert (containers, volumes) == ("", "")


async def test_a_vanished_container_is_replaced_over_its_volume(user: User, stack: Stack) -> None:
    workspace = await user.ready()
    await user.shell(workspace.id, "echo survives > file.txt")
    await _docker("rm", "-f", f"ff-{stack.network.deployment}-{workspace.vm.id}")
    async with asyncio.timeout(60):
        while True:
            try:
                assert await user.shell(workspace.id, "cat file.txt") == "survives\n"
                break
            except Refused as refused:
                assert refused.code in {"vm_unreachable", "workspace_not_ready"}, refused
                await asyncio.sleep(0.2)
    await user.delete(workspace.id)


async def test_an_orphan_container_is_swept(stack: Stack) -> None:
    """A container of this deployment without a row, as a crash at the wrong moment could leave it."""
    vm = str(new_id())
    labels = ["--label", f"ff.deployment={stack.network.deployment}", "--label", f"ff.vm={vm}", "--label", "ff.generation=1"]
    image = (await _docker("image", "inspect", "--format", "{{.Id}}", "ff-workspace:latest")).strip()
    await _docker("create", *labels, "--label", "ff.fence=1", "--name", f"ff-{stack.network.deployment}-{vm}", image)
    async with asyncio.timeout(30):
        while await _docker("ps", "-aq", "--filter", f"label=ff.vm={vm}"):
            await asyncio.sleep(0.2)


async def _docker(*arguments: str) -> str:
    process = await asyncio.create_subprocess_exec("docker", *arguments, stdout=asyncio.subprocess.PIPE)
    out, _ = await asyncio.wait_for(process.communicate(), 30)
    return out.decode()


async def test_event_streams_have_a_bound_and_closing_one_makes_room(user: User) -> None:
    workspace = await user.ready()
    async with AsyncExitStack() as open_streams:
        path = f"/v1/workspaces/{workspace.id}/events"
        bodies = []  # kept, since a forgotten one closes its response
        for _ in range(50):
            response = await open_streams.enter_async_context(user.http.stream("GET", path))
            bodies.append(response.aiter_bytes())
            await anext(bodies[-1])
        refused = await user.refused("GET", path)
        assert (refused.status, refused.code) == (429, "too_many_requests")
    async with asyncio.timeout(20):
        while True:
            try:
                async for _ in user.events(workspace.id):
                    break
                break
            except Refused as refused:
                assert refused.code == "too_many_requests"
    await user.delete(workspace.id)
