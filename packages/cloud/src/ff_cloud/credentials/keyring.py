"""The keys that data keys are sealed under, by name.

``derived:3`` is made of the server's master secret, ``file:3`` stands in a key file (``FF_CREDENTIAL_KEY_FILE``) of lines
``VERSION BASE64``, 32 bytes each, which somebody else's rules may govern and which leaves the master secret out of it.
With a file its highest version is the one new secrets are sealed under. All names that ever were can be asked for, so that
secrets can be read while they are moved from one key to the next.
"""

import binascii
import stat
from base64 import b64decode
from collections.abc import Mapping
from pathlib import Path

from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from ff_cloud.credentials.errors import KeyringUnusable
from ff_cloud.errors import SealBroken

KEY_BYTES = 32
KEYS_MAX = 1000
FILE_BYTES_MAX = 100_000
_SALT = b"ff-cloud/credentials/1"


class Keyring:
    """``root`` is 32 secret bytes derived from the master secret; ``filed`` are the keys of the file by version."""

    def __init__(self, root: bytes, filed: Mapping[int, bytes] | None = None) -> None:
        self._root = root
        self._filed = dict(filed or {})

    @property
    def filed(self) -> str | None:
        """The name of the file's newest key; None without a file."""
        return f"file:{max(self._filed)}" if self._filed else None

    def key(self, key_id: str) -> bytes:
        """The key of that name. Raises ``SealBroken`` when there is none here."""
        origin, _, version = key_id.partition(":")
        if origin == "derived" and version.isdecimal():
            return HKDF(algorithm=SHA256(), length=KEY_BYTES, salt=_SALT, info=key_id.encode()).derive(self._root)
        if origin == "file" and version.isdecimal() and int(version) in self._filed:
            return self._filed[int(version)]
        raise SealBroken(f"A credential is sealed under the key {key_id}, which this server does not have.")


def derived(version: int) -> str:
    """The name of a version of the derived key."""
    return f"derived:{version}"


def read_key_file(path: Path) -> dict[int, bytes]:
    """The keys of a file, by version. Raises :class:`KeyringUnusable`, without repeating any of it."""
    try:
        if stat.S_IMODE(path.stat().st_mode) & 0o077:
            raise KeyringUnusable(f"Others can read {path}; run `chmod 600` on it, and think of changing the keys.")
        with path.open("rb") as file:
            content = file.read(FILE_BYTES_MAX)
    except OSError as error:
        raise KeyringUnusable(f"The key file {path} can't be read: {error.strerror}.") from error
    keys: dict[int, bytes] = {}
    for number, line in enumerate(content.decode("ascii", "replace").splitlines(), start=1):
        if not line.strip() or line.startswith("#"):
            continue
        version, _, encoded = line.strip().partition(" ")
        try:
            key = b64decode(encoded.strip(), validate=True)
        except binascii.Error:
            key = b""
        if not version.isdecimal() or len(key) != KEY_BYTES or int(version) in keys or len(keys) >= KEYS_MAX:
            raise KeyringUnusable(f"Line {number} of {path} must be `VERSION KEY`: a new whole number, and 32 bytes in base64.")
        keys[int(version)] = key
    if not keys:
        raise KeyringUnusable(f"The key file {path} holds no key; add a line like `1 $(openssl rand -base64 32)`.")
    return keys
