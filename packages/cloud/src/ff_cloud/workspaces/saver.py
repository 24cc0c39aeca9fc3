"""Orders checkpoints: of workspaces in which a turn has ended, and now and then of those that are in use."""

from collections.abc import Callable
from contextlib import suppress
from datetime import timedelta

from ff_cloud.kit.db import Database
from ff_cloud.kit.heartbeats import UNHEARD, Pulse
from ff_cloud.kit.rounds import rounds
from ff_cloud.operations.errors import OperationActive
from ff_cloud.vms.model import Desired
from ff_cloud.vms.repository import SystemVmRepository
from ff_cloud.workspaces.orders import Orders
from ff_cloud.workspaces.repository import SystemWorkspaceRepository
from ff_core.world import World

LOOK_EVERY_S = 5.0
AT_ONCE_MAX = 4
"""Ordered in one round; the others in the next."""


class Saver:
    """Run :meth:`run` in any number of workers: an order is refused where something is under way already."""

    def __init__(
        self,
        *,
        db: Database,
        orders: Orders,
        world: World,
        every_s: float,
        on_look: Callable[[float], None] = lambda _oldest_unsaved_s: None,
        pulse: Pulse = UNHEARD,
    ) -> None:
        self._db = db
        self._orders = orders
        self._world = world
        self._every = timedelta(seconds=every_s)
        self._on_look = on_look
        self._pulse = pulse

    async def run(self) -> None:
        """Look until cancelled."""
        await rounds("saver", self.once, lambda: self._world.sleep(LOOK_EVERY_S), self._pulse)

    async def once(self) -> None:
        """One look."""
        now = self._world.now()
        async with self._db.system_transaction() as tx:
            states = await SystemWorkspaceRepository(tx).saved_states()
            running = [vm for vm in await SystemVmRepository(tx).running() if vm.desired is Desired.RUNNING]
            due, unsaved = [], []
            for vm in running:
                state = states.get(vm.workspace_id)
                if state is None:
                    continue
                if vm.active_at > state.saved_at:
                    unsaved.append(state.saved_at)
                turn = state.turn_ended_at is not None and state.turn_ended_at > state.saved_at
                if turn or (vm.active_at > state.saved_at and now - state.saved_at >= self._every):
                    due.append((state.saved_at, vm, "turn" if turn else "timer"))
            for _, vm, reason in sorted(due, key=lambda one: one[0])[:AT_ONCE_MAX]:
                with suppress(OperationActive):
                    await self._orders.checkpoint(tx, vm.workspace_id, vm.user_id, reason=reason)
        self._on_look((now - min(unsaved)).total_seconds() if unsaved else 0.0)
