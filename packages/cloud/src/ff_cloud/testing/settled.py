"""Whether everything is in order: nothing under way, nothing without its partner, nothing lost. Asked after every bad thing."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from uuid import UUID

from sqlalchemy import text

from ff_cloud.kit.db import Database
from ff_cloud.operations import service as operations
from ff_cloud.vms.access import Daemons
from ff_cloud.vms.engine.base import Engine, Observed
from ff_cloud.vms.model import AnyVm, Vm
from ff_cloud.vms.repository import SystemVmRepository
from ff_cloud.workspaces.repository import GONE
from ff_core.contract.places import Location
from ff_core.contract.workspace import VmStatus, WorkspaceStatus
from ff_core.errors import FFError
from ff_core.ids import VmId, WorkspaceId

LOOK_S = 0.1
LOOKS_MIN = 2
"""So often in a row all must be well: what is about to begin is not in order."""

_WORKSPACES = text("select id, status, desired, location, moving from workspaces order by id")
_STUCK = text("select kind, key, step_name, error_code from operations where status = 'stuck'")
_GAPS = text("""
    select workspace_id, count(*) as found, min(seq) as first, max(seq) as last from events
    group by workspace_id having count(*) <> max(seq) or min(seq) <> 1
""")
_STEADY = {VmStatus.WARM, VmStatus.RUNNING, VmStatus.SUSPENDED, VmStatus.FAILED}


@dataclass(frozen=True)
class _Workspace:
    id: WorkspaceId
    status: WorkspaceStatus
    desired: str
    location: Location
    moving: UUID | None


async def until_settled(db: Database, engine: Engine, daemons: Daemons, *, timeout_s: float = 30.0) -> None:
    """Return once everything is in order. Raises ``AssertionError`` with what is not, after ``timeout_s``."""
    loop = asyncio.get_running_loop()
    deadline = loop.time() + timeout_s
    well = 0
    while True:
        wrong = await disorder(db, engine, daemons)
        well = 0 if wrong else well + 1
        if well >= LOOKS_MIN:
            return
        if loop.time() > deadline:
            raise AssertionError("\n".join([f"not in order after {timeout_s:g} s:", *wrong]))
        await asyncio.sleep(LOOK_S)


async def disorder(db: Database, engine: Engine, daemons: Daemons) -> Sequence[str]:
    """What is not as it must be when nothing is under way; empty when all is well. One sentence each."""
    async with db.system_transaction() as tx:
        active = sorted(await operations.active_keys(tx))
        stuck = (await tx.execute(_STUCK)).all()
        rows = {vm.id: vm for vm in await SystemVmRepository(tx).everything()}
        found = (await tx.execute(_WORKSPACES)).all()
        gaps = (await tx.execute(_GAPS)).all()
    wrong = [f"an operation is active on {key}" for key in active] + [f"an operation is stuck: {each}" for each in stuck]
    wrong += [f"a journal has a gap: {each}" for each in gaps]
    try:
        seen = {observed.vm_id: observed for observed in await engine.observe_all()}
    except FFError as error:
        return [*wrong, f"the engine is away: {error}"]
    workspaces = {
        WorkspaceId(row.id): _Workspace(
            WorkspaceId(row.id), WorkspaceStatus(row.status), row.desired, Location(row.location), row.moving
        )
        for row in found
    }
    wrong += [f"nobody knows of the VM {vm_id}" for vm_id in seen.keys() - rows.keys()]
    for vm in rows.values():
        wrong += _of_vm(vm, seen.get(vm.id))
    owned = {vm.workspace_id: vm for vm in rows.values() if isinstance(vm, Vm)}
    wrong += [f"the VM of {workspace_id} has outlived it" for workspace_id in owned.keys() - workspaces.keys()]
    for workspace in workspaces.values():
        wrong += _of_workspace(workspace, owned.get(workspace.id))
    if not wrong:
        wrong += [line for vm in rows.values() for line in await _of_daemon(vm, daemons)]
    return wrong


def _of_vm(vm: AnyVm, seen: Observed | None) -> list[str]:
    running = seen is not None and seen.container is not None and seen.container.running
    should = vm.status in {VmStatus.WARM, VmStatus.RUNNING}
    wrong = []
    if vm.status not in _STEADY:
        wrong.append(f"the VM {vm.id} is {vm.status}")
    if running != should:
        wrong.append(f"the container of {vm.id} {'runs' if running else 'does not run'}, which is {vm.status}")
    if should and seen is not None and seen.container is not None and seen.container.generation != vm.generation:
        wrong.append(f"the container of {vm.id} is of generation {seen.container.generation}, not {vm.generation}")
    if isinstance(vm, Vm) == (vm.status is VmStatus.WARM):
        wrong.append(f"the VM {vm.id} is {vm.status} and {'has' if isinstance(vm, Vm) else 'has no'} owner")
    return wrong


def _of_workspace(workspace: _Workspace, vm: Vm | None) -> list[str]:
    name = f"the workspace {workspace.id}"
    if workspace.desired == GONE:
        return [f"{name} should be gone and is {workspace.status}"]
    if workspace.moving is not None:
        return [f"{name} is on the move"]
    if workspace.location is Location.DESKTOP:
        there = workspace.status in {WorkspaceStatus.READY, WorkspaceStatus.FAILED}
        fine = there and (vm is None or vm.status in {VmStatus.SUSPENDED, VmStatus.FAILED})
        return [] if fine else [f"{name} is elsewhere, {workspace.status} here, and its VM is {vm.status if vm else 'gone'}"]
    if workspace.status is WorkspaceStatus.READY:
        fine = vm is not None and vm.status in {VmStatus.RUNNING, VmStatus.SUSPENDED}
        return [] if fine else [f"{name} is READY and its VM is {vm.status if vm else 'gone'}"]
    if workspace.status is WorkspaceStatus.FAILED:
        return [] if vm is None or vm.status is VmStatus.FAILED else [f"{name} is FAILED and its VM is {vm.status}"]
    return [f"{name} is {workspace.status}"]


async def _of_daemon(vm: AnyVm, daemons: Daemons) -> list[str]:
    if vm.status not in {VmStatus.WARM, VmStatus.RUNNING}:
        return []
    try:
        health = await daemons.client(vm).health()
    except FFError as error:
        return [f"the daemon of {vm.id} does not answer: {error}"]
    if health.moving is not None:
        return [f"the daemon of {vm.id} is frozen by {health.moving}"]
    owner = vm.workspace_id if isinstance(vm, Vm) else None
    if health.workspace_id != owner:
        return [f"the daemon of {vm.id} belongs to {health.workspace_id}, not to {owner}"]
    if health.resting:
        return [f"the daemon of {vm.id} rests"]
    return []


async def vm_ids(db: Database) -> set[VmId]:
    """All VMs that have a row."""
    async with db.system_transaction() as tx:
        return {vm.id for vm in await SystemVmRepository(tx).everything()}
