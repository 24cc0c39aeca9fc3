"""The objects of a repository: a pack of those that somebody lacks, and a repository that gets them."""

import contextlib
import os
import re
import shutil
import struct
from collections.abc import Iterable, Iterator
from pathlib import Path

from ff_core.errors import FFError
from ff_core.git.errors import GitFailed
from ff_core.git.exact.errors import BaseMissing, StateBroken
from ff_core.git.exact.index import GITLINK, Entry
from ff_core.git.exact.run import Repository
from ff_core.git.exact.state import RepositoryState

PACK_BYTES_MAX = 64 << 30
GENTLY = ("-c", "core.bigFileThreshold=32m", "-c", "pack.windowMemory=64m", "-c", "pack.deltaCacheSize=32m")
"""Large objects go through piece by piece, and nothing is looked for in them."""
_PACK_HEAD = struct.Struct(">4sLL")
_LINK_TRIES = 3
_PACK_ENDS = (".promisor", ".rev", ".pack", ".idx")
"""In this order: git looks for the index of a pack, and then for the rest."""
_OF_A_PACK = re.compile(r"pack-[0-9a-f]{40,64}(\.promisor|\.rev|\.pack|\.idx)\Z")
_LOOSE = re.compile(r"[0-9a-f]{38}([0-9a-f]{24})?\Z")
_ALTERNATES_DEEP_MAX = 5

# What a history may have that was made long ago, by old or careless tools; what is left are names that could lead a checkout
# somewhere else, and settings of submodules that could run something.
_FORGIVEN = (
    "badDate badDateOverflow badEmail badFilemode badName badTagName badTimezone duplicateEntries missingEmail"
    " missingNameBeforeEmail missingSpaceBeforeDate missingSpaceBeforeEmail missingTaggerEntry multipleAuthors nulInCommit"
    " nullSha1 treeNotSorted zeroPaddedDate zeroPaddedFilemode"
)
_CHECKS = "--strict=" + ",".join(f"{name}=ignore" for name in _FORGIVEN.split())


def tips(state: RepositoryState, entries: Iterable[Entry], copied: Repository) -> tuple[str, ...]:
    """All that must be reachable: HEAD, refs, stash, and the index as one tree, which is written into the repository."""
    found = [state.head, *(ref.oid for ref in state.refs), *(entry.commit for entry in state.stash)]
    entries = list(entries)
    if any(entry.mode != GITLINK and not entry.intent_to_add for entry in entries):
        found.append(copied.out("write-tree").decode().strip())
    found += sorted({entry.oid for entry in entries if entry.intent_to_add})  # that of an empty file, in no tree
    return tuple(dict.fromkeys(oid for oid in found if oid is not None))


def count_commits(repository: Repository, wanted: Iterable[str], have: Iterable[str]) -> int:
    """How many commits a pack of these has."""
    return int(repository.out("rev-list", "--count", "--stdin", stdin=_revisions(wanted, have)))


@contextlib.contextmanager
def pack(repository: Repository, wanted: Iterable[str], have: Iterable[str]) -> Iterator[Iterator[bytes]]:
    """A pack with all that ``wanted`` leads to and ``have`` does not, which are here; it may build on objects of ``have``."""
    have = list(have)
    thin = ["--thin"] if have else []
    partial = ["--exclude-promisor-objects"] if have and _is_partial(repository) else []
    words = (*GENTLY, "pack-objects", "--revs", "--stdout", "--quiet", "--delta-base-offset", *thin, *partial)
    with repository.stream(*words, stdin=_revisions(wanted, have)) as pieces:
        yield pieces


