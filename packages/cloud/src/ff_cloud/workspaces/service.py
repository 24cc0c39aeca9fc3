"""The rules of workspaces: order one, find one, delete one. Nobody here touches the network or commits."""

from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import timedelta

from ff_cloud.kit.crypto import Sealer
from ff_cloud.kit.db import Tx
from ff_cloud.operations.errors import OperationActive, OperationNotCancellable
from ff_cloud.operations.repository import OperationRepository
from ff_cloud.operations.service import request_cancel, start
from ff_cloud.users import plans
from ff_cloud.users.model import Plan
from ff_cloud.users.plans import Countable
from ff_cloud.vms.access import Target
from ff_cloud.vms.admission import REASONS
from ff_cloud.vms.model import Vm
from ff_cloud.vms.repository import VmRepository
from ff_cloud.workspaces.errors import ServerFull, WorkspaceElsewhere, WorkspaceMoving, WorkspaceNotReady
from ff_cloud.workspaces.kinds import ADMIT, CLAIMED_STEPS_DONE, PROVISION
from ff_cloud.workspaces.repository import GONE, Workspace, WorkspaceRepository
from ff_core.contract.operation import TERMINATE
from ff_core.contract.places import Location
from ff_core.contract.plans import CountLimitView, LimitsView
from ff_core.contract.workspace import NewWorkspace, VmStatus, WorkspaceStatus, WorkspaceView
from ff_core.errors import NotFound
from ff_core.git.remote import check_branch, parse_repo_url
from ff_core.ids import OperationId, VmId, WorkspaceId
from ff_core.world import World

CLAIM_GRACE_S = 10.0
"""For the request that claimed a VM to bind it; then the workspace's operation does."""

NOT_YOURS = "There is no such workspace, or it is not yours; `ff ls` lists what you have."
TOUCH_EVERY = timedelta(minutes=1)
"""Use is noted to the minute: not every command is worth a write."""

_NOT_READY = {
    WorkspaceStatus.NEW: "This workspace is about to be prepared; try again in a moment.",
    WorkspaceStatus.PROVISIONING: "This workspace is still being prepared; try again when its status is READY.",
    WorkspaceStatus.FAILED: "This workspace failed and can only be deleted: ",
    WorkspaceStatus.ARCHIVING: "This workspace is being deleted.",
    WorkspaceStatus.ARCHIVED: "This workspace was deleted.",
}


@dataclass(frozen=True, slots=True)
class Rules:
    """The settings the rules depend on. ``image`` is what VMs are made from now."""

    allow_plain_http: bool
    provision_deadline_s: float
    terminate_deadline_s: float
    image: str


@dataclass(frozen=True, slots=True)
class Found:
    """A workspace and its VM, as one transaction saw them."""

    workspace: Workspace
    vm: Vm | None

    def view(self, vm: Vm | None = None) -> WorkspaceView:
        """What the API shows of it; ``vm`` is newer than the one found."""
        known = vm or self.vm
        return self.workspace.view(known.view() if known is not None else None)

    @property
    def target(self) -> Target | None:
        """Whom to talk to, when its daemon should answer now."""
        if self.vm is None or not self.vm.reachable or self.workspace.desired == GONE:
            return None
        if self.workspace.location is not Location.CLOUD:
            return None  # what is here of it is a copy
        return target_of(self.workspace, self.vm)


