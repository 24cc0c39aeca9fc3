"""The bearer token of a VM's daemon: derived whenever it is needed, stored nowhere."""

import hashlib
import hmac

from ff_core.ids import VmId

SECRET_BYTES_MIN = 32


def vm_token(secret: bytes, vm_id: VmId, generation: int) -> str:
    """The token for one generation of one VM, 64 hex digits; the same for every replica that knows ``secret``.

    A new generation has another token, so the one of a replaced container is worth nothing. Raises ``ValueError`` when
    the secret is too short to be one.
    """
    if len(secret) < SECRET_BYTES_MIN:
        raise ValueError(f"the VM secret needs at least {SECRET_BYTES_MIN} bytes")
    message = b"ff-vm-token/1\0" + vm_id.bytes + generation.to_bytes(8, "big")
    return hmac.new(secret, message, hashlib.sha256).hexdigest()


def token_sha256(token: str) -> str:
    """What the VM is told of its token: enough to check one, nothing to make one. Hex digits."""
    return hashlib.sha256(token.encode()).hexdigest()
