"""Which mirrors there may be, and which must go. Pure."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

from ff_core.contract.daemon import SEED_BYTES_MAX
from ff_core.errors import FFError
from ff_core.git.errors import RepoUrlInvalid
from ff_core.git.remote import RepoUrl, parse_repo_url

UNUSED_MAX = timedelta(days=30)
"""A mirror that nobody has read for so long goes, also where there is room."""


class MirrorsFull(FFError):
    """There is no room for mirrors on this machine's disk; repositories are cloned whole until there is."""

    code = "mirrors_full"
    status = 507


class MirrorsUnusable(FFError):
    """The folder of mirrors in the data directory can't be read or written; repositories are cloned whole until it can."""

    code = "mirrors_unusable"
    status = 503


@dataclass(frozen=True, slots=True)
class Rules:
    """Of this server. ``github`` is the one server that gets a user's ``github_token``; ``bytes_max`` 0: no mirrors."""

    hosts: tuple[str, ...]
    github: str
    allow_plain_http: bool
    bytes_max: int
    """Of all mirrors together."""
    free_bytes_min: int
    """Of the disk, that mirrors leave."""

    def admitted(self, url: str) -> RepoUrl | None:
        """The address, when it is on a server that the gateway leads to: we go nowhere that a VM could not go through it."""
        try:
            parsed = parse_repo_url(url, allow_plain_http=self.allow_plain_http)
        except RepoUrlInvalid:
            return None
        return parsed if self.bytes_max and parsed.origin in self.hosts else None

    def one_bytes_max(self, free_bytes: int) -> int:
        """What a single mirror may take. Raises :class:`MirrorsFull` when that is nothing."""
        allowed = min(self.bytes_max // 2, SEED_BYTES_MAX, free_bytes - self.free_bytes_min)
        if allowed <= 0:
            raise MirrorsFull
        return allowed

    def surplus(self, kept: Sequence["Kept"], free_bytes: int, now: datetime) -> list["Kept"]:
        """What must go, the least recently used first: all that is too much, too little on the disk, or long forgotten."""
        total = sum(one.disk_bytes for one in kept)
        allowed = min(self.bytes_max, total + free_bytes - self.free_bytes_min)
        gone = []
        for one in sorted(kept, key=lambda one: one.used_at):
            if total > allowed or now - one.used_at > UNUSED_MAX:
                gone.append(one)
                total -= one.disk_bytes
        return gone


@dataclass(frozen=True, slots=True)
class Kept:
    """A mirror that is there."""

    place: Path
    disk_bytes: int
    used_at: datetime


def name_of(url: RepoUrl) -> str:
    """The folder of a repository's mirror: of its address, letter for letter, as servers may tell upper from lower case."""
    return hashlib.sha256(str(url).encode()).hexdigest()[:40]
