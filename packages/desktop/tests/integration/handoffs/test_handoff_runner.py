"""Handoffs of a desktop, over real HTTP and with real repositories: there and back, killed and aborted everywhere."""

import asyncio
from pathlib import Path

import pytest
from moving_desk import ABORTED, DONE, FAILED, Desk, Died, given_up, owners

from ff_core.contract.local import BeginHandoff, PlanHandoff
from ff_core.contract.places import Direction, Location
from ff_core.errors import FFError
from ff_desktop.handoffs.machine import LEGS, Way
from ff_desktop.handoffs.places import PLACES


async def test_a_workspace_goes_and_comes_back(desk, server):
    await desk.handoffs.close()
    desk.start(real=True)
    workspace = desk.workspace()
    place = desk.folder / "work"
    plan = await desk.handoffs.plan(PlanHandoff(workspace_id=workspace))
    assert (plan.refusals, plan.contents.files, plan.contents.whole) == ((), 2, False)
    sent = await desk.move(workspace, Direction.SEND)
    assert (sent.status, sent.step, sent.error) == (DONE, "DONE", None)
    assert sent.receipt.equal
    assert (server.runs(workspace), desk.runs(workspace), desk.row(workspace).epoch) == (True, False, 1)
    cloud = server.cloud(workspace)
    assert (cloud / "new.txt").read_text() == "untracked\n"
    (cloud / "new.txt").write_text("of the cloud\n")
    desk.git(cloud, "commit", "-qam", "in the cloud")
    pulled = await desk.move(workspace, Direction.PULL)
    assert (pulled.status, pulled.landed_at, pulled.landed_beside) == (DONE, str(place), False)
    assert pulled.advice is None
    assert (server.runs(workspace), desk.runs(workspace), desk.row(workspace).epoch) == (False, True, 2)
    assert (place / "new.txt").read_text() == "of the cloud\n"
    assert desk.git(place, "log", "-1", "--format=%s") == "in the cloud"
    assert not list((desk.folder / "data" / "handoffs").iterdir())


async def test_both_versions_are_kept(desk, server):
    workspace = desk.workspace()
    await desk.move(workspace, Direction.SEND)
    (desk.folder / "work" / "a.txt").write_text("edited here meanwhile\n")
    (server.cloud(workspace) / "a.txt").write_text("of the cloud\n")
    pulled = await desk.move(workspace, Direction.PULL)
    assert (pulled.status, pulled.landed_beside) == (DONE, True)
    assert (desk.folder / "work" / "a.txt").read_text() == "edited here meanwhile\n"
    assert (Path(pulled.landed_at) / "a.txt").read_text() == "of the cloud\n"
    assert f"git -C {desk.folder / 'work'} merge work-cloud" in pulled.advice
    row = desk.row(workspace)
    assert (str(row.worktree), row.branch, row.location) == (pulled.landed_at, "work-cloud", Location.DESKTOP)
    # From there it goes and comes as from anywhere.
    assert (await desk.move(workspace, Direction.SEND)).status is DONE
    again = await desk.move(workspace, Direction.PULL)
    assert (again.status, again.landed_at, again.landed_beside) == (DONE, pulled.landed_at, False)


async def test_a_second_laptop_takes_it(desk, server, tmp_path, remote):
    workspace = desk.workspace()
    (desk.folder / "work" / ".gitignore").write_text("*.env\n")
    (desk.folder / "work" / "test.env").write_text("SECRET=1\n")
    await desk.move(workspace, Direction.SEND, include=("*.env",))
    (server.cloud(workspace) / "test.env").write_text("SECRET=2\n")
    other = Desk(tmp_path / "other", server.url, remote, name="another")
    await other.open()
    try:
        pulled = await other.move(workspace, Direction.PULL)
        assert (pulled.status, pulled.name, pulled.landed_beside) == (DONE, "work", False)
        assert (Path(pulled.landed_at) / "new.txt").read_text() == "untracked\n"
        assert (Path(pulled.landed_at) / "test.env").read_text() == "SECRET=2\n", "by the rule of the send"
        assert other.git(Path(pulled.landed_at), "branch", "--show-current") == "work"
        assert owners(server, workspace, desk, other) == 1
        refused = await desk.move(workspace, Direction.PULL)
        assert (refused.status, refused.error.code, refused.refused) == (FAILED, "workspace_elsewhere", True)
        assert "another" in refused.error.message
        # By force, though it was reachable all the time: the server says who is right.
        forced = await desk.move(workspace, Direction.PULL, force=True)
        assert (forced.status, forced.error.code) == (FAILED, "stale_epoch")
        assert owners(server, workspace, desk, other) == 1
    finally:
        await other.close()


