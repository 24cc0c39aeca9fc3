"""What of a workspace belongs into a checkpoint, what is left out and why, and how much may be taken. Pure.

The parts are read in the order of :data:`PARTS`, so that a repository that changes meanwhile is still whole in the copy: git
writes objects first and the refs that need them afterwards, so refs are read first and objects last. Loose refs are read
before ``packed-refs``, where git moves them, and HEAD before the branch it names. The index comes after the refs, work after
the index, and the database last: then no prompt waits in it that a transcript has answered already.
"""

from collections.abc import Collection
from dataclasses import dataclass, field
from enum import StrEnum

_MIB = 1024 * 1024

REPO, HOME, PRIVATE = b"repo", b"home", b".ff"
GIT = REPO + b"/.git"
HEAD, REFS, OBJECTS = GIT + b"/HEAD", GIT + b"/refs", GIT + b"/objects"
DATABASE = PRIVATE + b"/state.db"


class Reason(StrEnum):
    """Why something is left out; ``ff_core.contract.checkpoint.LeftOut`` says the same to people."""

    IGNORED = "ignored"
    IGNORED_LARGE = "ignored_large"
    CACHE = "cache"
    HOME_LARGE = "home_large"
    TOO_LARGE = "too_large"
    TOO_DEEP = "too_deep"
    SPECIAL = "special"
    SECRET = "secret"  # noqa: S105
    TEMPORARY = "temporary"
    UNREADABLE = "unreadable"
    OTHER_FILESYSTEM = "other_filesystem"


@dataclass(frozen=True, slots=True)
class Part:
    """A part of the tree that is read in one go: what is at ``root`` and below, but for the subtrees ``without``."""

    name: str
    root: bytes
    without: frozenset[bytes] = frozenset()


PARTS = (
    Part("head", HEAD),
    Part("refs", REFS),
    Part("git", GIT, frozenset({HEAD, REFS, OBJECTS})),
    Part("tree", REPO, frozenset({GIT})),
    Part("home", HOME),
    Part("objects", OBJECTS),
)
LAST_PART = "private"
"""The database; a copy of it is read, so it is no part of the walk."""


@dataclass(frozen=True, slots=True)
class Limits:
    """How much a checkpoint may hold. Beyond the first two there is none; beyond the others something is left out."""

    entries_max: int = 5_000_000
    tree_bytes_max: int = 256 * 1024 * _MIB
    ignored_file_bytes_max: int = 16 * _MIB
    """Of a file that git ignores by its own name, such as ``.env``."""
    ignored_bytes_max: int = 256 * _MIB
    """Of all of them."""
    home_file_bytes_max: int = 512 * _MIB
    home_bytes_max: int = 4096 * _MIB
    """Of HOME, not counting the agent's own files, which have no limit but that of the tree."""


AGENT = HOME + b"/.claude"
_SECRET = frozenset({HOME + b"/.config/factory-factory"})
"""Written anew at every bind, and good for one VM only."""
_CACHES = frozenset(
    HOME + b"/" + path
    for path in (
        # Made again by whoever wants them.
        b".cache",
        b".npm/_cacache",
        b".npm/_logs",
        b".npm/_npx",
        b".yarn/berry/cache",
        b".pnpm-store",
        b".local/share/pnpm/store",
        b".local/share/Trash",
        b".cargo/registry",
        b".cargo/git",
        b".rustup/downloads",
        b".gradle/caches",
        b".m2/repository",
        b".nuget/packages",
        b".bundle/cache",
        b".gem/cache",
        b"go/pkg/mod",
        # Of one machine and one run of the agent.
        b".claude/shell-snapshots",
        b".claude/session-env",
        b".claude/sessions",
        b".claude/ide",
        b".claude/statsig",
        b".claude/debug",
    )
)


@dataclass(slots=True)
class Judge:
    """Says of each path whether it is left out. Counts what it lets through, so: one for each walk through the tree.

    ``ignored`` are the paths that git ignores: a folder that is ignored as a whole, or a file by its own name.
    """

    limits: Limits
    ignored: Collection[bytes]
    _ignored_bytes: int = field(default=0, init=False)
    _home_bytes: int = field(default=0, init=False)

    def folder(self, path: bytes) -> Reason | None:
        """Whether a folder is left out with all that is in it."""
        if path in _SECRET:
            return Reason.SECRET
        if path in _CACHES:
            return Reason.CACHE
        return Reason.IGNORED if path in self.ignored else None

    def file(self, path: bytes, size: int) -> Reason | None:
        """Whether a file is left out."""
        if path.startswith(GIT + b"/"):
            return Reason.TEMPORARY if _temporary(path) else None
        if path in self.ignored:
            if size > self.limits.ignored_file_bytes_max or self._ignored_bytes + size > self.limits.ignored_bytes_max:
                return Reason.IGNORED_LARGE
            self._ignored_bytes += size
        if path.startswith(HOME + b"/") and not path.startswith(AGENT):
            if size > self.limits.home_file_bytes_max or self._home_bytes + size > self.limits.home_bytes_max:
                return Reason.HOME_LARGE
            self._home_bytes += size
        return None


def _temporary(path: bytes) -> bool:
    """Of a git that runs right now: no other git may go on with it, and a lock would keep all of them out."""
    name = path.rpartition(b"/")[2]
    if path.startswith(OBJECTS + b"/"):
        return name.startswith((b"tmp_", b".tmp-"))
    return name.endswith(b".lock") or path == GIT + b"/gc.pid"
