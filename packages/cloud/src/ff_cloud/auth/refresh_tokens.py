"""What a refresh token looks like: ``ffr_<43 base64url>``, 256 random bits, opaque. Pure but for randomness.

With that many bits one round of SHA-256 at rest is as good as any slow hash.
"""

import hashlib
import re
import secrets

MARK = "ffr_"
_SECRET_BYTES = 32
_SHAPE = re.compile(rf"{MARK}[0-9A-Za-z_-]{{43}}")


def generate() -> tuple[str, bytes]:
    """A new token, which is answered once and never stored, and what is stored of it."""
    token = MARK + secrets.token_urlsafe(_SECRET_BYTES)
    return token, hashlib.sha256(token.encode()).digest()


def sha256_of(token: str) -> bytes | None:
    """What is stored of a token, and searched for; None for what can't be one."""
    return hashlib.sha256(token.encode()).digest() if _SHAPE.fullmatch(token) else None
