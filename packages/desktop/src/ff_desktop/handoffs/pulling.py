"""The stages of a pull, and of one by force; see ``machine`` for their order. Each may be repeated."""

import asyncio
from pathlib import Path

from ff_core.contract.handoff import HAVE_MAX, NewHandoff
from ff_core.contract.local import LocalStatus
from ff_core.contract.places import Location
from ff_core.contract.plain import WorkspaceStatus
from ff_core.contract.problem import RemoteProblem
from ff_core.git.local import users_git
from ff_core.git.tips import known_commits
from ff_core.handoff.errors import LandingPlaceTaken, StaleEpoch, TurnRunning, WorktreeChanged
from ff_core.handoff.fingerprint import differences
from ff_core.ids import ProjectId
from ff_core.projects.repository import Project
from ff_core.workspaces import repository as workspaces
from ff_core.workspaces.errors import WorkspaceElsewhere
from ff_core.workspaces.repository import Source
from ff_desktop.handoffs.errors import BundleDamaged, WorkspaceHere, WorkspaceNowhere, view_of
from ff_desktop.handoffs.ledger import Landing
from ff_desktop.handoffs.machine import Stage, Step, TakeOver, Verdict, server_may_know, tell, verdict
from ff_desktop.handoffs.placing import advice, decide, landing_order, project_for
from ff_desktop.handoffs.server import receipt_of
from ff_desktop.handoffs.trip import ASK_AGAIN_S, TURN_POLL_S, Later, Trip

TRIES_TO_LAND = 5
"""Somebody may change the worktree, or take the folder, at the very moment."""


async def do(trip: Trip, stage: Stage) -> None:
    """Do one stage, and write down that it is finished."""
    await _STAGES[stage](trip)


async def undo(trip: Trip) -> None:
    """Forget what came; the workspace goes on in the cloud, when the server hears of it or lets it expire."""
    await asyncio.to_thread(trip.home.moves.forget, trip.handoff.id)


async def _check(trip: Trip) -> None:
    handoff, home = trip.handoff, trip.home
    known = home.workspace(handoff.workspace_id)
    if known is not None and known.location is Location.DESKTOP:
        raise WorkspaceHere(f"{known.name} lives on this desktop already.")
    server = await trip.server()
    there = await server.workspace(handoff.workspace_id)
    if there is None:
        raise WorkspaceNowhere("The server has no such workspace; `ff ls` lists them.")
    if there.location is not Location.CLOUD:
        where = f"the desktop {there.desktop}" if there.desktop else "another desktop"
        raise WorkspaceElsewhere(
            f"{there.name} lives on {where}. Send it to the cloud from there, then pull it here.", location=there.location
        )
    project = await project_for(home, known, there, handoff.wanted.project)
    git = users_git(project.path, home.environment)
    have = await known_commits(git, None if known is None else known.branch, limit=HAVE_MAX)
    trip.finish(
        Step.CHECKED,
        account=trip.account,
        name=there.name,
        epoch=there.epoch,
        project_id=str(project.id),
        repo_url=there.repo_url,
        have=list(have),
        include=project.include,
    )


async def _create(trip: Trip) -> None:
    handoff, state = trip.handoff, trip.handoff.state
    assert state.epoch is not None  # noqa: S101  (written with CHECKED)
    wanted = NewHandoff(
        id=handoff.id,
        direction=handoff.way.direction,
        workspace_id=handoff.workspace_id,
        epoch=state.epoch,
        desktop_id=trip.home.desktop.id,
        desktop_name=trip.home.desktop.name,
        have=state.have,
        include=state.include,
        interrupt=handoff.wanted.interrupt,
    )
    server = await trip.server()
    try:
        await server.create(wanted)
    except RemoteProblem as error:
        if error.problem.code == TurnRunning.code and handoff.wanted.wait:
            raise Later(TURN_POLL_S, "waiting until the turn in the cloud is done") from error
        raise
    trip.finish(Step.CREATED)


async def _export(trip: Trip) -> None:
    server = await trip.server()
    view = await server.until_ready(trip.handoff.id)
    if view.bundle is None:
        raise BundleDamaged("The server says that the bundle is ready, and not what it is; update ff.")
    trip.finish(Step.EXPORTED, bundle=view.bundle, contents=view.contents)


async def _download(trip: Trip) -> None:
    handoff = trip.handoff
    assert handoff.state.bundle is not None  # noqa: S101  (written with EXPORTED)
    await asyncio.to_thread(trip.home.moves.folder, handoff.id)
    server = await trip.server()
    await server.download(handoff.id, trip.home.moves.bundle(handoff.id), handoff.state.bundle, trip.report.bytes)
    trip.finish(Step.DOWNLOADED)


async def _unpack(trip: Trip) -> None:
    handoff, home = trip.handoff, trip.home
    facts = handoff.state.bundle
    assert facts is not None  # noqa: S101  (written with EXPORTED)
    project = _project(trip)
    unpacked = await home.moves.unpack(
        handoff.id,
        size=facts.size,
        sha256=facts.sha256,
        base=project.path,
        progress=trip.report.progress,
    )
    told = differences(facts.fingerprint, unpacked.fingerprint)
    if told:
        raise BundleDamaged(f"What was unpacked is not what the server exported ({' '.join(told)})")
    home.moves.require_settling(handoff.workspace_id, handoff.id)
    landing = await decide(home, trip.ledger, handoff, project, facts.fingerprint)
    # What follows can't be taken back, so this must not be forgotten, whatever happens to the machine.
    trip.finish(Step.UNPACKED, durable=True, landing=landing)


async def _commit(trip: Trip) -> None:
    handoff = trip.handoff
    assert handoff.state.bundle is not None  # noqa: S101  (written with EXPORTED)
    server = await trip.server()
    receipt = receipt_of(await server.commit(handoff.id, handoff.state.bundle.fingerprint))
    trip.committed(receipt)


