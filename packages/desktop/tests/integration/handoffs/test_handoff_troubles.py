"""What may go wrong with a handoff: cut connections, lost answers, a server that is gone, another login, force, refusals."""

import asyncio
import os
from uuid import UUID

import pytest
from moving_desk import ABORTED, DONE, FAILED, STOPPED, given_up, owners, runs_there

from ff_core.contract.events import Notice
from ff_core.contract.handoff import HandoffStatus
from ff_core.contract.local import LocalStatus, PlanHandoff
from ff_core.contract.places import Direction
from ff_core.contract.session import Interrupt, NewMessage, NewSession
from ff_core.errors import FFError
from ff_core.handoff import repository as rows
from ff_core.ids import HandoffId, WorkspaceId
from ff_desktop.handoffs.errors import HandoffOpen, NothingKept


async def test_a_bundle_goes_on_where_it_broke(desk, server):
    workspace = desk.workspace()
    (desk.folder / "work" / "large.bin").write_bytes(os.urandom(20 << 20))
    server.misbehave("piece", "cut")
    server.misbehave("piece", "cut after")
    server.misbehave("look", "cut")
    sent = await desk.move(workspace, Direction.SEND)
    assert sent.status is DONE
    assert server.asked.count("piece") == 4, "three, and the one that was lost; the one whose answer was lost is not repeated"
    (server.cloud(workspace) / "large.bin").write_bytes(os.urandom(5 << 20))
    server.misbehave("download", "cut within", 2)
    server.misbehave("download", "cut")
    pulled = await desk.move(workspace, Direction.PULL)
    assert pulled.status is DONE
    assert server.asked.count("download") == 4
    assert (desk.folder / "work" / "large.bin").read_bytes() == (server.cloud(workspace) / "large.bin").read_bytes()


async def test_a_bundle_that_was_packed_again_is_the_one_that_counts(desk, server):
    """The machine lost its power, and with it what was written down last."""
    workspace = desk.workspace()
    (desk.folder / "work" / "large.bin").write_bytes(os.urandom(20 << 20))
    wanted = desk.wanted(workspace, Direction.SEND)
    await given_up(desk, wanted, "SEND UPLOAD after piece")
    assert server.handoffs[wanted.id].data
    first = server.handoffs[wanted.id].bundle
    await desk.handoffs.close()
    with desk.host.store.transaction() as tx:
        rows.finish(tx, wanted.id, "CREATED", {"bundle": None, "contents": None}, desk.host.world.now())
    (desk.folder / "work" / "large.bin").write_bytes(b"smaller")
    desk.crash = lambda _: None
    desk.start()
    assert (await desk.over(wanted.id)).status is DONE
    assert server.handoffs[wanted.id].bundle != first
    assert (server.cloud(workspace) / "large.bin").read_bytes() == b"smaller"


@pytest.mark.parametrize("at", ["CREATE written", "PACK written", "UPLOAD after announce"])
async def test_a_cloud_that_can_not_prepare_is_learned_of_at_the_next_call(desk, server, at):
    workspace = desk.workspace()

    def end(place: str) -> None:
        if place == f"SEND {at}":
            server.end(HandoffStatus.FAILED, "repo_not_found")

    desk.crash = end
    ended = await desk.move(workspace, Direction.SEND)
    assert (ended.status, ended.error.code) == (FAILED, "repo_not_found")
    assert "--whole" in ended.error.message
    assert desk.runs(workspace)
    assert not (desk.folder / "data" / "handoffs" / str(ended.id)).exists()


async def test_an_answer_that_is_lost_changes_nothing(desk, server):
    workspace = desk.workspace()
    for direction in (Direction.SEND, Direction.PULL):
        for name in ("create", "commit", *(("announce",) if direction is Direction.SEND else ())):
            for how in ("cut", "busy", "cut after", "cut after"):
                server.misbehave(name, how)
        assert (await desk.move(workspace, direction)).status is DONE
    assert owners(server, workspace, desk) == 1


