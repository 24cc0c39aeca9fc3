"""What the daemon is told by its environment. No secret is among it: the token is known by its hash only."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from uuid import UUID

from ff_core.contract.plain import ENV_GENERATION, ENV_TOKEN_SHA256, ENV_VM_ID
from ff_core.daemon.errors import BadSettings
from ff_core.daemon.listening import ENV_PORT, PORT, PORT_MAX
from ff_core.ids import VmId


@dataclass(frozen=True)
class DaemonSettings:
    """Whose VM this is, in which life, and who may call."""

    vm_id: VmId
    generation: int
    token_sha256: str
    """Lower-case hexadecimal."""

    @classmethod
    def from_env(cls, env: Mapping[str, str]) -> "DaemonSettings":
        """Read the environment. Raises ``BadSettings`` that names the variable."""
        try:
            vm_id = VmId(UUID(env.get(ENV_VM_ID, "")))
        except ValueError as exc:
            raise BadSettings(f"{ENV_VM_ID} must be the VM's id, a UUID.") from exc
        token_sha256 = env.get(ENV_TOKEN_SHA256, "").lower()
        if not re.fullmatch(r"[0-9a-f]{64}", token_sha256):
            raise BadSettings(f"{ENV_TOKEN_SHA256} must be the SHA-256 of the daemon's token, 64 hexadecimal digits.")
        _number(env, ENV_PORT, PORT_MAX, default=PORT)
        return cls(vm_id=vm_id, generation=_number(env, ENV_GENERATION, 2**63 - 1), token_sha256=token_sha256)


def _number(env: Mapping[str, str], name: str, most: int, *, default: str = "") -> int:
    text = env.get(name) or default
    if not re.fullmatch(r"[0-9]{1,19}", text) or int(text) > most:
        raise BadSettings(f"{name} must be a whole number from 0 to {most}.")
    return int(text)