async def _land(trip: Trip) -> None:
    """Also when somebody changed the worktree, or took the folder, after it was decided where it lands: then beside."""
    home, handoff = trip.home, trip.handoff
    facts = handoff.state.bundle
    assert facts is not None  # noqa: S101  (written with EXPORTED)
    landing = _landing(trip)
    for left in reversed(range(TRIES_TO_LAND)):
        try:
            landed = await home.moves.land(
                landing_order(home, trip.ledger, handoff, _project(trip), landing), trip.report.progress
            )
            break
        except (WorktreeChanged, LandingPlaceTaken) as error:
            if not left:
                raise
            beside = error.detail if isinstance(error, WorktreeChanged) else landing.reason
            landing = await decide(home, trip.ledger, handoff, _project(trip), facts.fingerprint, beside=beside)
            trip.handoff = trip.ledger.note(handoff.id, landing=landing)
    told = [landed.words(), advice(landing)]
    trip.finish(Step.LANDED, advice=" ".join(filter(None, told)) or None, differs=bool(landed.differences) or None)


async def _settle(trip: Trip) -> None:
    handoff, home = trip.handoff, trip.home
    landing, receipt = _landing(trip), handoff.receipt
    assert receipt is not None  # noqa: S101  (written with COMMITTED)
    worktree = Path(landing.worktree)
    _make_row(trip, worktree, landing.branch)
    await home.moves.settle(handoff.workspace_id, handoff.id, home.ground(worktree), receipt.arrived)
    with home.store.transaction() as tx:
        workspaces.remember_worktree(tx, handoff.workspace_id, worktree, landing.branch, trip.world.now())
    trip.finish(Step.SETTLED)


async def _activate(trip: Trip) -> None:
    handoff = trip.handoff
    landing, receipt = _landing(trip), handoff.receipt
    assert receipt is not None  # noqa: S101  (written with COMMITTED)
    if handoff.state.differs:
        kept = trip.home.moves.keep(handoff.id)
        trip.ledger.note(handoff.id, advice=f"{handoff.state.advice or ''} What came is kept in {kept}.", differs=None)
    await trip.home.moves.activate(
        handoff.workspace_id, handoff.id, handoff.way.direction, epoch=receipt.epoch, place=landing.worktree
    )
    trip.finish_all()


async def _take(trip: Trip) -> None:
    handoff, home = trip.handoff, trip.home
    known = home.workspace(handoff.workspace_id)
    if known is None or known.worktree is None or handoff.state.epoch is None:
        raise WorkspaceNowhere
    await home.moves.activate(
        handoff.workspace_id,
        handoff.id,
        handoff.way.direction,
        epoch=handoff.state.epoch,
        place=str(known.worktree),
    )
    trip.finish(Step.TAKEN)


async def _tell(trip: Trip) -> None:
    handoff, home, state = trip.handoff, trip.home, trip.handoff.state
    assert state.base is not None  # noqa: S101  (written when it was begun)
    server = await trip.server()
    way, became, epoch = None, None, state.base
    before = None if state.given_up is None else trip.ledger.get(state.given_up)
    if before is not None:
        way = before.way
        if server_may_know(before.way, before.step):
            view = await server.abort(before.id)
            became, epoch = verdict(None if view is None else view.status), epoch if view is None else view.epoch
        if became is Verdict.OPEN:
            raise Later(ASK_AGAIN_S, "the server is giving up what was under way")
    left = tell(state.base, way, became, epoch)
    if isinstance(left, TakeOver):
        try:
            await server.take_over(handoff.workspace_id, left.epoch, home.desktop.id)
        except RemoteProblem as error:
            if error.problem.code != StaleEpoch.code:
                raise
            # It has been moved by somebody who could reach the server, and the server decides.
            there = error.extra.get("epoch")
            home.moves.heed(handoff.workspace_id, Location.CLOUD, there if isinstance(there, int) else left.epoch)
            trip.handoff = trip.ledger.close(handoff.id, LocalStatus.FAILED, view_of(error))
            return
    home.moves.heed(handoff.workspace_id, Location.DESKTOP, left.epoch)
    trip.finish_all()


def _landing(trip: Trip) -> Landing:
    landing = trip.handoff.state.landing
    assert landing is not None  # noqa: S101  (written with UNPACKED)
    return landing


def _project(trip: Trip) -> Project:
    found = trip.handoff.state.project_id
    assert found is not None  # noqa: S101  (written with CHECKED)
    return trip.home.projects.get(ProjectId(found))


def _make_row(trip: Trip, worktree: Path, branch: str | None) -> None:
    """Know a workspace that was never here. Until it is activated it lives elsewhere."""
    handoff, state = trip.handoff, trip.handoff.state
    with trip.home.store.transaction() as tx:
        if workspaces.read(tx, handoff.workspace_id) is not None:
            return
        workspaces.insert(
            tx,
            handoff.workspace_id,
            handoff.title,
            trip.world.now(),
            status=WorkspaceStatus.READY,
            source=Source(state.repo_url, None),
            location=Location.CLOUD,
            epoch=0,
            project_id=state.project_id,
            worktree=worktree,
            branch=branch,
        )


_STAGES = {
    Stage.CHECK: _check,
    Stage.CREATE: _create,
    Stage.EXPORT: _export,
    Stage.DOWNLOAD: _download,
    Stage.UNPACK: _unpack,
    Stage.COMMIT: _commit,
    Stage.LAND: _land,
    Stage.SETTLE: _settle,
    Stage.ACTIVATE: _activate,
    Stage.TAKE: _take,
    Stage.TELL: _tell,
}
