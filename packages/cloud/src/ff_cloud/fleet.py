"""Everything that makes VMs and keeps them, put together for a worker: its operations and its loops."""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from datetime import timedelta

from ff_cloud.handoffs.deciding import Deciding
from ff_cloud.handoffs.operations import kinds as handoff_kinds
from ff_cloud.handoffs.pieces import Pieces
from ff_cloud.handoffs.settle import HandoffSettler
from ff_cloud.handoffs.sweep import HandoffSweep
from ff_cloud.kit.crypto import Sealer
from ff_cloud.kit.db import Database
from ff_cloud.kit.rounds import rounds
from ff_cloud.kit.secrets import Secrets
from ff_cloud.kit.telemetry import Telemetry
from ff_cloud.operations.model import Kind, Operation, Status
from ff_cloud.settings import CloudSettings
from ff_cloud.vms.access import Daemons
from ff_cloud.vms.admission import AdmissionRules
from ff_cloud.vms.capacity import CapacityWatch
from ff_cloud.vms.census import EVERY_S as VMS_EVERY_S
from ff_cloud.vms.census import VmCensus
from ff_cloud.vms.changes import VmChanges
from ff_cloud.vms.engine.base import Engine, Limits
from ff_cloud.vms.health import HealthCheck
from ff_cloud.vms.plan import PlanRules
from ff_cloud.vms.pool import PoolRules
from ff_cloud.vms.reconcile import Reconciler
from ff_cloud.vms.refill import Refill
from ff_cloud.vms.specs import Specs
from ff_cloud.vms.steps import kinds as vm_kinds
from ff_cloud.workspaces.operations import Outside
from ff_cloud.workspaces.operations import kinds as workspace_kinds
from ff_cloud.workspaces.orders import Orders, waiting
from ff_cloud.workspaces.saver import Saver
from ff_cloud.workspaces.service import Rules
from ff_cloud.workspaces.settle import Settler
from ff_cloud.workspaces.sweep import Sweep
from ff_core.world import World

CAPACITY_EVERY_S = 5.0
SAVER_EVERY_S = 5.0
POOL_EVERY_S = 5.0


@dataclass(frozen=True, slots=True)
class Fleet:
    """``kinds`` are the operations, ``loops`` run until cancelled, ``reconcile`` is one look at everything, to be had first.

    ``ended`` wants to be told of every operation that ended.
    """

    kinds: list[Kind]
    loops: Mapping[str, Callable[[], Awaitable[None]]]
    reconcile: Callable[[], Awaitable[None]]
    ended: Callable[[Operation], None]


def rules_of(settings: CloudSettings, image: str) -> Rules:
    """What the rules of workspaces depend on."""
    return Rules(
        allow_plain_http=settings.allow_plain_http_repos,
        provision_deadline_s=settings.provision_deadline_s,
        terminate_deadline_s=settings.terminate_deadline_s,
        image=image,
    )


def pool_rules_of(settings: CloudSettings) -> PoolRules:
    """The settings of the pool."""
    fixed = settings.pool_size
    return PoolRules(
        vms_min=settings.pool_min if fixed is None else fixed,
        vms_max=max(settings.pool_min, settings.pool_max) if fixed is None else fixed,
        at_once_max=settings.pool_at_once,
        age_max=timedelta(seconds=settings.pool_age_max_s),
    )