class WorkspaceService:
    """See the module. One per process; each call is one part of the caller's transaction.

    ``on_delete`` gives up what a later room has begun with a workspace that is to go.
    """

    def __init__(
        self,
        *,
        rules: Rules,
        sealer: Sealer,
        world: World,
        on_refused: Callable[[str], None] = lambda _reason: None,
        on_delete: Callable[[Tx, WorkspaceId], Awaitable[None]] | None = None,
    ) -> None:
        self._rules = rules
        self._on_delete = on_delete
        self._sealer = sealer
        self._world = world
        self._on_refused = on_refused

    async def order(self, tx: Tx, wanted: NewWorkspace) -> Found:
        """Write down a new workspace, its VM and the operation that makes it READY.

        A warm VM is claimed when there is one; whoever calls this binds it once the transaction has committed
        (:mod:`ff_cloud.workspaces.claims`). Otherwise the operation makes one. Raises ``WorkspaceNameTaken``,
        ``PlanLimitReached``, ``ServerFull``, and the git room's errors for a bad URL or branch.
        """
        self.check_address(wanted.repo_url)
        if wanted.branch is not None:
            check_branch(wanted.branch)
        workspaces, vms = WorkspaceRepository(tx), VmRepository(tx)
        plan = await self.require_admission(tx, another=True)
        workspace_id, operation_id = WorkspaceId(self._world.new_id()), OperationId(self._world.new_id())
        token = wanted.repo_token.get_secret_value() if wanted.repo_token else None
        workspace = await workspaces.insert(
            workspace_id,
            wanted,
            repo_token_sealed=self._sealer.seal(token, token_context(workspace_id)) if token else None,
            operation_id=operation_id,
            deadline_s=self._rules.provision_deadline_s,
        )
        vm = await vms.claim(workspace_id, image=self._rules.image, runtime=plan.vm_runtime)
        claimed = vm is not None
        if vm is None:
            vm_id = VmId(self._world.new_id())
            vm = await vms.insert(vm_id, workspace_id, image=self._rules.image, runtime=plan.vm_runtime)
        await start(
            tx,
            PROVISION,
            id=operation_id,
            key=str(workspace_id),
            user_id=tx.user_id,
            input={},
            world=self._world,
            delay_s=CLAIM_GRACE_S if claimed else 0.0,
            done=CLAIMED_STEPS_DONE if claimed else 0,
        )
        return Found(workspace, vm)

    def check_address(self, repo_url: str | None) -> None:
        """Raise the git room's errors for an address that nothing can be cloned from."""
        if repo_url is not None:
            parse_repo_url(repo_url, allow_plain_http=self._rules.allow_plain_http)

    async def require_admission(self, tx: Tx, *, another: bool) -> Plan:
        """The caller's plan, held, if it and the machine have room for one more VM, and for ``another`` workspace.

        Raises ``PlanLimitReached``, ``ServerFull``.
        """
        plan = await plans.hold(tx)
        if another:
            plans.require_room(plan, Countable.WORKSPACES, await WorkspaceRepository(tx).count())
        running, refusing = await VmRepository(tx).standing()
        plans.require_room(plan, Countable.RUNNING_VMS, running)
        if refusing is not None:
            self._on_refused(refusing)
            raise ServerFull(REASONS.get(refusing), reason=refusing)
        return plan

    async def get(self, tx: Tx, workspace_id: WorkspaceId) -> WorkspaceView:
        """One workspace of the caller. Raises ``NotFound``, also for a stranger's."""
        return (await self._views(tx, [await self._find(tx, workspace_id)]))[0]

    async def page(self, tx: Tx, *, before: WorkspaceId | None, name: str | None, items_max: int) -> list[WorkspaceView]:
        """Newest first."""
        return await self._views(tx, await WorkspaceRepository(tx).page(before=before, name=name, items_max=items_max))

    async def limits(self, tx: Tx) -> LimitsView:
        """What the caller's plan allows, and what of it is used."""
        plan = await plans.of(tx, tx.user_id)
        return LimitsView(
            plan=plan.name,
            workspaces=CountLimitView(used=await WorkspaceRepository(tx).count(), max=plan.workspaces_max),
            running_vms=CountLimitView(used=await VmRepository(tx).count_running(), max=plan.running_vms_max),
            vm_cpus=plan.vm_cpus,
            vm_memory_bytes=plan.vm_memory_bytes,
            vm_disk_bytes=plan.vm_disk_bytes,
        )

    async def delete(self, tx: Tx, workspace_id: WorkspaceId) -> OperationId:
        """Have it deleted, in whatever state it is; may be repeated. Returns the operation to follow.

        An operation that runs on it is cancelled and undoes itself first; the deletion follows by itself
        (:mod:`ff_cloud.workspaces.settle`).
        """
        workspace = await self._find(tx, workspace_id, lock=True)
        workspaces = WorkspaceRepository(tx)
        await workspaces.want_gone(workspace_id)
        if self._on_delete is not None:
            await self._on_delete(tx, workspace_id)
        active = await OperationRepository(tx).active(str(workspace_id))
        if active is None:
            try:
                operation = await start(
                    tx,
                    TERMINATE,
                    key=str(workspace_id),
                    user_id=tx.user_id,
                    input={},
                    world=self._world,
                    cancellable=False,
                )
            except OperationActive:  # begun by a loop since we looked, such as a checkpoint
                active = await OperationRepository(tx).active(str(workspace_id))
                if active is None:
                    raise
            else:
                if workspace.status is WorkspaceStatus.PROVISIONING:  # one that a desktop was about to send
                    await workspaces.move(workspace, WorkspaceStatus.FAILED)
                    workspace = replace(workspace, status=WorkspaceStatus.FAILED)
                if workspace.status is not WorkspaceStatus.ARCHIVING:
                    await workspaces.move(workspace, WorkspaceStatus.ARCHIVING)
                await workspaces.set_operation(workspace_id, operation, self._rules.terminate_deadline_s)
                return operation
        if active.kind != TERMINATE:
            with suppress(OperationNotCancellable):  # it ends soon, and the deletion follows
                await request_cancel(tx, str(workspace_id))
        return active.id

    async def look(self, tx: Tx, workspace_id: WorkspaceId) -> Found:
        """The workspace and its VM, for something to be begun in it.

        Raises ``NotFound``, ``WorkspaceNotReady`` when it will never answer again, ``WorkspaceElsewhere``, ``WorkspaceMoving``.
        """
        workspace = await WorkspaceRepository(tx).look(workspace_id)
        if workspace is None:
            raise NotFound(NOT_YOURS)
        require_here(workspace)
        if workspace.desired == GONE or workspace.status not in {WorkspaceStatus.READY, WorkspaceStatus.PROVISIONING}:
            raise WorkspaceNotReady(_why_not(workspace), workspace_status=workspace.status)
        return await self.with_vm(tx, workspace)

    async def look_ready(self, tx: Tx, workspace_id: WorkspaceId) -> Found:
        """Like :meth:`look`; raises ``WorkspaceNotReady`` also for one that is still being prepared."""
        found = await self.look(tx, workspace_id)
        if found.workspace.status is not WorkspaceStatus.READY:
            raise WorkspaceNotReady(_why_not(found.workspace), workspace_status=found.workspace.status)
        return found

    async def with_vm(self, tx: Tx, workspace: Workspace) -> Found:
        """A workspace with its VM."""
        return Found(workspace, await VmRepository(tx).of_workspace(workspace.id))

    async def require_room_to_run(self, tx: Tx) -> None:
        """Raise ``PlanLimitReached`` unless the caller's plan lets one more VM run."""
        plan = await plans.hold(tx)
        plans.require_room(plan, Countable.RUNNING_VMS, await VmRepository(tx).count_running())

    async def touch(self, tx: Tx, workspace: Workspace) -> None:
        """Note that its user uses it, to the minute."""
        if self._world.now() - workspace.last_active_at > TOUCH_EVERY:
            await WorkspaceRepository(tx).touch(workspace.id)

    async def find(self, tx: Tx, workspace_id: WorkspaceId) -> Workspace | None:
        """The workspace, or None when it is gone or not the caller's."""
        return await WorkspaceRepository(tx).get(workspace_id)

    async def _find(self, tx: Tx, workspace_id: WorkspaceId, *, lock: bool = False) -> Workspace:
        workspace = await WorkspaceRepository(tx).get(workspace_id, lock=lock)
        if workspace is None:
            raise NotFound(NOT_YOURS)
        return workspace

    async def _views(self, tx: Tx, found: list[Workspace]) -> list[WorkspaceView]:
        vms = await VmRepository(tx).of_workspaces([workspace.id for workspace in found])
        return [
            workspace.view(
                vms[workspace.id].view() if workspace.id in vms else None,
                queue_place=await self._queue_place(tx, workspace, vms.get(workspace.id)),
            )
            for workspace in found
        ]

    async def _queue_place(self, tx: Tx, workspace: Workspace, vm: Vm | None) -> int | None:
        """Its place among those that wait for room; None when it does not wait."""
        held = vm is None or vm.admitted_at is not None or vm.status not in {VmStatus.CREATING, VmStatus.SUSPENDED}
        if held or workspace.status not in {WorkspaceStatus.PROVISIONING, WorkspaceStatus.READY}:
            return None
        active = await OperationRepository(tx).active(str(workspace.id))
        place = active.state.get("queue_place") if active is not None and active.step_name == ADMIT else None
        return place if isinstance(place, int) else None


