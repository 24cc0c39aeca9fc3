"""A VM's token for the gateway: only ours, only for that generation."""

from uuid import UUID

import pytest

from ff_cloud.gateway.tokens import Presented, gateway_token, presented
from ff_cloud.vms.token import vm_token
from ff_core.ids import VmId

SECRET, OTHER = b"s" * 32, b"t" * 32
VM = VmId(UUID(int=0x1234))
TOKEN = gateway_token(SECRET, VM, 3)


def test_a_token_names_its_vm_and_generation():
    assert TOKEN.startswith(f"ffv_{VM.hex}_3_")
    assert presented(SECRET, TOKEN) == Presented(VM, 3)


@pytest.mark.parametrize(
    "forged",
    [
        gateway_token(OTHER, VM, 3),
        TOKEN.replace("_3_", "_4_"),
        TOKEN.replace("_3_", "_03_"),
        TOKEN.replace("1234", "1235"),
        TOKEN[:-1],
        TOKEN + "0",
        TOKEN + "\n",
        TOKEN.upper(),
        vm_token(SECRET, VM, 3),
        "",
        "ffv_",
        "ffv_" + "9" * 10_000,
        "sk-ant-real",
    ],
)
def test_anything_else_is_nobodys(forged):
    assert presented(SECRET, forged) is None
