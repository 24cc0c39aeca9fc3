"""Encryption of small secrets that must rest in the database for a while, such as a repository token."""

import os
from base64 import urlsafe_b64decode, urlsafe_b64encode

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from ff_cloud.errors import SealBroken

_VERSION = b"\x01"
_NONCE_BYTES = 12
_TAG_BYTES = 16


class Sealer:
    """AES-256-GCM under one key. ``context`` says what a secret belongs to, for example ``operation:<id>:repo_token``.

    It is authenticated, not stored: a sealed text moved to another row does not open there.
    """

    def __init__(self, key: bytes) -> None:
        self._cipher = AESGCM(key)

    def seal(self, plaintext: str, context: str) -> str:
        """Encrypt to printable ASCII. Two calls give two different texts."""
        nonce = os.urandom(_NONCE_BYTES)
        sealed = self._cipher.encrypt(nonce, plaintext.encode(), _VERSION + context.encode())
        return urlsafe_b64encode(_VERSION + nonce + sealed).decode()

    def open_sealed(self, sealed: str, context: str) -> str:
        """What was sealed. Raises :class:`SealBroken` when anything of text, context or key is not as it was."""
        try:
            raw = urlsafe_b64decode(sealed.encode("ascii"))
        except ValueError as error:
            raise SealBroken from error
        if raw[:1] != _VERSION or len(raw) < 1 + _NONCE_BYTES + _TAG_BYTES:
            raise SealBroken
        try:
            plaintext = self._cipher.decrypt(raw[1 : 1 + _NONCE_BYTES], raw[1 + _NONCE_BYTES :], _VERSION + context.encode())
        except InvalidTag as error:
            raise SealBroken from error
        return plaintext.decode()
