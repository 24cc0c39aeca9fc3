"""Hashing passwords: argon2id, in few threads, with a bound on those who wait, and as slow for an e-mail nobody has."""

import asyncio
import secrets
import threading
import unicodedata
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Protocol, TypeVar

from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError

from ff_cloud.auth.errors import TooManyLogins
from ff_core.errors import InvalidInput

T = TypeVar("T")

_MEMORY_KIB = 46 * 1024


class Hasher(Protocol):
    """A slow, salted hash of passwords. Each call takes tens of milliseconds of one CPU."""

    def hash(self, password: str) -> str:
        """A verifier to store."""
        ...

    def verify(self, stored: str, password: str) -> bool:
        """Whether ``stored`` was made of ``password``. A verifier that can't be read fits nothing."""
        ...

    def outdated(self, stored: str) -> bool:
        """Whether ``stored`` was made with other parameters than are used now."""
        ...


class Argon2id:
    """OWASP's first choice: one pass over 46 MiB. About 46 ms on a slow core, 21 logins per second."""

    def __init__(self, time_cost: int = 1, memory_kib: int = _MEMORY_KIB) -> None:
        self._hasher = PasswordHasher(time_cost=time_cost, memory_cost=memory_kib, parallelism=1)

    def hash(self, password: str) -> str:
        """See :class:`Hasher`."""
        return self._hasher.hash(password)

    def verify(self, stored: str, password: str) -> bool:
        """See :class:`Hasher`."""
        try:
            return self._hasher.verify(stored, password)
        except (VerificationError, InvalidHashError):
            return False

    def outdated(self, stored: str) -> bool:
        """See :class:`Hasher`."""
        return self._hasher.check_needs_rehash(stored)


@dataclass(frozen=True, slots=True)
class Verdict:
    """Whether the password is right, and the verifier to store instead when the old one is outdated."""

    right: bool
    renewed: str | None = None


class Passwords:
    """Hashes and verifies off the event loop, ``threads`` at a time. Beyond ``waiting_max`` more: :class:`TooManyLogins`."""

    def __init__(self, hasher: Hasher, *, threads: int = 2, waiting_max: int = 20) -> None:
        self._hasher = hasher
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="password")
        self._places = threading.BoundedSemaphore(threads + waiting_max)
        # What an unknown e-mail is compared with; nobody knows its password.
        self._dummy = hasher.hash(secrets.token_urlsafe(32))

    async def hash(self, password: str) -> str:
        """A verifier for ``password``, which is normalised. Raises :class:`TooManyLogins`."""
        return await self._run(lambda: self._hasher.hash(password))

    async def verify(self, stored: str | None, password: str) -> Verdict:
        """Compare. Without an account ``stored`` is None, and the same work is done in vain. Raises :class:`TooManyLogins`."""

        def compare() -> Verdict:
            right = self._hasher.verify(stored or self._dummy, password) and stored is not None
            renew = right and self._hasher.outdated(stored or "")
            return Verdict(right, self._hasher.hash(password) if renew else None)

        return await self._run(compare)

    def close(self) -> None:
        """Let the running ones end, take no more; may be repeated."""
        self._pool.shutdown(cancel_futures=True)

    async def _run(self, work: Callable[[], T]) -> T:
        if not self._places.acquire(blocking=False):
            raise TooManyLogins
        try:
            future = self._pool.submit(work)
        except BaseException:
            self._places.release()
            raise
        # At the end of the work, not of the waiting: a client that hangs up does not free the thread.
        future.add_done_callback(lambda _: self._places.release())
        return await asyncio.wrap_future(future)


def normalise(password: str) -> str:
    """NFKC, so that a password typed on another keyboard is the same one. Raises ``InvalidInput`` for half characters."""
    try:
        password.encode()
    except UnicodeEncodeError as error:
        message = "has a character that is not valid Unicode"
        raise InvalidInput("The password " + message + ".", errors=[{"field": "password", "message": message}]) from error
    return unicodedata.normalize("NFKC", password)
