"""The rules of workspaces: order one, find one, delete one. Nobody here touches the network or commits."""

from contextlib import suppress
from dataclasses import dataclass

from ff_cloud.kit.crypto import Sealer
from ff_cloud.kit.db import Tx
from ff_cloud.operations.errors import OperationNotCancellable
from ff_cloud.operations.repository import OperationRepository
from ff_cloud.operations.service import request_cancel, start
from ff_cloud.users import plans
from ff_cloud.users.plans import Countable
from ff_cloud.vms.access import Target
from ff_cloud.vms.repository import VmRepository
from ff_cloud.workspaces.errors import WorkspaceNotReady
from ff_cloud.workspaces.repository import GONE, Workspace, WorkspaceRepository
from ff_core.contract.plans import CountLimitView, LimitsView
from ff_core.contract.workspace import NewWorkspace, WorkspaceStatus, WorkspaceView
from ff_core.errors import NotFound
from ff_core.git.remote import check_branch, parse_repo_url
from ff_core.ids import OperationId, VmId, WorkspaceId
from ff_core.world import World

PROVISION = "provision"
TERMINATE = "terminate"
REVIVE = "revive"

_NOT_READY = {
    WorkspaceStatus.NEW: "This workspace is about to be prepared; try again in a moment.",
    WorkspaceStatus.PROVISIONING: "This workspace is still being prepared; try again when its status is READY.",
    WorkspaceStatus.FAILED: "This workspace failed to start and can only be deleted: ",
    WorkspaceStatus.ARCHIVING: "This workspace is being deleted.",
    WorkspaceStatus.ARCHIVED: "This workspace was deleted.",
}


@dataclass(frozen=True, slots=True)
class Rules:
    """The settings the rules depend on."""

    allow_plain_http: bool
    provision_deadline_s: float
    terminate_deadline_s: float


class WorkspaceService:
    """See the module. One per process; each call is one part of the caller's transaction."""

    def __init__(self, *, rules: Rules, sealer: Sealer, world: World) -> None:
        self._rules = rules
        self._sealer = sealer
        self._world = world

    async def order(self, tx: Tx, wanted: NewWorkspace) -> WorkspaceView:
        """Write down a new workspace, its VM and the operation that makes both real.

        Raises ``WorkspaceNameTaken``, ``PlanLimitReached``, and the git room's errors for a bad URL or branch.
        """
        if wanted.repo_url is not None:
            parse_repo_url(wanted.repo_url, allow_plain_http=self._rules.allow_plain_http)
        if wanted.branch is not None:
            check_branch(wanted.branch)
        workspaces = WorkspaceRepository(tx)
        plan = await plans.hold(tx)
        plans.require_room(plan, Countable.WORKSPACES, await workspaces.count())
        plans.require_room(plan, Countable.RUNNING_VMS, await VmRepository(tx).count_running())
        workspace_id = WorkspaceId(self._world.new_id())
        token = wanted.repo_token.get_secret_value() if wanted.repo_token else None
        sealed = self._sealer.seal(token, token_context(workspace_id)) if token else None
        await workspaces.insert(workspace_id, wanted, repo_token_sealed=sealed)
        await VmRepository(tx).insert(VmId(self._world.new_id()), workspace_id)
        await self._start(tx, PROVISION, workspace_id, self._rules.provision_deadline_s)
        return await self.get(tx, workspace_id)

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
        active = await OperationRepository(tx).active(str(workspace_id))
        if active is None:
            if workspace.status is not WorkspaceStatus.ARCHIVING:
                await workspaces.move(workspace, WorkspaceStatus.ARCHIVING)
            return await self._start(tx, TERMINATE, workspace_id, self._rules.terminate_deadline_s, cancellable=False)
        if active.kind != TERMINATE:
            with suppress(OperationNotCancellable):  # it ends soon, and the deletion follows
                await request_cancel(tx, str(workspace_id))
        return active.id

    async def target(self, tx: Tx, workspace_id: WorkspaceId) -> Target:
        """The workspace's VM, to talk to. Raises ``NotFound``, ``WorkspaceNotReady``."""
        workspace = await self._find(tx, workspace_id)
        found = await self.target_of(tx, workspace)
        if found is None:
            raise WorkspaceNotReady(_why_not(workspace), workspace_status=workspace.status)
        return found

    async def target_of(self, tx: Tx, workspace: Workspace) -> Target | None:
        """The VM to talk to, or None while there is none."""
        if workspace.status is not WorkspaceStatus.READY or workspace.desired == GONE:
            return None
        vms = await VmRepository(tx).of_workspaces([workspace.id])
        return Target(workspace.id, workspace.name, vms[workspace.id]) if workspace.id in vms else None

    async def touch(self, tx: Tx, workspace_id: WorkspaceId) -> None:
        """Note that its user uses it."""
        await WorkspaceRepository(tx).touch(workspace_id)

    async def find(self, tx: Tx, workspace_id: WorkspaceId) -> Workspace | None:
        """The workspace, or None when it is gone or not the caller's."""
        return await WorkspaceRepository(tx).get(workspace_id)

    async def _start(
        self, tx: Tx, kind: str, workspace_id: WorkspaceId, deadline_s: float, *, cancellable: bool = True
    ) -> OperationId:
        operation = await start(
            tx, kind, key=str(workspace_id), user_id=tx.user_id, input={}, world=self._world, cancellable=cancellable
        )
        await WorkspaceRepository(tx).set_operation(workspace_id, operation, deadline_s)
        return operation

    async def _find(self, tx: Tx, workspace_id: WorkspaceId, *, lock: bool = False) -> Workspace:
        workspace = await WorkspaceRepository(tx).get(workspace_id, lock=lock)
        if workspace is None:
            message = "There is no such workspace, or it is not yours; `ff ls` lists what you have."
            raise NotFound(message)
        return workspace

    async def _views(self, tx: Tx, found: list[Workspace]) -> list[WorkspaceView]:
        vms = await VmRepository(tx).of_workspaces([workspace.id for workspace in found])
        return [workspace.view(vms[workspace.id].view() if workspace.id in vms else None) for workspace in found]


def token_context(workspace_id: WorkspaceId) -> str:
    """What a sealed repository token belongs to."""
    return f"workspace:{workspace_id}:repo_token"


def _why_not(workspace: Workspace) -> str:
    if workspace.desired == GONE:
        return "This workspace is being deleted."
    if workspace.status is WorkspaceStatus.READY:
        return "This workspace has no VM just now; try again in a moment."
    detail = workspace.error.message if workspace.error else ""
    return (_NOT_READY[workspace.status] + detail).strip()