async def test_without_the_server_it_stops_and_goes_on(desk, server):
    workspace = desk.workspace()

    def gone(place: str) -> None:
        if place == "SEND VERIFY written":
            server.down = True

    desk.crash = gone
    wanted = desk.wanted(workspace, Direction.SEND)
    await desk.handoffs.begin(wanted)
    stopped = await desk.over(wanted.id, STOPPED)
    assert stopped.error.code == "server_unreachable"
    assert not desk.runs(workspace), "it may have been committed"
    # Nobody knows whether it was committed, so an abort has to wait for the server as well.
    desk.handoffs.abort(wanted.id)
    await asyncio.sleep(0.1)
    assert desk.handoffs.get(wanted.id).status in {STOPPED, LocalStatus.RUNNING}
    assert not desk.runs(workspace)
    desk.crash = lambda _: None
    server.down = False
    desk.handoffs.resume(wanted.id)
    assert (await desk.over(wanted.id)).status is ABORTED
    assert desk.runs(workspace)
    # Before anything was frozen there is nothing to wait for.
    server.down = True
    refused = await desk.move(workspace, Direction.SEND)
    assert (refused.status, refused.error.code) == (FAILED, "server_unreachable")
    assert desk.runs(workspace)


async def test_by_force_while_a_send_may_have_been_committed(desk, server):
    workspace = desk.workspace()

    def gone(place: str) -> None:
        if place == "SEND COMMIT after commit":
            server.down = True
            raise ConnectionError

    desk.crash = gone
    wanted = desk.wanted(workspace, Direction.SEND)
    await desk.handoffs.begin(wanted)
    await desk.over(wanted.id, STOPPED)
    assert server.runs(workspace)
    desk.crash = lambda _: None
    forced = desk.wanted(workspace, Direction.PULL, force=True)
    await desk.handoffs.begin(forced)
    await desk.over(forced.id, STOPPED)
    assert desk.runs(workspace)
    assert desk.row(workspace).epoch == 2
    assert desk.handoffs.get(wanted.id).status is ABORTED
    server.down = False
    desk.handoffs.resume(forced.id)
    assert (await desk.over(forced.id)).status is DONE
    assert owners(server, workspace, desk) == 1
    assert (await desk.move(workspace, Direction.SEND)).status is DONE
    with pytest.raises(NothingKept):
        await desk.handoffs.begin(desk.wanted(WorkspaceId(UUID(int=1)), Direction.PULL, force=True))


@pytest.mark.parametrize(
    ("at", "status"),
    [
        ("UPLOAD", HandoffStatus.FAILED),
        ("VERIFY", HandoffStatus.EXPIRED),
        ("UNPACK", HandoffStatus.ABORTED),
    ],
)
async def test_what_comes_to_nothing_at_the_server_is_undone(desk, server, at, status):
    workspace = desk.workspace()
    direction = Direction.SEND if at in {"UPLOAD", "VERIFY"} else Direction.PULL
    if direction is Direction.PULL:
        await desk.move(workspace, Direction.SEND)

    def end(place: str) -> None:
        if place == f"{direction} {at} written":
            server.end(status)

    desk.crash = end
    ended = await desk.move(workspace, direction)
    assert ended.status is FAILED
    assert ended.error.code in {"handoff_over", "fingerprint_differs"}
    assert owners(server, workspace, desk) == 1
    assert desk.runs(workspace) == (direction is Direction.SEND)


async def test_another_login_can_not_end_it(desk, server):
    workspace = desk.workspace()

    def gone(place: str) -> None:
        if place == "SEND VERIFY written":
            server.user = server.user.model_copy(update={"id": UUID(int=43), "email": "bob@example.com"})

    desk.crash = gone
    wanted = desk.wanted(workspace, Direction.SEND)
    await desk.handoffs.begin(wanted)
    stopped = await desk.over(wanted.id, STOPPED)
    assert stopped.error.code == "other_account"
    assert "ada@example.com" in stopped.error.message
    desk.handoffs.abort(wanted.id)
    await asyncio.sleep(0.1)
    assert not desk.runs(workspace)
    server.user = server.user.model_copy(update={"id": UUID(int=42)})
    desk.handoffs.resume(wanted.id)
    assert (await desk.over(wanted.id)).status is ABORTED