def make_fleet(
    *,
    settings: CloudSettings,
    db: Database,
    secrets: Secrets,
    engine: Engine,
    daemons: Daemons,
    image: str,
    outside: Outside,
    deciding: Deciding,
    pieces: Pieces,
    world: World,
    telemetry: Telemetry,
) -> Fleet:
    """Build it. Nothing runs yet."""
    pulse = telemetry.heartbeats.pulse
    specs = Specs(
        image=image,
        limits=Limits(settings.vm_memory_bytes, settings.vm_cpus, settings.vm_pids_max),
        secret=secrets.vm_token_key,
        environment={"FF_ALLOW_PLAIN_HTTP": "1"} if settings.allow_plain_http_repos else {},
    )
    settler = Settler(world=world, terminate_deadline_s=settings.terminate_deadline_s)
    orders = Orders(db=db, world=world)
    changes = VmChanges(db, world)
    pool_rules = pool_rules_of(settings)
    idle_max = timedelta(seconds=settings.suspend_after_s) if settings.suspend_after_s else None
    reconciler = Reconciler(
        db=db,
        engine=engine,
        wanted=orders.wanted,
        orders=orders.by_act(),
        rules=PlanRules(idle_max=idle_max, warm_age_max=pool_rules.age_max),
        image=image,
        world=world,
        every_s=settings.sweep_interval_s,
        pulse=pulse("reconcile", every_s=settings.sweep_interval_s),
    )
    health = HealthCheck(
        db=db,
        daemons=daemons,
        target_of=orders.target_of,
        wake=reconciler.wake,
        world=world,
        every_s=settings.health_interval_s,
        on_failure=telemetry.metrics.vms.health_failed,
        pulse=pulse("health", every_s=settings.health_interval_s),
    )
    capacity = CapacityWatch(
        db=db,
        engine=engine,
        rules=AdmissionRules(
            vms_max=settings.vms_max,
            vm_reserve_bytes=settings.vm_reserve_bytes,
            memory_free_bytes_min=settings.memory_free_bytes_min,
            disk_free_bytes_min=settings.disk_free_bytes_min,
            vms_per_cpu_max=settings.vms_per_cpu_max,
        ),
        waiting=waiting,
        world=world,
        every_s=CAPACITY_EVERY_S,
        pulse=pulse("capacity", every_s=CAPACITY_EVERY_S),
    )
    refill = Refill(
        db=db,
        changes=changes,
        rules=pool_rules,
        image=image,
        waiting=waiting,
        world=world,
        pulse=pulse("pool", every_s=POOL_EVERY_S),
    )
    census = VmCensus(
        db=db,
        rules=pool_rules,
        image=image,
        waiting=waiting,
        metrics=telemetry.metrics,
        world=world,
        pulse=pulse("vms", every_s=VMS_EVERY_S),
    )
    saver = Saver(
        db=db,
        orders=orders,
        world=world,
        every_s=settings.checkpoint_every_s,
        on_look=telemetry.metrics.checkpoints.oldest_unsaved,
        pulse=pulse("saver", every_s=SAVER_EVERY_S),
    )
    sweep = Sweep(
        db=db,
        settler=settler,
        world=world,
        every_s=settings.sweep_interval_s,
        pulse=pulse("sweep", every_s=settings.sweep_interval_s),
    )

    handoff_sweep = HandoffSweep(
        db=db,
        deciding=deciding,
        pieces=pieces,
        metrics=telemetry.metrics.handoffs,
        world=world,
        every_s=settings.sweep_interval_s,
        pulse=pulse("handoffs", every_s=settings.sweep_interval_s),
    )
    handoff_settler = HandoffSettler(
        settler=settler,
        deciding=deciding,
        expires_s=settings.handoff_expires_s,
        metrics=telemetry.metrics.handoffs,
        world=world,
    )

    async def ground() -> None:
        every_s = settings.sweep_interval_s
        await rounds("ground", lambda: engine.prepare(image), lambda: world.sleep(every_s), pulse("ground", every_s=every_s))

    def ended(op: Operation) -> None:
        # What happened to a VM while something was done with it was looked past; and what was begun may be half there.
        if op.status is not Status.DONE:
            reconciler.wake()

    return Fleet(
        kinds=[
            *vm_kinds(db=db, engine=engine, daemons=daemons, specs=specs, world=world),
            *workspace_kinds(
                db=db,
                engine=engine,
                daemons=daemons,
                specs=specs,
                sealer=Sealer(secrets.sealing_key),
                settler=settler,
                outside=outside,
                world=world,
            ),
            *handoff_kinds(
                db=db,
                engine=engine,
                daemons=daemons,
                specs=specs,
                sealer=Sealer(secrets.sealing_key),
                settler=handoff_settler,
                pieces=pieces,
                outside=outside,
                expires_s=settings.handoff_expires_s,
                world=world,
            ),
        ],
        loops={
            "changes": changes.run,
            "ground": ground,
            "capacity": capacity.run,
            "vms": census.run,
            "reconcile": reconciler.run,
            "health": health.run,
            "pool": refill.run,
            "saver": saver.run,
            "sweep": sweep.run,
            "handoffs": handoff_sweep.run,
        },
        reconcile=reconciler.once,
        ended=ended,
    )