async def test_killed_at_every_place_there_is_one_owner_and_it_finishes(desk, server):
    """One life after another ends at the next place; what follows begins with what was written down."""
    workspace = desk.workspace()
    died: list[str] = []

    async def through(wanted: BeginHandoff, *, at_most: int) -> None:
        begun = False
        for _ in range(len(PLACES) + 2):
            try:
                if not begun:
                    begun = (await desk.handoffs.begin(wanted)).id == wanted.id
                await desk.handoffs.runner.finished(wanted.id)
            finally:
                assert owners(server, workspace, desk) <= at_most, died[-1:]
            if desk.handoffs.get(wanted.id).status.value not in {"RUNNING", "STOPPED"}:
                return
            await desk.handoffs.close()
            desk.start()
        raise AssertionError("it did not come to its end")

    def crash(place: str) -> None:
        if place not in died:
            died.append(place)
            with desk.host.store.transaction() as tx:  # what was asked for is asked for again, whatever the user changes
                tx.execute("UPDATE projects SET include = ?", (f'["/of-death-{len(died)}"]',))
            raise Died

    desk.crash = crash
    await through(desk.wanted(workspace, Direction.SEND), at_most=1)
    assert owners(server, workspace, desk) == 1
    assert server.runs(workspace)
    (server.cloud(workspace) / "new.txt").write_text("of the cloud\n")
    await through(desk.wanted(workspace, Direction.PULL), at_most=1)
    assert desk.runs(workspace)
    assert owners(server, workspace, desk) == 1
    assert (desk.folder / "work" / "new.txt").read_text() == "of the cloud\n"
    # Sent once more, as nobody here heard; then taken back by force: until the server has heard of it there may be two.
    await given_up(desk, desk.wanted(workspace, Direction.SEND), "SEND COMMIT after commit")
    assert server.runs(workspace)
    desk.crash = crash
    await through(desk.wanted(workspace, Direction.PULL, force=True), at_most=2)
    assert desk.runs(workspace)
    assert owners(server, workspace, desk) == 1
    # What is turned round dies on its way back as well, before and after the commit may have been asked for.
    for direction, places in ((Direction.SEND, ("CREATE", "VERIFY")), (Direction.PULL, ("CREATE", "UNPACK"))):
        for last in places:
            wanted = desk.wanted(workspace, direction)
            await given_up(desk, wanted, f"{direction} {last} written")
            desk.crash = crash
            desk.handoffs.abort(wanted.id)
            await through(wanted, at_most=1)
            desk.crash = lambda _: None
        if direction is Direction.SEND:
            await desk.move(workspace, direction)
    assert set(died) == set(PLACES)


@pytest.mark.parametrize("way", [Way.SEND, Way.PULL])
async def test_aborted_at_every_step(desk, server, way):
    workspace = desk.workspace()
    direction = way.direction
    if way is Way.PULL:
        await desk.move(workspace, Direction.SEND)
    steps = [leg.step for leg in LEGS[way]]
    for leg in LEGS[way]:
        wanted = desk.wanted(workspace, direction)
        answers = []

        def abort(place: str, at=f"{way} {leg.stage} written", wanted=wanted, answers=answers) -> None:
            if place == at:
                asyncio.get_running_loop().call_soon(lambda: answers.append(_aborted(desk, wanted.id)))

        desk.crash = abort
        await desk.handoffs.begin(wanted)
        ended = await desk.over(wanted.id)
        committed = steps.index(leg.step) >= [each.value for each in steps].index("COMMITTED")
        assert ended.status is (DONE if committed else ABORTED), leg
        if committed:
            assert answers == ["handoff_committed"]
            break
        assert owners(server, workspace, desk) <= 1
        async with asyncio.timeout(10):
            while owners(server, workspace, desk) != 1 or desk.handoffs.page(open_only=True, before=None, limit=9).items:
                await asyncio.sleep(0.01)
        assert desk.runs(workspace) == (way is Way.SEND)


def _aborted(desk, handoff_id):
    try:
        return desk.handoffs.abort(handoff_id).status
    except FFError as error:
        return error.code
