"""What a landing may replace, written down before it begins: in the folder that git has for the worktree."""

import hashlib
from dataclasses import dataclass, field
from pathlib import Path

from pydantic import Field, ValidationError

from ff_core.contract.base import Request
from ff_core.git.exact.state import StashState
from ff_core.git.exact.words import Raw
from ff_core.handoff.filling import Signature

NAME = "factory-factory.landing"


@dataclass(frozen=True)
class Before:
    """A repository as it was when this began."""

    files: dict[bytes, Signature] = field(default_factory=dict)
    ignored: frozenset[bytes] = frozenset()
    """Those that travelled though git ignores them: never removed."""
    index: str | None = None
    branch: bytes | None = None
    head: str | None = None
    refs: dict[bytes, str] = field(default_factory=dict)
    stash: tuple[StashState, ...] = ()


NOTHING = Before()
"""There was none."""


@dataclass(frozen=True)
class Mark:
    """Of one landing."""

    purpose: str
    before: dict[bytes, Before]
    """By their paths; the workspace's own is empty."""
    stash: tuple[StashState, ...]
    """Of the project."""
    replaces_stash: bool
    """It is what the other side began with."""

    def write(self, folder: Path) -> None:
        """Put it down, at once."""
        written = _Mark(
            purpose=self.purpose,
            before=tuple(_before(path, each) for path, each in self.before.items()),
            stash=self.stash,
            replaces_stash=self.replaces_stash,
        )
        partial = folder / f"{NAME}.partial"
        partial.write_text(written.model_dump_json())
        partial.replace(folder / NAME)

    @classmethod
    def read(cls, folder: Path, purpose: str) -> "Mark | None":
        """The one of this purpose; None when this did not begin."""
        try:
            found = _Mark.model_validate_json((folder / NAME).read_bytes())
        except (FileNotFoundError, ValidationError):
            return None
        if found.purpose != purpose:
            return None
        before = {each.path: each.typed() for each in found.before}
        return cls(found.purpose, before, found.stash, found.replaces_stash)

    @staticmethod
    def remove(folder: Path) -> None:
        """It is over."""
        (folder / NAME).unlink(missing_ok=True)


class _Before(Request):
    path: Raw
    files: tuple[tuple[Raw, tuple[int, ...]], ...]
    ignored: tuple[Raw, ...]
    index: str | None
    branch: Raw | None
    head: str | None
    refs: tuple[tuple[Raw, str], ...]
    stash: tuple[StashState, ...]

    def typed(self) -> Before:
        return Before(
            files=dict(self.files),
            ignored=frozenset(self.ignored),
            index=self.index,
            branch=self.branch,
            head=self.head,
            refs=dict(self.refs),
            stash=self.stash,
        )


class _Mark(Request):
    purpose: str = Field(min_length=1)
    before: tuple[_Before, ...]
    stash: tuple[StashState, ...]
    replaces_stash: bool


def sum_of(place: Path) -> str | None:
    """SHA-256 of a file; None when there is none."""
    try:
        return hashlib.sha256(place.read_bytes()).hexdigest()
    except FileNotFoundError:
        return None


def _before(path: bytes, before: Before) -> _Before:
    return _Before(
        path=path,
        files=tuple(before.files.items()),
        ignored=tuple(before.ignored),
        index=before.index,
        branch=before.branch,
        head=before.head,
        refs=tuple(before.refs.items()),
        stash=before.stash,
    )
