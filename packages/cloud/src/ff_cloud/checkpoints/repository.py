"""The only code that reads and writes ``checkpoints``."""

from collections.abc import Collection
from datetime import datetime, timedelta

from sqlalchemy import RowMapping, delete, exists, func, insert, or_, select, update

from ff_cloud.checkpoints.model import Checkpoint
from ff_cloud.checkpoints.tables import checkpoints
from ff_cloud.kit.blobs import Stored
from ff_cloud.kit.db import SystemTx
from ff_cloud.vms.model import Vm
from ff_core.contract.checkpoint import Packed
from ff_core.ids import WorkspaceId

SAVING, SAVED, FAILED = "SAVING", "SAVED", "FAILED"
SAVING_MAX = timedelta(hours=24)
"""One that is being stored for so long is not any more."""


class SystemCheckpointRepository:
    """The checkpoints of everybody."""

    def __init__(self, tx: SystemTx) -> None:
        self._tx = tx

    async def known(self, workspace_id: WorkspaceId) -> dict[int, Checkpoint]:
        """Those that are stored."""
        c = checkpoints.c
        rows = await self._tx.execute(select(checkpoints).where(c.workspace_id == workspace_id, c.state == SAVED))
        return {row["number"]: _checkpoint(row) for row in rows.mappings()}

    async def begin(self, vm: Vm, key: str, reason: str, now: datetime) -> int:
        """Give out the next number of a workspace, whose VM is locked. Numbers only rise, also past what failed."""
        c = checkpoints.c
        last = await self._tx.scalar(select(func.max(c.number)).where(c.workspace_id == vm.workspace_id))
        number = int(last or 0) + 1
        await self._tx.execute(
            insert(checkpoints).values(
                workspace_id=vm.workspace_id,
                number=number,
                user_id=vm.user_id,
                vm_id=vm.id,
                vm_generation=vm.generation,
                state=SAVING,
                reason=reason,
                key=key,
                began_at=now,
            )
        )
        return number

    async def finish(self, workspace_id: WorkspaceId, number: int, packed: Packed, stored: Stored) -> bool:
        """It is stored; false when it was given up meanwhile, or a newer one is stored."""
        newer = checkpoints.alias()
        c = checkpoints.c
        result = await self._tx.execute(
            update(checkpoints)
            .where(
                c.workspace_id == workspace_id,
                c.number == number,
                c.state == SAVING,
                ~exists().where(newer.c.workspace_id == workspace_id, newer.c.number > number, newer.c.state == SAVED),
            )
            .values(
                state=SAVED,
                base_number=packed.base.number if packed.base else None,
                bytes=stored.size,
                sha256=stored.sha256,
                tree_sha256=packed.tree_sha256,
                tree_bytes=packed.tree_bytes,
                content_bytes=packed.content_bytes,
                entries=packed.entries,
                journal_seq=packed.journal_seq,
                settled=packed.settled,
                left_out_count=packed.left_out_count,
                created_at=func.clock_timestamp(),
            )
        )
        return result.rowcount == 1

    async def fail(self, workspace_id: WorkspaceId, number: int) -> None:
        """It won't be stored."""
        c = checkpoints.c
        await self._tx.execute(
            update(checkpoints).where(c.workspace_id == workspace_id, c.number == number, c.state == SAVING).values(state=FAILED)
        )

    async def delete(self, workspace_id: WorkspaceId, numbers: Collection[int]) -> list[str]:
        """Forget these; the keys of what may be removed from the store when that is committed."""
        c = checkpoints.c
        gone = delete(checkpoints).where(c.workspace_id == workspace_id, c.number.in_(numbers))
        return list((await self._tx.execute(gone.returning(c.key))).scalars())

    async def delete_all(self, workspace_id: WorkspaceId) -> None:
        """Forget all of a workspace."""
        await self._tx.execute(delete(checkpoints).where(checkpoints.c.workspace_id == workspace_id))

    async def failed_before(self, workspace_id: WorkspaceId, number: int) -> list[int]:
        """The numbers of those that failed and don't count any more, because a later one is stored."""
        c = checkpoints.c
        failed = select(c.number).where(c.workspace_id == workspace_id, c.state == FAILED, c.number < number)
        return list((await self._tx.execute(failed)).scalars())

    async def give_up_stale(self) -> int:
        """Those that nobody is storing any more have failed; how many."""
        c = checkpoints.c
        stale = update(checkpoints).where(c.state == SAVING, c.began_at < func.clock_timestamp() - SAVING_MAX)
        return (await self._tx.execute(stale.values(state=FAILED))).rowcount

    async def wanted(self, keys: Collection[str]) -> set[str]:
        """Those of the keys under which something is stored, or is about to be."""
        c = checkpoints.c
        alive = or_(c.state == SAVING, c.state == SAVED)
        return set((await self._tx.execute(select(c.key).where(c.key.in_(keys), alive))).scalars())


def _checkpoint(row: RowMapping) -> Checkpoint:
    return Checkpoint(
        workspace_id=WorkspaceId(row["workspace_id"]),
        number=row["number"],
        base_number=row["base_number"],
        key=row["key"],
        stored=Stored(row["bytes"], row["sha256"]),
        tree_sha256=row["tree_sha256"],
        journal_seq=row["journal_seq"],
        began_at=row["began_at"],
    )
