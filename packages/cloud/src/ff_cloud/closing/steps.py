"""The operation ``close_account``: remove every workspace, then the account. It can only go forward."""

from collections.abc import Awaitable, Callable

from ff_cloud.closing.service import CLOSE_ACCOUNT, user_of
from ff_cloud.kit.db import Database, SystemTx
from ff_cloud.operations.model import Effects, Kind, Operation, Step
from ff_cloud.operations.service import forget_user
from ff_cloud.users import service as users
from ff_cloud.workspaces.service import WorkspaceService
from ff_core.errors import Conflict
from ff_core.ids import UserId
from ff_core.world import World

LOOK_EVERY_S = 0.5
WAIT_S = 10.0
"""How long one attempt waits. Then it lets its place in the worker go: deletions it waits for may need that one."""
PAGE_MAX = 100

Forget = Callable[[UserId], Awaitable[None]]
"""Must be safe to repeat."""


class StillTerminating(Conflict):
    """The workspaces of this account are still being deleted."""

    code = "account_still_terminating"


class TerminateWorkspaces(Step):
    """Have all workspaces deleted as their user would, in whatever state they are, and wait until they are gone."""

    name = "workspaces"
    timeout_s = WAIT_S + 60

    def __init__(self, db: Database, workspaces: WorkspaceService, world: World) -> None:
        self._db = db
        self._workspaces = workspaces
        self._world = world

    async def do(self, op: Operation) -> Effects:
        """See :class:`Step`. Raises :class:`StillTerminating`, so that it is done again after a while."""
        user_id = user_of(op.key)
        for _ in range(int(WAIT_S / LOOK_EVERY_S)):
            if not await self._order(user_id):
                return Effects()
            await self._world.sleep(LOOK_EVERY_S)
        raise StillTerminating

    async def _order(self, user_id: UserId) -> bool:
        """Order what is there to be deleted, a page at a time; false when nothing is left."""
        async with self._db.transaction(user_id) as tx:
            left = await self._workspaces.page(tx, before=None, name=None, items_max=PAGE_MAX)
        for workspace in left:
            async with self._db.transaction(user_id) as tx:
                if await self._workspaces.find(tx, workspace.id) is not None:
                    await self._workspaces.delete(tx, workspace.id)
        return bool(left)


class ForgetAccount(TerminateWorkspaces):
    """Delete the account and every row that belongs to it. A workspace made by a request that ran meanwhile goes first."""

    name = "account"

    def __init__(self, db: Database, workspaces: WorkspaceService, world: World, forget: Forget) -> None:
        super().__init__(db, workspaces, world)
        self._forget = forget

    async def do(self, op: Operation) -> Effects:
        """See :class:`Step`."""
        await super().do(op)
        user_id = user_of(op.key)
        await self._forget(user_id)

        async def apply(tx: SystemTx) -> None:
            await forget_user(tx, user_id)
            await users.remove(tx, user_id)

        return Effects(apply=apply)


async def nothing_else(_user_id: UserId) -> None:
    """For a server that keeps nothing of an account outside its database."""


def kinds(*, db: Database, workspaces: WorkspaceService, world: World, forget: Forget = nothing_else) -> list[Kind]:
    """The operation that closes an account, for a worker. ``forget`` removes what is kept of it outside the database."""
    steps = [TerminateWorkspaces(db, workspaces, world), ForgetAccount(db, workspaces, world, forget)]
    return [Kind(name=CLOSE_ACCOUNT, steps=steps, forward_only=True)]
