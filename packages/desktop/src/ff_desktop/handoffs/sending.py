"""The stages of a send; see ``machine`` for their order. Each may be repeated."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ff_core.contract.handoff import BundleFacts, NewHandoff, SentWorkspace
from ff_core.contract.places import Location
from ff_core.handoff.errors import TurnRunning
from ff_core.workspaces.errors import WorkspaceElsewhere
from ff_core.workspaces.repository import Workspace
from ff_desktop.handoffs.checks import agree, as_rules
from ff_desktop.handoffs.errors import CameToNothing, WorkspaceNowhere, view_of
from ff_desktop.handoffs.machine import Stage, Step
from ff_desktop.handoffs.server import receipt_of
from ff_desktop.handoffs.trip import TURN_POLL_S, Later, Trip

_OF_CLONING = ("repo_", "clone_", "branch_", "git_", "base_missing")


async def do(trip: Trip, stage: Stage) -> None:
    """Do one stage, and write down that it is finished."""
    await _STAGES[stage](trip)


async def undo(trip: Trip) -> None:
    """Have the workspace go on here."""
    turned = trip.handoff.state.turned
    reason = "It was aborted." if turned is None else turned.error.message
    await trip.home.moves.thaw(trip.handoff.workspace_id, trip.handoff.id, trip.handoff.way.direction, reason)


async def _check(trip: Trip) -> None:
    workspace = _workspace(trip)
    if workspace.location is not Location.DESKTOP:
        raise WorkspaceElsewhere(f"{workspace.name} lives in the cloud already.", location=workspace.location)
    await trip.server()
    agreed = await agree(trip.home, workspace, trip.handoff.wanted)
    trip.finish(Step.CHECKED, account=trip.account, epoch=workspace.epoch, travels=agreed.travels, repo_url=agreed.repo_url)


async def _freeze(trip: Trip) -> None:
    handoff = trip.handoff
    try:
        await trip.home.moves.freeze(handoff.workspace_id, handoff.id, handoff.way.direction, interrupt=handoff.wanted.interrupt)
    except TurnRunning as error:
        if not handoff.wanted.wait:
            raise
        raise Later(TURN_POLL_S, "waiting until the turn is done") from error
    trip.finish(Step.FROZEN)


async def _create(trip: Trip) -> None:
    handoff, state = trip.handoff, trip.handoff.state
    assert state.travels is not None  # noqa: S101  (written with CHECKED)
    workspace = _workspace(trip)
    wanted = NewHandoff(
        id=handoff.id,
        direction=handoff.way.direction,
        workspace_id=handoff.workspace_id,
        epoch=workspace.epoch,
        desktop_id=trip.home.desktop.id,
        desktop_name=trip.home.desktop.name,
        workspace=SentWorkspace(
            name=workspace.name,
            repo_url=state.repo_url,
            github_issue_url=workspace.github_issue_url,
        ),
        include=state.travels.include,
    )
    server = await trip.server()
    await server.create(wanted)
    trip.finish(Step.CREATED)


async def _pack(trip: Trip) -> None:
    handoff = trip.handoff
    travels = handoff.state.travels
    assert travels is not None  # noqa: S101  (written with CHECKED)
    packed = await trip.home.moves.pack(
        trip.home.ground(_worktree(trip)), handoff.workspace_id, handoff.id, as_rules(travels), trip.report.progress
    )
    facts = BundleFacts(size=packed.size, sha256=packed.sha256, fingerprint=packed.fingerprint)
    trip.finish(Step.PACKED, bundle=facts, contents=packed.contents)


async def _upload(trip: Trip) -> None:
    handoff, bundle, contents = trip.handoff, trip.handoff.state.bundle, trip.handoff.state.contents
    assert bundle is not None  # noqa: S101  (written with PACKED)
    assert contents is not None  # noqa: S101  (likewise)
    server = await trip.server()
    with _advice(trip):
        offset = (await server.announce(handoff.id, bundle, contents)).received_bytes
        await server.upload(handoff.id, trip.home.moves.bundle(handoff.id), bundle.size, offset, trip.report.bytes)
    trip.finish(Step.UPLOADED)


async def _verify(trip: Trip) -> None:
    server = await trip.server()
    with _advice(trip):
        await server.until_ready(trip.handoff.id)
    # What follows can't be taken back, so this must not be forgotten, whatever happens to the machine.
    trip.finish(Step.VERIFIED, durable=True)


async def _commit(trip: Trip) -> None:
    server = await trip.server()
    receipt = receipt_of(await server.commit(trip.handoff.id, None))
    trip.committed(receipt)


async def _depart(trip: Trip) -> None:
    handoff = trip.handoff
    assert handoff.receipt is not None  # noqa: S101  (written with COMMITTED)
    trip.home.moves.depart(handoff.workspace_id, handoff.id, handoff.way.direction, handoff.receipt.epoch)
    trip.finish_all()


@contextmanager
def _advice(trip: Trip) -> Iterator[None]:
    """Where the cloud could not clone, what can be done about it is said."""
    try:
        yield
    except CameToNothing as error:
        if trip.handoff.state.repo_url is None or not error.problem.code.startswith(_OF_CLONING):
            raise
        raise CameToNothing(view_of(error), " Or send all of its history along: --whole") from error


def _workspace(trip: Trip) -> Workspace:
    found = trip.home.workspace(trip.handoff.workspace_id)
    if found is None:
        raise WorkspaceNowhere
    return found


def _worktree(trip: Trip) -> Path:
    worktree = _workspace(trip).worktree
    assert worktree is not None  # noqa: S101  (looked at before it was frozen)
    return worktree


_STAGES = {
    Stage.CHECK: _check,
    Stage.FREEZE: _freeze,
    Stage.CREATE: _create,
    Stage.PACK: _pack,
    Stage.UPLOAD: _upload,
    Stage.VERIFY: _verify,
    Stage.COMMIT: _commit,
    Stage.DEPART: _depart,
}