def receive(repository: Repository, pieces: Iterator[bytes]) -> None:
    """Put a pack into a repository that has what it builds on. Raises ``BaseMissing`` when it has not, ``StateBroken``."""
    first = next(pieces, b"")
    while len(first) < _PACK_HEAD.size and (more := next(pieces, b"")):
        first += more
    if len(first) < _PACK_HEAD.size or not first.startswith(b"PACK"):
        raise StateBroken("What came as objects is no pack of git's.")
    if _PACK_HEAD.unpack_from(first)[2] == 0:
        for _ in pieces:
            pass
        return
    words = (*GENTLY, "index-pack", "--stdin", "--fix-thin", f"--max-input-size={PACK_BYTES_MAX}", _CHECKS)
    try:
        repository.feed(*words, pieces=_all(first, pieces))
    except GitFailed as error:
        raise _meaning(error) from error


def sizes(repository: Repository, wanted: Iterable[str]) -> dict[str, int]:
    """How many bytes each of these objects has. Raises ``BaseMissing`` unless all of them are there."""
    asked = list(dict.fromkeys(wanted))
    if not asked:
        return {}
    stdin = "".join(f"{oid}\n" for oid in asked).encode()
    said = repository.out("cat-file", "--batch-check=%(objectsize)", stdin=stdin).split(b"\n")
    if any(line.endswith(b" missing") for line in said):
        raise BaseMissing
    return dict(zip(asked, map(int, said[:-1]), strict=True))


def borrow(source: Path, target: Path) -> None:
    """Give the folder of objects ``target`` all that is in ``source`` and where that borrows from; linked where that can be done.

    Afterwards neither needs the other. ``source`` may be in use, and be repacked meanwhile.
    """
    for folder in _with_alternates(source, 0):
        for _ in range(_LINK_TRIES):
            with contextlib.suppress(FileNotFoundError):  # repacked: what it was is elsewhere now
                _borrow(folder, target)
                break
        else:
            raise BaseMissing


def _borrow(source: Path, target: Path) -> None:
    for folder in source.iterdir():
        if len(folder.name) == 2 and folder.is_dir():
            loose = [file for file in folder.iterdir() if _LOOSE.match(file.name)]
            if loose:
                (target / folder.name).mkdir(exist_ok=True)
            for file in loose:
                _link(file, target / folder.name / file.name)
    packs = [file for file in (source / "pack").glob("pack-*") if _OF_A_PACK.match(file.name)]
    for file in sorted(packs, key=lambda file: _PACK_ENDS.index(file.suffix)):
        _link(file, target / "pack" / file.name)


def _link(file: Path, target: Path) -> None:
    if file.is_symlink():
        return
    try:
        os.link(file, target, follow_symlinks=False)
    except FileExistsError:
        return
    except FileNotFoundError:
        raise
    except OSError:  # another file system, or another owner
        partial = target.with_name(f"{target.name}.partial")
        shutil.copyfile(file, partial)
        partial.chmod(0o444)
        partial.replace(target)


def _with_alternates(folder: Path, depth: int) -> Iterator[Path]:
    yield folder
    try:
        lines = (folder / "info" / "alternates").read_bytes().split(b"\n")
    except FileNotFoundError:
        return
    for line in lines:
        if line and not line.startswith(b"#") and depth < _ALTERNATES_DEEP_MAX:
            yield from _with_alternates(folder / os.fsdecode(line), depth + 1)


def _revisions(wanted: Iterable[str], have: Iterable[str]) -> bytes:
    return "".join([*(f"{oid}\n" for oid in wanted), *(f"^{oid}\n" for oid in have)]).encode()


def _is_partial(repository: Repository) -> bool:
    return repository.maybe("config", "--get-regexp", r"^remote\..*\.promisor$") is not None


def _all(first: bytes, rest: Iterator[bytes]) -> Iterator[bytes]:
    yield first
    yield from rest


def _meaning(error: GitFailed) -> FFError:
    said = error.detail
    if re.search(r"unresolved delta|pack has \d+ unresolved|missing (blob|tree|commit|object)|should be an ancestor", said):
        return BaseMissing()
    if re.search(r"object of unexpected type|Failed to traverse|did not receive expected object|is missing", said):
        return BaseMissing()
    return StateBroken(f"The objects that came can't be used: {said}")
