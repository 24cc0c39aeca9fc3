"""Rules of administration. Who may is checked at the door (scope ``admin``); everything that changes something is recorded."""

from uuid import UUID

from ff_cloud.audit import service as audit
from ff_cloud.auth.recovery import Recovery
from ff_cloud.kit.caller import Caller
from ff_cloud.kit.db import Database, SystemTx
from ff_cloud.kit.origin import Origin
from ff_cloud.users import service as users
from ff_cloud.users.model import Account
from ff_cloud.vms.pool import PoolRules
from ff_cloud.vms.service import pool_view
from ff_cloud.workspaces.orders import waiting
from ff_core.contract.admin import AccountView, ChangeByAdmin, PoolView
from ff_core.contract.audit import AuditEventView
from ff_core.contract.page import Page
from ff_core.ids import UserId
from ff_core.world import World


class Admin:
    """See the module. One per process."""

    def __init__(self, *, db: Database, recovery: Recovery, pool: PoolRules, image: str, world: World) -> None:
        self._db = db
        self._recovery = recovery
        self._pool = pool
        self._image = image
        self._world = world

    async def users(self, *, before: UserId | None, email: str | None, items_max: int) -> list[AccountView]:
        """Accounts, newest first."""
        async with self._db.system_transaction() as tx:
            return [_view(each) for each in await users.page(tx, before=before, email=email, items_max=items_max)]

    async def disable(self, caller: Caller, user_id: UserId, origin: Origin) -> AccountView:
        """Disable an account and end its logins. Raises ``NotFound``, ``LastAdministrator``."""
        async with self._db.system_transaction() as tx:
            account = await users.disable(tx, user_id, self._world.now())
            await self._recovery.end_logins(tx, user_id)
            await self._record(tx, caller, user_id, "account.disabled", origin)
        return _view(account)

    async def enable(self, caller: Caller, user_id: UserId, origin: Origin) -> AccountView:
        """Undo :meth:`disable`. Raises ``NotFound``, also for an account that is being deleted."""
        async with self._db.system_transaction() as tx:
            account = await users.enable(tx, user_id)
            await self._record(tx, caller, user_id, "account.enabled", origin)
        return _view(account)

    async def change(self, caller: Caller, user_id: UserId, request: ChangeByAdmin, origin: Origin) -> AccountView:
        """Move an account to another plan. Raises ``NotFound``, ``PlanUnknown``."""
        async with self._db.system_transaction() as tx:
            account = await users.set_plan(tx, user_id, request.plan)
            await self._record(tx, caller, user_id, "account.plan_changed", origin, plan=request.plan)
        return _view(account)

    async def audit(self, *, before: UUID | None, user_id: UserId | None, items_max: int) -> Page[AuditEventView]:
        """The audit log of everybody, or of one user, newest first."""
        async with self._db.system_transaction() as tx:
            return await audit.page(tx, before=before, items_max=items_max, user_id=user_id)

    async def pool(self) -> PoolView:
        """The warm pool, and the VMs of everybody, counted."""
        async with self._db.system_transaction() as tx:
            return await pool_view(tx, self._pool, self._image, self._world.now(), waiting=await waiting(tx))

    async def _record(
        self, tx: SystemTx, caller: Caller, user_id: UserId, action: str, origin: Origin, plan: str | None = None
    ) -> None:
        # For the user it concerns as well as for the log of the administrator who did it.
        await audit.record(tx, user_id=user_id, action=action, origin=origin, by="administrator", plan=plan)
        if user_id != caller.user_id:
            await audit.record(tx, user_id=caller.user_id, action=f"admin.{action}", origin=origin, of=str(user_id), plan=plan)


def _view(account: Account) -> AccountView:
    return AccountView.model_validate(account, from_attributes=True)
