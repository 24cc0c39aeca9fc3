"""Which operations there are on workspaces, and which steps each has."""

from dataclasses import dataclass

from ff_cloud.kit.crypto import Sealer
from ff_cloud.kit.db import Database
from ff_cloud.operations.model import Kind
from ff_cloud.vms.access import Daemons
from ff_cloud.vms.engine.base import Engine
from ff_cloud.vms.footing import Footing
from ff_cloud.vms.specs import Specs
from ff_cloud.workspaces import kinds as names
from ff_cloud.workspaces.resting import (
    CopyJournal,
    FinishJournal,
    Forget,
    ForgetState,
    RenewContainer,
    RestDaemon,
    Restore,
    RestoreState,
    Save,
    SaveState,
    StopContainer,
)
from ff_cloud.workspaces.settle import Settler
from ff_cloud.workspaces.steps import (
    Admit,
    ApplyLimits,
    AwaitDaemon,
    BindDaemon,
    CheckIsolation,
    EnsureContainer,
    EnsureNewContainer,
    NoteClone,
    PrepareCheckout,
    RemoveVm,
    SeedFor,
)
from ff_core.contract.operation import TERMINATE
from ff_core.world import World


@dataclass(frozen=True, slots=True, kw_only=True)
class Outside:
    """What workspaces need of rooms that stand after them, and of those beside."""

    save: Save
    restore: Restore
    forget: Forget
    copy_journal: CopyJournal
    seed_for: SeedFor
    note_clone: NoteClone
    idle_s: float
    """A VM is put to sleep only when nothing happened in it for so long."""
    upgrade_idle_s: float


def kinds(
    *,
    db: Database,
    engine: Engine,
    daemons: Daemons,
    specs: Specs,
    sealer: Sealer,
    settler: Settler,
    outside: Outside,
    world: World,
) -> list[Kind]:
    """The operations on workspaces, for a worker."""
    footing = Footing(engine, daemons)
    admit = Admit(db, specs, world)
    awake = [
        AwaitDaemon(db, daemons, footing),
        RestoreState(db, daemons, footing, outside.restore),
        BindDaemon(db, daemons, footing),
    ]
    again = [RenewContainer(db, specs), EnsureContainer(db, engine, specs), *awake]
    journal = FinishJournal(db, outside.copy_journal)
    return [
        Kind(
            name=names.PROVISION,
            steps=[
                admit,
                EnsureNewContainer(db, engine, specs),
                AwaitDaemon(db, daemons, footing),
                BindDaemon(db, daemons, footing),
                ApplyLimits(db, engine, footing, specs),
                CheckIsolation(db, engine, footing),
                PrepareCheckout(db, daemons, footing, sealer, outside.seed_for, outside.note_clone),
            ],
            on_settled=settler.provisioned,
        ),
        Kind(name=names.REVIVE, steps=again, on_settled=settler.revived),
        Kind(
            name=names.SUSPEND,
            steps=[
                RestDaemon(db, daemons, world, idle_s=outside.idle_s),
                SaveState(db, footing, outside.save, "stop"),
                journal,
                StopContainer(db, engine, world),
            ],
            commit_step=FinishJournal.name,  # from now on it is being stopped, and whoever needs it wakes it afterwards
            on_settled=settler.rested,
        ),
        Kind(name=names.WAKE, steps=[admit, *again], on_settled=settler.woken),
        Kind(
            name=names.UPGRADE,
            steps=[
                RestDaemon(db, daemons, world, idle_s=outside.upgrade_idle_s),
                SaveState(db, footing, outside.save, "stop"),
                journal,
                *again,
            ],
            on_settled=settler.upgraded,
        ),
        Kind(name=names.CHECKPOINT, steps=[SaveState(db, footing, outside.save, "timer")], on_settled=settler.rested),
        Kind(
            name=TERMINATE,
            steps=[RemoveVm(db, engine), ForgetState(db, outside.forget)],
            forward_only=True,
            on_settled=settler.terminated,
        ),
    ]
