"""Which operations there are on handoffs, and which steps each has."""

from ff_cloud.handoffs.pieces import Pieces
from ff_cloud.handoffs.settle import HandoffSettler
from ff_cloud.handoffs.steps import (
    AwaitBundle,
    BindArrived,
    BindInert,
    ClaimVm,
    CloneForBundle,
    DropCopy,
    FreezeDaemon,
    IfAsleep,
    LastIfAsleep,
    LimitInert,
    Look,
    Pack,
    Quiet,
    RemoveCopy,
    ReturnVm,
    Store,
    ThawDaemon,
    Unpack,
)
from ff_cloud.kit.crypto import Sealer
from ff_cloud.kit.db import Database
from ff_cloud.operations.model import Kind
from ff_cloud.vms.access import Daemons
from ff_cloud.vms.engine.base import Engine
from ff_cloud.vms.footing import Footing
from ff_cloud.vms.specs import Specs
from ff_cloud.workspaces import kinds as names
from ff_cloud.workspaces.operations import Outside
from ff_cloud.workspaces.resting import FinishJournal, ForgetState, RenewContainer, RestoreState, StopContainer
from ff_cloud.workspaces.steps import Admit, AwaitDaemon, BindDaemon, CheckIsolation, EnsureContainer, EnsureNewContainer
from ff_core.world import World


def kinds(
    *,
    db: Database,
    engine: Engine,
    daemons: Daemons,
    specs: Specs,
    sealer: Sealer,
    settler: HandoffSettler,
    pieces: Pieces,
    outside: Outside,
    expires_s: float,
    world: World,
) -> list[Kind]:
    """The operations on handoffs, for a worker."""
    footing = Footing(engine, daemons)
    admit = Admit(db, specs, world)
    again = [
        RenewContainer(db, specs),
        EnsureContainer(db, engine, specs),
        AwaitDaemon(db, daemons, footing),
        RestoreState(db, daemons, footing, outside.restore),
    ]
    return [
        Kind(
            name=names.RECEIVE,
            steps=[
                DropCopy(db, engine, outside.forget),
                ClaimVm(db, specs),
                admit,
                EnsureNewContainer(db, engine, specs),
                AwaitDaemon(db, daemons, footing),
                BindInert(db, daemons, footing),
                LimitInert(db, engine, footing, specs),
                CheckIsolation(db, engine, footing),
                CloneForBundle(db, daemons, footing, sealer, outside.seed_for, outside.note_clone),
                # Until here while the desktop packs and uploads.
                AwaitBundle(db),
                Unpack(db, daemons, footing, expires_s, pieces),
            ],
            on_settled=settler.made,
        ),
        Kind(name=names.RETURN, steps=[ReturnVm(db, engine)], forward_only=True, on_settled=settler.returned),
        Kind(name=names.ACTIVATE, steps=[*again, BindArrived(db, daemons, footing)], on_settled=settler.activated),
        Kind(
            name=names.EXPORT,
            steps=[
                Look(db),
                *(IfAsleep(step) for step in (admit, *again)),
                LastIfAsleep(BindDaemon(db, daemons, footing)),
                FreezeDaemon(db, daemons, footing, expires_s),
                FinishJournal(db, outside.copy_journal),
                Pack(db, daemons, footing, expires_s),
                Store(db, daemons, footing, expires_s, pieces),
            ],
            on_settled=settler.made,
        ),
        Kind(name=names.THAW, steps=[ThawDaemon(db, daemons, footing)], forward_only=True, on_settled=settler.thawed),
        Kind(
            name=names.KEEP,
            steps=[Quiet(db, daemons, outside.copy_journal), StopContainer(db, engine, world)],
            forward_only=True,
            on_settled=settler.kept,
        ),
        Kind(
            name=names.LET_GO,
            steps=[RemoveCopy(db, engine), ForgetState(db, outside.forget)],
            forward_only=True,
            on_settled=settler.let_go,
        ),
    ]
