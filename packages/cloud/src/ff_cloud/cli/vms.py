"""``ff-cloud vms``: the VMs of this server as an operator sees them, from the database and the Docker Engine."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Annotated, Any

import typer

from ff_cloud.cli.common import AsJson, DataDir, painted, run, say, settings_with
from ff_cloud.kit.db import Database
from ff_cloud.runtime import database_beside, image_of
from ff_cloud.settings import CloudSettings
from ff_cloud.vms import gc, service
from ff_cloud.vms.engine.base import ContainerSeen, Engine, Observed
from ff_cloud.vms.engine.docker import docker_engine
from ff_cloud.vms.engine.options import EngineOptions
from ff_cloud.vms.image import LATEST
from ff_cloud.vms.model import AnyVm, Desired, Vm
from ff_cloud.workspaces.draining import suspend_running
from ff_core.contract.workspace import VmStatus
from ff_core.errors import FFError, InvalidInput, NotFound
from ff_core.ids import VmId
from ff_core.world import SystemWorld, World

vms_app = typer.Typer(no_args_is_help=True, help="The VMs of this server, beside a running one or without it.")

POLL_S = 0.5
_COLOURS = {
    VmStatus.RUNNING: "green",
    VmStatus.WARM: "cyan",
    VmStatus.FAILED: "red",
    VmStatus.TERMINATING: "yellow",
    VmStatus.CREATING: "yellow",
}

Id = Annotated[str, typer.Argument(metavar="ID", help="Of a VM or of its workspace, or its beginning.")]


@dataclass(frozen=True, slots=True)
class Beside:
    """What the commands work with."""

    settings: CloudSettings
    db: Database
    engine: Engine
    world: World


@vms_app.command("ls")
def ls(as_json: AsJson = False, data_dir: DataDir = None) -> None:
    """All VMs, oldest first: their rows, and how the Docker Engine shows their containers."""
    _beside(data_dir, lambda beside: show_all(beside, as_json=as_json))


@vms_app.command("inspect")
def inspect(id_: Id, as_json: AsJson = False, data_dir: DataDir = None) -> None:
    """One VM from both sides, and what works on it now."""
    _beside(data_dir, lambda beside: show_one(beside, id_, as_json=as_json))


@vms_app.command("drain")
def drain(
    off: Annotated[bool, typer.Option("--off", help="Take new workspaces again.")] = False,
    now: Annotated[bool, typer.Option("--now", help="Suspend what runs too, after a checkpoint, and wait for it.")] = False,
    timeout_s: Annotated[float, typer.Option("--timeout", min=1, max=86_400, help="Seconds to wait with --now.")] = 600.0,
    as_json: AsJson = False,
    data_dir: DataDir = None,
) -> None:
    """Make no new VMs and let the pool run dry. What runs goes on, unless --now. Exit code 1 if something still runs then."""
    if off and now:
        raise InvalidInput("--off and --now contradict each other.")
    _beside(data_dir, lambda beside: set_draining(beside, not off, now=now, timeout_s=timeout_s, as_json=as_json))


@vms_app.command("gc")
def collect(
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would go.")] = False,
    keep_days: Annotated[float, typer.Option(min=0, max=3650, help="Images that are younger stay.")] = 7.0,
    as_json: AsJson = False,
    data_dir: DataDir = None,
) -> None:
    """Remove containers and volumes that have no row, and workspace images that nothing is made from any more."""
    keep = timedelta(days=keep_days)
    _beside(data_dir, lambda beside: collect_garbage(beside, keep, dry_run=dry_run, as_json=as_json))


async def show_all(beside: Beside, *, as_json: bool) -> None:
    """What ``ls`` does."""
    async with beside.db.system_transaction() as tx:
        vms = await service.list_vms(tx)
    seen = await _seen(beside.engine)
    if as_json:
        print(json.dumps([_facts(vm, None if seen is None else seen.get(vm.id)) for vm in vms]))
        return
    rows = [_row(vm, seen, beside.world.now()) for vm in vms]
    _table(("VM", "STATUS", "CONTAINER", "WORKSPACE", "IMAGE", "AGE", "IDLE"), rows, [vm.status for vm in vms])
    known = {vm.id for vm in vms}
    if orphans := [vm_id for vm_id in seen or {} if vm_id not in known]:
        say(f"{len(orphans)} more on the Docker Engine without a row; `ff-cloud vms gc` removes them.")


async def show_one(beside: Beside, wanted: str, *, as_json: bool) -> None:
    """What ``inspect`` does. Raises ``NotFound``, ``InvalidInput``, ``DockerUnreachable``."""
    seen = await _seen(beside.engine)
    async with beside.db.system_transaction() as tx:
        vm_id = find_vm(await service.list_vms(tx), seen or {}, wanted)
    async with beside.db.system_transaction() as tx:
        found = await service.inspect(tx, beside.engine, vm_id)
    facts = {**_whole(found.vm, found.observed), "operation": found.operation}
    if as_json:
        print(json.dumps(facts))
        return
    for name, value in facts.items():
        shown = "-" if value is None else str(value)
        print(f"{name:<20} {painted(shown, _COLOURS.get(value, 'white')) if name == 'status' else shown}")


async def set_draining(beside: Beside, wanted: bool, *, now: bool, timeout_s: float, as_json: bool) -> None:
    """What ``drain`` does. Raises ``typer.Exit`` with 1 when something still runs after ``now``."""
    async with beside.db.system_transaction() as tx:
        await service.set_draining(tx, wanted)
    left = await _suspend_all(beside, timeout_s) if now else await _running(beside.db)
    if as_json:
        print(json.dumps({"draining": wanted, "running": left}))
    elif wanted:
        print(f"Nothing new is made any more. Running VMs: {left}.")
    else:
        print("New workspaces are taken again, and the pool fills.")
    if now and left:
        say("Their suspensions are ordered; a worker carries them out. Look at `ff-cloud vms ls`, and whether one runs.")
        raise typer.Exit(1)


async def collect_garbage(beside: Beside, keep: timedelta, *, dry_run: bool, as_json: bool) -> None:
    """What ``gc`` does. Raises ``DockerUnreachable``."""
    present = (image_of(beside.settings), LATEST)
    found = await gc.find(db=beside.db, engine=beside.engine, present=present, keep=keep, world=beside.world)
    if dry_run:
        orphans, images = [str(seen.vm_id) for seen in found.orphans], [gc.name_of(image) for image in found.images]
        kept, size = [], sum(image.bytes_total for image in found.images)
    else:
        done = await gc.collect(found, beside.engine)
        orphans, images = [str(vm_id) for vm_id in done.orphans], list(done.images)
        kept, size = list(done.images_kept), done.bytes_freed
    if as_json:
        print(json.dumps({"dry_run": dry_run, "vms": orphans, "images": images, "images_kept": kept, "bytes": size}))
        return
    verb = "would remove" if dry_run else "removed"
    for vm_id in orphans:
        print(f"{verb} VM {vm_id}, which has no row")
    for image in images:
        print(f"{verb} image {image}")
    for image in kept:
        print(f"kept image {image}: a container needs it")
    print(f"{verb}: {len(orphans)} VMs, {len(images)} images, {size / 1e6:.0f} MB of layers")


def find_vm(vms: list[AnyVm], seen: Mapping[VmId, Observed], wanted: str) -> VmId:
    """The VM whose id, or whose workspace's id, begins with ``wanted``. Raises ``NotFound``, ``InvalidInput`` for several."""
    begin = wanted.lower()
    found = {vm.id for vm in vms if str(vm.id).startswith(begin)}
    found |= {vm.id for vm in vms if isinstance(vm, Vm) and str(vm.workspace_id).startswith(begin)}
    found |= {vm_id for vm_id in seen if str(vm_id).startswith(begin)}
    if not begin or not found:
        raise NotFound("There is no such VM; `ff-cloud vms ls` lists them.")
    if len(found) > 1:
        raise InvalidInput(f"{len(found)} VMs begin with {wanted!r}; give more of the id.")
    return found.pop()


