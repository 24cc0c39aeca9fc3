"""What an API key looks like: ``ffk_<8 public>_<43 secret><6 checksum>``, letters and digits only. Pure but for randomness.

The secret has 256 bits, so one round of SHA-256 at rest is as good as any slow hash. The checksum lets a secret scanner, and us,
tell a key from a look-alike without a database.
"""

import hashlib
import re
import secrets
import string
import zlib
from dataclasses import dataclass

MARK = "ffk_"
_ALPHABET = string.digits + string.ascii_uppercase + string.ascii_lowercase
_PUBLIC_CHARS = 8
_SECRET_CHARS = 43  # 43 * log2(62) = 256.03 bits
_CHECKSUM_CHARS = 6
_SHAPE = re.compile(rf"{MARK}[0-9A-Za-z]{{{_PUBLIC_CHARS}}}_[0-9A-Za-z]{{{_SECRET_CHARS + _CHECKSUM_CHARS}}}")
_PREFIX_CHARS = len(MARK) + _PUBLIC_CHARS


@dataclass(frozen=True, slots=True)
class Presented:
    """A well-formed key: what is searched for, and what is compared."""

    prefix: str
    sha256: bytes


def generate() -> str:
    """A new key. It is shown once and never stored."""
    body = f"{MARK}{_random(_PUBLIC_CHARS)}_{_random(_SECRET_CHARS)}"
    return body + _checksum(body)


def parse(text: str) -> Presented | None:
    """Take a key apart; None when it is not one."""
    if not _SHAPE.fullmatch(text):
        return None
    body, checksum = text[:-_CHECKSUM_CHARS], text[-_CHECKSUM_CHARS:]
    if checksum != _checksum(body):
        return None
    return Presented(text[:_PREFIX_CHARS], hashlib.sha256(text.encode()).digest())


def _random(chars: int) -> str:
    return "".join(secrets.choice(_ALPHABET) for _ in range(chars))


def _checksum(body: str) -> str:
    value, digits = zlib.crc32(body.encode()), ""
    for _ in range(_CHECKSUM_CHARS):
        value, digit = divmod(value, len(_ALPHABET))
        digits += _ALPHABET[digit]
    return digits