def token_context(workspace_id: WorkspaceId) -> str:
    """What a sealed repository token belongs to."""
    return f"workspace:{workspace_id}:repo_token"


def target_of(workspace: Workspace, vm: Vm) -> Target:
    """Whom the daemon of a workspace's VM serves, and what it is to know of that. Pure."""
    return Target(
        workspace_id=workspace.id,
        name=workspace.name,
        vm=vm,
        existing=workspace.status is WorkspaceStatus.READY,
        location=workspace.location,
        epoch=workspace.epoch,
        handoff_id=workspace.handoff_id,
    )


def require_here(workspace: Workspace) -> None:
    """Raise ``WorkspaceElsewhere`` or ``WorkspaceMoving`` unless work may begin in it here. Pure."""
    if workspace.location is not Location.CLOUD:
        raise WorkspaceElsewhere(
            f"This workspace lives on {workspace.desktop_name or 'a desktop'} now; work goes on there, or here again after: "
            f"ff send {workspace.name}",
            location=workspace.location,
            epoch=workspace.epoch,
            desktop=workspace.desktop_name,
        )
    if workspace.moving is not None:
        raise WorkspaceMoving(handoff_id=str(workspace.moving))


def _why_not(workspace: Workspace) -> str:
    if workspace.desired == GONE:
        return "This workspace is being deleted."
    detail = workspace.error.message if workspace.error else ""
    return (_NOT_READY[workspace.status] + detail).strip()