def _beside(data_dir: Path | None, body: Callable[[Beside], Coroutine[Any, Any, None]]) -> None:
    """Run ``body`` with the database and the engine of the server."""
    settings = settings_with(data_dir=data_dir)

    async def main(stop: asyncio.Event) -> None:
        async with _parts(settings) as beside:
            work = asyncio.ensure_future(body(beside))
            stopped = asyncio.ensure_future(stop.wait())
            try:
                await asyncio.wait({work, stopped}, return_when=asyncio.FIRST_COMPLETED)
                if not work.done():
                    raise typer.Exit(130)
                work.result()
            finally:
                for task in (work, stopped):
                    task.cancel()
                await asyncio.gather(work, stopped, return_exceptions=True)

    run(main)


@asynccontextmanager
async def _parts(settings: CloudSettings) -> AsyncIterator[Beside]:
    async with (
        database_beside(settings) as db,
        docker_engine(settings.deployment_name, url=settings.docker_host, options=EngineOptions.of(settings)) as engine,
    ):
        yield Beside(settings, db, engine, SystemWorld())


async def _seen(engine: Engine) -> dict[VmId, Observed] | None:
    """What the engine shows; None, with a remark, when it does not answer."""
    try:
        return {observed.vm_id: observed for observed in await engine.observe_all()}
    except FFError as error:
        say(f"docker: {error.detail}")
        return None


