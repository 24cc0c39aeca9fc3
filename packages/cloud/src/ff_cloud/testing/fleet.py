"""What the operations on workspaces need of other rooms, standing for nothing: nothing is stored, copied or known already."""

from typing import Any

from ff_cloud.kit.db import Database
from ff_cloud.vms import fleet_repository
from ff_cloud.workspaces.operations import Outside


async def _nothing(*_: Any) -> None:
    pass


def nothing_outside() -> Outside:
    """See the module."""
    return Outside(
        save=_nothing,
        restore=_nothing,
        forget=_nothing,
        copy_journal=_nothing,
        seed_for=_nothing,
        note_clone=lambda _user, _url: None,
        idle_s=0.0,
        upgrade_idle_s=0.0,
    )


async def make_room(db: Database, vms_max: int = 100) -> None:
    """The machine has been measured, and takes so many VMs."""
    async with db.system_transaction() as tx:
        await fleet_repository.record_capacity(tx, {"vms_max": vms_max, "bound_by": "a test"}, refuse=None)