async def test_refusals_say_the_way_out(desk, server):
    workspace = desk.workspace()
    desk.git(desk.folder / "proj", "remote", "set-url", "origin", "https://git.example.com/gone.git")
    desk.environment["GIT_CONFIG_COUNT"] = "1"
    desk.environment |= {"GIT_CONFIG_KEY_0": "http.proxy", "GIT_CONFIG_VALUE_0": "http://127.0.0.1:9"}
    plan = await desk.handoffs.plan(PlanHandoff(workspace_id=workspace))
    assert [error.code for error in plan.refusals] == ["clone_impossible"]
    assert "--whole" in plan.refusals[0].message
    refused = await desk.move(workspace, Direction.SEND)
    assert (refused.status, refused.error.code, refused.refused) == (FAILED, "clone_impossible", True)
    assert desk.runs(workspace)
    whole = await desk.handoffs.plan(PlanHandoff(workspace_id=workspace, whole=True))
    assert (whole.refusals, whole.contents.whole) == ((), True)
    desk.git(desk.folder / "proj", "remote", "remove", "origin")
    alone = await desk.handoffs.plan(PlanHandoff(workspace_id=workspace))
    assert (alone.refusals, alone.contents.whole) == ((), True)
    # A file that looks like a credential needs a yes.
    (desk.folder / "work" / "id_rsa").write_text("key\n")
    assert (await desk.handoffs.plan(PlanHandoff(workspace_id=workspace))).credentials == ("id_rsa",)
    assert (await desk.move(workspace, Direction.SEND)).status is DONE
    assert not (server.cloud(workspace) / "id_rsa").exists()


async def test_a_turn_is_waited_for_or_refused(desk, server):
    workspace = desk.workspace()
    session = await desk.host.sessions.create(workspace, NewSession())
    await desk.host.sessions.send(session.id, NewMessage(text="work"))
    async with asyncio.timeout(10):
        while not desk.host.sessions.busy(workspace):
            await asyncio.sleep(0.01)
    with pytest.raises(FFError) as refused:
        await desk.handoffs.begin(desk.wanted(workspace, Direction.SEND))
    assert refused.value.code == "turn_running"
    assert "--wait" in refused.value.detail
    wanted = desk.wanted(workspace, Direction.SEND, wait=True)
    await desk.handoffs.begin(wanted)
    async with asyncio.timeout(10):
        while "waiting until the turn is done" not in desk.handoffs.get(wanted.id).detail:
            await asyncio.sleep(0.01)
    with pytest.raises(HandoffOpen):
        await desk.handoffs.begin(desk.wanted(workspace, Direction.SEND, wait=True))
    await desk.host.sessions.interrupt(session.id, Interrupt())
    assert (await desk.over(wanted.id)).status is DONE


async def test_four_at_once_are_three_and_one(desk, server):
    names = ["one", "two", "three", "four"]
    moving = [await desk.handoffs.begin(desk.wanted(desk.workspace(name), Direction.SEND)) for name in names]
    ended = [await desk.over(each.id) for each in moving]
    assert [each.status for each in ended] == [DONE] * 4
    listed = desk.handoffs.page(open_only=False, before=None, limit=3)
    assert len(listed.items) == 3
    rest = desk.handoffs.page(open_only=False, before=HandoffId(UUID(listed.next_cursor)), limit=3)
    assert [each.name for each in (*listed.items, *rest.items)] == names[::-1]


async def test_a_journal_that_went_on_here_is_refused_before_anything_is_decided(desk, server):
    workspace = desk.workspace()
    await desk.move(workspace, Direction.SEND)
    with desk.host.store.transaction() as tx:
        desk.host.journal.append(tx, workspace, Notice(name="n", message="as after a copy that was taken back by force"))
    refused = await desk.move(workspace, Direction.PULL)
    assert (refused.status, refused.error.code) == (FAILED, "journal_diverged")
    await runs_there(server, workspace)


async def test_a_download_that_is_given_up_ends_at_once(desk, server):
    workspace = desk.workspace()
    (desk.folder / "work" / "large.bin").write_bytes(os.urandom(3 << 20))
    await desk.move(workspace, Direction.SEND)
    server.misbehave("download", "slow")
    wanted = desk.wanted(workspace, Direction.PULL)
    await desk.handoffs.begin(wanted)
    async with asyncio.timeout(20):
        while not desk.handoffs.get(wanted.id).done_bytes:
            await asyncio.sleep(0.01)
    desk.handoffs.abort(wanted.id)
    assert (await desk.over(wanted.id)).status is ABORTED
    await runs_there(server, workspace)