async def _running(db: Database) -> int:
    async with db.system_transaction() as tx:
        vms = await service.list_vms(tx)
    return sum(isinstance(vm, Vm) and vm.status in {VmStatus.CLAIMED, VmStatus.RUNNING, VmStatus.CREATING} for vm in vms)


async def _suspend_all(beside: Beside, timeout_s: float) -> int:
    """Order the suspension of all that runs, again and again, until nothing does or the time is over; how many still run."""
    left = await _running(beside.db)
    told = None
    try:
        async with asyncio.timeout(timeout_s):
            while left:
                if left != told:
                    say(f"{left} running")
                    told = left
                await suspend_running(beside.db, beside.world)
                await beside.world.sleep(POLL_S)
                left = await _running(beside.db)
    except TimeoutError:
        pass
    return left


def _facts(vm: AnyVm, observed: Observed | None) -> dict[str, Any]:
    container = observed.container if observed is not None else None
    return {
        "id": str(vm.id),
        "status": vm.status.value,
        "desired": vm.desired.value,
        "workspace_id": str(vm.workspace_id) if isinstance(vm, Vm) else None,
        "user_id": str(vm.user_id) if isinstance(vm, Vm) else None,
        "image": vm.image,
        "generation": vm.generation,
        "address": vm.address,
        "health_failures": vm.health_failures,
        "created_at": vm.created_at.isoformat(),
        "warm_at": _iso(vm.warm_at),
        "active_at": vm.active_at.isoformat(),
        "suspended_at": _iso(vm.suspended_at),
        "container": None if container is None else container.state,
        "volume": None if observed is None else observed.volume,
    }


def _whole(vm: AnyVm | None, observed: Observed) -> dict[str, Any]:
    """All that is known, flat."""
    facts: dict[str, Any] = {"id": str(observed.vm_id), "status": None} if vm is None else _facts(vm, observed)
    if vm is not None and vm.limits is not None:
        limits = vm.limits
        facts |= {"memory_bytes": limits.memory_bytes, "cpus": limits.cpus, "pids": limits.pids, "disk_bytes": limits.disk_bytes}
    facts |= {"volume": observed.volume, **_container(observed.container)}
    return facts


def _container(seen: ContainerSeen | None) -> dict[str, Any]:
    if seen is None:
        return {"container": None}
    return {
        "container": seen.state,
        "container_id": seen.id[:12],
        "container_image": seen.image,
        "container_generation": seen.generation,
        "fence": seen.fence,
        "started_at": _iso(seen.started_at),
        "exit_code": seen.exit_code,
        "oom_killed": seen.oom_killed,
    }


def _row(vm: AnyVm, seen: Mapping[VmId, Observed] | None, now: datetime) -> tuple[str, ...]:
    if seen is None:
        container = "?"
    else:
        observed = seen.get(vm.id)
        container = "-" if observed is None or observed.container is None else observed.container.state
    settled = vm.desired is Desired.RUNNING or vm.status.value == vm.desired.value
    status = vm.status.value if settled else f"{vm.status} > {vm.desired}"
    workspace = str(vm.workspace_id) if isinstance(vm, Vm) else "-"
    image = (vm.image or "-").rpartition(":")[2][:12]
    idle = "-" if vm.status is not VmStatus.RUNNING else _ago(now - vm.active_at)
    return (str(vm.id), status, container, workspace, image, _ago(now - vm.created_at), idle)


def _table(head: tuple[str, ...], rows: list[tuple[str, ...]], statuses: list[VmStatus]) -> None:
    widths = [max(len(line[column]) for line in (head, *rows)) for column in range(len(head))]
    print("  ".join(name.ljust(width) for name, width in zip(head, widths, strict=True)).rstrip())
    for row, status in zip(rows, statuses, strict=True):
        cells = [cell.ljust(width) for cell, width in zip(row, widths, strict=True)]
        cells[1] = painted(cells[1], _COLOURS[status]) if status in _COLOURS else cells[1]
        print("  ".join(cells).rstrip())


def _ago(span: timedelta) -> str:
    seconds = max(0, int(span.total_seconds()))
    for size, unit in ((86_400, "d"), (3600, "h"), (60, "m")):
        if seconds >= size:
            return f"{seconds // size}{unit}"
    return f"{seconds}s"


def _iso(moment: datetime | None) -> str | None:
    return None if moment is None else moment.isoformat()
