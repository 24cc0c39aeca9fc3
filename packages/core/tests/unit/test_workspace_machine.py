from itertools import product

import pytest

from ff_core.contract.workspace import WorkspaceStatus
from ff_core.errors import IllegalTransition
from ff_core.workspaces.machine import MACHINE

LEGAL = {
    "NEW": {"PROVISIONING"},
    "PROVISIONING": {"READY", "FAILED"},
    "READY": {"ARCHIVING", "PROVISIONING"},
    "FAILED": {"PROVISIONING", "NEW", "ARCHIVING"},
    "ARCHIVING": {"ARCHIVED", "READY", "FAILED"},
    "ARCHIVED": set(),
}


@pytest.mark.parametrize(("old", "new"), list(product(WorkspaceStatus, repeat=2)))
def test_moves_are_those_of_the_domain_table(old, new):
    if new.value in LEGAL[old.value]:
        assert MACHINE.move(old, new) is new
        return
    with pytest.raises(IllegalTransition, match=f"workspace that is {old.value} can't become {new.value}") as caught:
        MACHINE.move(old, new)
    assert caught.value.extra == {"current": old.value, "wanted": new.value}
