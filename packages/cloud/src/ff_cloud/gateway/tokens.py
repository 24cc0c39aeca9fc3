"""The bearer token a VM shows to the gateway, and to nobody else: derived whenever it is needed, stored nowhere."""

import hashlib
import hmac
import re
from dataclasses import dataclass
from uuid import UUID

from ff_core.ids import VmId

MARK = "ffv_"
_TOKEN = re.compile(r"ffv_([0-9a-f]{32})_([1-9][0-9]{0,8})_([0-9a-f]{64})")


@dataclass(frozen=True, slots=True)
class Presented:
    """The VM that a genuine token was made for; whether it still may use it is another question."""

    vm_id: VmId
    generation: int


def gateway_token(secret: bytes, vm_id: VmId, generation: int) -> str:
    """The token of one generation of one VM: the same for every replica that knows ``secret``, another one for the next."""
    signature = hmac.new(secret, _message(vm_id, generation), hashlib.sha256).hexdigest()
    return f"{MARK}{vm_id.hex}_{generation}_{signature}"


def presented(secret: bytes, token: str) -> Presented | None:
    """Whose token this is; None for what we never made. Takes the same time for every wrong signature."""
    found = _TOKEN.fullmatch(token)
    if found is None:
        return None
    vm_id, generation = VmId(UUID(found[1])), int(found[2])
    if not hmac.compare_digest(gateway_token(secret, vm_id, generation), token):
        return None
    return Presented(vm_id, generation)


def _message(vm_id: VmId, generation: int) -> bytes:
    return b"ff-gateway-token/1\0" + vm_id.bytes + generation.to_bytes(8, "big")
