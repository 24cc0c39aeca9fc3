"""What makes two copies of a workspace the same: one function, asked on both sides.

Of each repository :class:`~ff_core.contract.handoff.RepositoryPrint` has SHA-256 sums of these bytes:

``index``   for each entry, in git's order: mode, object, flags (``a`` assume-unchanged, ``s`` skip-worktree, ``i`` intent-to-add,
            or ``-``), tab, path, NUL. Times that git remembers are not part of it.
``tree``    for each file, link and empty folder that travels, sorted by path: ``f``, ``l`` or ``d``, then ``x`` or ``-`` (whether
            a file is executable for its owner), the name git gives to its bytes as they lie there, tab, path, NUL.
``refs``    for each ref that travels, sorted: object (``-``: there is none), tab, name, NUL.
``stash``   for each entry, the oldest first: commit, who, when, tab, message, NUL.
``sparse``  whether checkouts are sparse, and by cones, with the patterns.
``status``  what ``git status --porcelain=v2 --branch --untracked-files=all -z`` says; on the sender's side without what was left
            behind, and as if it had never been there.
"""

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from ff_core.contract.handoff import Fingerprint, RepositoryPrint
from ff_core.git.exact import config, read
from ff_core.git.exact.index import Entry
from ff_core.git.exact.run import Repository
from ff_core.git.exact.words import shown, written
from ff_core.handoff.include import parents
from ff_core.handoff.listing import Node, digest

_SUBMODULE, _NO_CHANGE = b"S", b"S..."


@dataclass(frozen=True)
class Status:
    """What git says of a working tree, without what was left behind."""

    text: bytes
    has_untracked: bool
    """Whether a repository that this one is in says that there are untracked files here."""
    masked: bool
    """Something was left out of it."""


NO_STATUS = Status(b"", has_untracked=False, masked=False)


def take(
    repository: Repository,
    path: bytes,
    *,
    entries: Iterable[Entry],
    nodes: Sequence[Node],
    refs: Iterable[bytes],
    status: bytes,
) -> RepositoryPrint:
    """The print of a repository at ``path`` in its workspace; see the module. ``nodes`` are sorted; ``refs`` travel."""
    known = read.settings(repository)
    here = read.heading(repository, known)
    values = read.values(repository, refs)
    return RepositoryPrint(
        path=written(path),
        object_format="sha256" if repository.object_format == "sha256" else "sha1",
        head=here.head,
        branch=None if here.branch is None else shown(here.branch.removeprefix(b"refs/heads/")),
        upstream=None if here.upstream is None else shown(here.upstream),
        refs=_sum(b"%s\t%s" % ((values[name] or "-").encode(), name) for name in sorted(values)),
        index=_sum(entry.line(clean=False) for entry in entries),
        tree=digest(nodes),
        files=len(nodes),
        stash=stash_sum(repository),
        status=hashlib.sha256(status).hexdigest(),
        sparse=_sum(_sparse(repository, known)),
    )


def stash_sum(repository: Repository) -> str:
    """Of ``RepositoryPrint``: the stash alone."""
    return _sum(_stash(repository))


def mask(text: bytes, left: frozenset[bytes], inside: dict[bytes, Status]) -> Status:
    """Status without what was left behind: the paths ``left``, and those in submodules (``inside``: their masked status)."""
    kept: list[bytes] = []
    masked = has_untracked = False
    for record in _records(text):
        if record.startswith(b"? ") and _is_left(record[2:], left):
            masked = True
            continue
        told = _without_untracked(record, inside) if record[:2] in {b"1 ", b"2 "} else record
        masked |= told != record
        if told is not None:
            kept.append(told)
            has_untracked |= told.startswith(b"? ") or _field(told, 2)[3:4] == b"U"
    return Status(b"".join(record + b"\0" for record in kept), has_untracked, masked)


def differences(one: Fingerprint, other: Fingerprint) -> tuple[str, ...]:
    """In what two fingerprints differ, as sentences; none when they are equal."""
    told: list[str] = []
    first, second = ({each.path: each for each in side.repositories} for side in (one, other))
    for path in sorted(first.keys() | second.keys()):
        where = f" of the submodule {path}" if path else ""
        if path not in first or path not in second:
            told.append(f"The repository{where} is on one side only.")
            continue
        a, b = first[path], second[path]
        told += (f"The {words}{where} differ." for name, words in _PARTS if getattr(a, name) != getattr(b, name))
    talks, others = ({each.session_id: each for each in side.conversations} for side in (one, other))
    told += (
        f"The conversation of session {session} differs."
        for session in sorted(talks.keys() | others.keys())
        if talks.get(session) != others.get(session)
    )
    if one.records != other.records:
        told.append("Sessions, queued prompts or events differ.")
    return tuple(told)


_PARTS = (
    ("object_format", "formats of objects"),
    ("head", "commits that are checked out"),
    ("branch", "branches that are checked out"),
    ("upstream", "upstream branches"),
    ("refs", "branches and tags"),
    ("index", "staged files"),
    ("tree", "files"),
    ("stash", "stash entries"),
    ("sparse", "settings of the sparse checkout"),
    ("status", "words of git status"),
)


def _sum(lines: Iterable[bytes]) -> str:
    hashed = hashlib.sha256()
    for line in lines:
        hashed.update(line + b"\0")
    return hashed.hexdigest()


def _stash(repository: Repository) -> Iterator[bytes]:
    for entry in read.stash(repository):
        yield b"%s %s %s\t%s" % (entry.commit.encode(), entry.who, entry.when.encode(), entry.message)


def _sparse(repository: Repository, known: config.Settings) -> Iterator[bytes]:
    values = config.last(known)
    for name in config.SPARSE:
        yield values.get(name.encode(), b"false").lower()
    patterns = read.sparse(repository)
    yield b"-" if patterns is None else b"+" + patterns


def _records(text: bytes) -> Iterator[bytes]:
    """Those of ``--porcelain=v2 -z``; one of a rename has two paths."""
    parts = iter(text.split(b"\0")[:-1])
    for record in parts:
        yield record + b"\0" + next(parts, b"") if record.startswith(b"2 ") else record


def _field(record: bytes, number: int) -> bytes:
    fields = record.split(b" ", number + 1)
    return fields[number] if record[:2] in {b"1 ", b"2 "} and len(fields) > number else b""


def _is_left(path: bytes, left: frozenset[bytes]) -> bool:
    return path in left or path.rstrip(b"/") in left or any(parent + b"/" in left for parent in parents(path.rstrip(b"/")))


def _without_untracked(record: bytes, inside: dict[bytes, Status]) -> bytes | None:
    """What is said of a submodule, when nothing untracked is in it any more; None when then nothing is to be said."""
    kind, changed, submodule, rest = record.split(b" ", 3)
    path = (rest.split(b" ", 6)[-1] if kind == b"2" else rest.split(b" ", 5)[-1]).partition(b"\0")[0]
    status = inside.get(path)
    if not submodule.startswith(_SUBMODULE) or status is None or not status.masked or status.has_untracked:
        return record
    submodule = submodule[:3] + b"."
    if submodule == _NO_CHANGE:
        changed = changed[:1] + b"."
    if changed == b"..":
        return None
    return b" ".join((kind, changed, submodule, rest))
