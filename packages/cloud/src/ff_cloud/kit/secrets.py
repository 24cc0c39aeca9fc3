"""One master secret, and a key for each purpose derived from it, so that a leak of one key opens nothing else."""

import contextlib
import os
import stat
import tempfile
from base64 import urlsafe_b64encode
from pathlib import Path

from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from pydantic import SecretStr

from ff_cloud.errors import SecretKeyUnusable

KEY_FILE = "secret.key"
_SALT = b"ff-cloud/1"
_MASTER_BYTES_MIN = 32


class Secrets:
    """The derived keys, 32 bytes each. The same master always gives the same keys."""

    def __init__(self, master: bytes) -> None:
        self.sealing_key = _derive(master, "crypto: sealed secrets at rest")
        self.vm_token_key = _derive(master, "vms: bearer tokens of daemons")
        self.gateway_token_key = _derive(master, "gateway: bearer tokens of VMs")
        self.credential_root = _derive(master, "credentials: root of key-encryption keys")
        self.fingerprint_key = _derive(master, "idempotency: fingerprints of requests")
        self.browser_key = _derive(master, "authorization: forms and proofs of browsers")


def master_secret(configured: SecretStr | None, data_dir: Path) -> bytes:
    """The configured secret, or the one in the key file of ``data_dir``, which is made at the first call.

    May be repeated and raced: all callers get the same secret. Raises :class:`SecretKeyUnusable`.
    """
    if configured is not None:
        return configured.get_secret_value().encode()
    file = data_dir / KEY_FILE
    try:
        if not file.exists():
            _create(file)
        mode = file.stat().st_mode
        content = file.read_bytes().strip()
    except OSError as error:
        message = f"The secret key can't be read from or written to {file}: {error.strerror}."
        raise SecretKeyUnusable(message) from error
    if stat.S_IMODE(mode) & 0o077:
        raise SecretKeyUnusable(f"Others can read {file}; run `chmod 600` on it, and think of changing it.")
    if len(content) < _MASTER_BYTES_MIN:
        raise SecretKeyUnusable(
            f"{file} is shorter than {_MASTER_BYTES_MIN} bytes; restore it, or remove it to start with a new one."
        )
    return content


def _create(file: Path) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    descriptor, temporary = tempfile.mkstemp(dir=file.parent, prefix=".secret-")
    try:
        with os.fdopen(descriptor, "wb") as writer:
            writer.write(urlsafe_b64encode(os.urandom(_MASTER_BYTES_MIN)) + b"\n")
            writer.flush()
            os.fsync(writer.fileno())
        # A link, not a rename: of several processes that start at once the first one's key stays.
        with contextlib.suppress(FileExistsError):
            os.link(temporary, file)
    finally:
        Path(temporary).unlink()


def _derive(master: bytes, purpose: str) -> bytes:
    return HKDF(algorithm=SHA256(), length=32, salt=_SALT, info=purpose.encode()).derive(master)
