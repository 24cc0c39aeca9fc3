"""Storing the state of a VM that dies meanwhile: the operation gets out of the way, so that the VM can be started again."""

from typing import Any

import pytest
from here import Enter

from ff_cloud.operations.errors import Fatal
from ff_cloud.operations.repository import OperationRepository
from ff_cloud.vms.daemon_client import VmUnreachable
from ff_cloud.vms.footing import Footing
from ff_cloud.workspaces.resting import SaveState


async def test_a_save_is_tried_again_while_the_container_runs_and_given_up_when_it_has_ended(here: Enter) -> None:
    async with here() as it:
        workspace = await it.user.ready()
        vm = await it.vm_of(workspace.id)
        async with it.db.system_transaction() as tx:
            op = await OperationRepository(tx).get((await it.operation("provision")).id)
        assert op is not None
        footing = Footing(it.engine, it.cloud.daemons)

        async def silent(*_: Any) -> None:
            raise VmUnreachable

        async def dies(*_: Any) -> None:
            await it.engine.lose(vm.id)  # and when it is started again before anybody looks, it has another address
            raise VmUnreachable

        with pytest.raises(VmUnreachable):
            await SaveState(it.db, footing, silent, "stop").do(op)
        with pytest.raises(Fatal) as ended:
            await SaveState(it.db, footing, dies, "stop").do(op)
        assert ended.value.reason == "vm_stopped"
