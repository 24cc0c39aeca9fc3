"""Make of a bundle what was packed: whole, the same, and by itself; or nothing at all.

Everything is built in a folder beside the one that is asked for, which becomes that one as the last act. Who made the bundle is
not trusted: each name is looked at (:mod:`ff_core.handoff.names`), the listing of a tree is looked at as a whole before anything
of it is written (:mod:`ff_core.handoff.listing`), then only what it announces is taken, in its order, and written without
following links.
"""

import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from ff_core.claude import transcripts
from ff_core.contract.handoff import Fingerprint
from ff_core.git.exact import index, objects, read, write
from ff_core.git.exact.errors import BaseMissing, StateBroken
from ff_core.git.exact.run import Repository
from ff_core.git.exact.state import RepositoryState
from ff_core.git.exact.words import shown
from ff_core.handoff import listing
from ff_core.handoff.errors import BundleBroken, FingerprintDiffers, HandoffDiskFull, UnpackedAlready
from ff_core.handoff.fingerprint import differences, take
from ff_core.handoff.format import MANIFEST_BYTES_MAX, Kind, Limits
from ff_core.handoff.include import Judge
from ff_core.handoff.listing import FILE, FOLDER, LINK, Node
from ff_core.handoff.look import OnProgress
from ff_core.handoff.manifest import Manifest, parse
from ff_core.handoff.names import checked_path, is_git_folder
from ff_core.handoff.orders import CONVERSATIONS, REPOSITORY, SPOOL, Progress, Unpack, Unpacked
from ff_core.handoff.pack import records_sum
from ff_core.handoff.planting import Planting, plant_folders
from ff_core.handoff.reader import BundleReader, Entry
from ff_core.handoff.solid import alone_in, remove, sync_all, sync_folder
from ff_core.handoff.walk import Opened, node, walk

UNPACKING = "unpacking"
COMPARING = "comparing"
LISTING_BYTES_MAX = 2 << 30
"""Of one repository's listing or index."""
DIFFERENCES_MAX = 5
SPOOL_FILES_MAX = 100
_TELL_EVERY_BYTES = 8 << 20


@dataclass
class _Part:
    """A repository that is being made."""

    state: RepositoryState
    repository: Repository
    nodes: list[Node]
    entries: list[index.Entry]
    submodules: frozenset[bytes] = field(default_factory=frozenset)


def unpack(order: Unpack, progress: OnProgress, *, durable: bool = True) -> Unpacked:
    """See :class:`Unpack`. Memory: the listings, and a piece of content. ``durable``: when this returns, it survives a power cut.

    Raises ``BundleBroken``, ``StateBroken``, ``BaseMissing``, ``FingerprintDiffers``, ``UnpackedAlready``, ``HandoffBusy``,
    ``HandoffDiskFull``, ``OSError``; then nothing is left. When killed it leaves a folder named like
    ``into`` with ``.partial``, which the next one removes.
    """
    with alone_in(order.into.parent):
        if os.path.lexists(order.into):
            raise UnpackedAlready
        return _unpack(order, progress, durable=durable)


def _unpack(order: Unpack, progress: OnProgress, *, durable: bool) -> Unpacked:
    partial = order.into.with_name(order.into.name + ".partial")
    remove(partial)
    partial.mkdir(mode=0o700)
    try:
        manifest = _Unpacking(order, partial, progress).run()
        if durable:
            sync_all(partial)
        partial.rename(order.into)
        if durable:
            sync_folder(order.into.parent)
    except BaseException:
        remove(partial)
        raise
    return Unpacked(fingerprint=manifest.fingerprint, contents=manifest.contents)


class _Unpacking:
    def __init__(self, order: Unpack, folder: Path, progress: OnProgress) -> None:
        self._order = order
        self._folder = folder
        self._work = folder / "work"
        self._telling = _Telling(progress)
        self._parts: list[_Part] = []

    def run(self) -> Manifest:
        if self._order.bundle.stat().st_size != self._order.size:
            raise BundleBroken
        for name in (REPOSITORY, CONVERSATIONS, SPOOL, self._work.name):
            (self._folder / name).mkdir(mode=0o700 if name != REPOSITORY else 0o755)
        with self._order.bundle.open("rb", buffering=0) as file:
            reader = BundleReader(file, Limits(bundle_bytes_max=max(self._order.size, 1)))
            manifest = self._take(iter(reader))
        if reader.whole is None or (reader.whole.size, reader.whole.sha256) != (self._order.size, self._order.sha256):
            raise BundleBroken
        self._telling.step(COMPARING)
        self._compare(manifest)
        shutil.rmtree(self._work)
        return manifest

    def _take(self, entries: Iterator[Entry]) -> Manifest:
        manifest = parse(_next(entries, Kind.MANIFEST).read(MANIFEST_BYTES_MAX))
        self._telling.begin(manifest.contents.file_bytes)
        base = None if self._order.base is None else write.look_at_base(self._order.base)
        for number in range(len(manifest.repositories)):
            self._repository(manifest, number, entries, base if number == 0 else None)
        counted = 0
        announced = {each.session_id for each in manifest.fingerprint.conversations}
        for entry in entries:
            match entry.kind:
                case Kind.CONVERSATION if counted == 0 and entry.header.session_id in announced:
                    self._conversation(entry)
                case Kind.SPOOL if counted < SPOOL_FILES_MAX:
                    counted += 1
                    self._write(self._folder / SPOOL, Node(entry.name, FILE, 0o600, 0, 0, "", carried=True), entry)
                case _:
                    raise BundleBroken
        return manifest

    def _repository(self, manifest: Manifest, number: int, entries: Iterator[Entry], base: write.Base | None) -> None:
        state = manifest.repositories[number]
        inside = {
            manifest.path_in_parent(other) for other, each in enumerate(manifest.repositories) if other and each.parent == number
        }
        nodes = listing.decode(_next(entries, Kind.LISTING, number).read(LISTING_BYTES_MAX))
        listed = index.decode(_next(entries, Kind.INDEX, number).read(LISTING_BYTES_MAX), state.object_format)
        _check(nodes, listed, inside)
        if sum(each.size for each in nodes) > shutil.disk_usage(self._folder).free:
            raise HandoffDiskFull
        worktree, git_dir = self._place(manifest, number)
        repository = write.begin(worktree, git_dir, state, base)
        _receive(repository, _next(entries, Kind.OBJECTS, number))
        sizes = objects.sizes(repository, _wanted(state, listed))
        if any(sizes[each.oid] != each.size for each in nodes if each.kind != FOLDER and not each.carried):
            raise BundleBroken
        write.set_refs(repository, state, base)
        kept = {each.path for each in nodes if not each.carried and each.kind in {FILE, LINK}}
        work = self._work / str(number)
        work.mkdir()
        write.fill(repository, (entry for entry in listed if entry.path in kept), work)
        with Planting(worktree) as planting:
            for each in nodes:
                if each.path in kept:
                    planting.dress(each)
            plant_folders(planting, nodes)
            for path in sorted(inside):
                planting.folder(path)
            for each in nodes:
                if each.carried and each.kind != FOLDER:
                    self._content(planting, each, entries, number)
            write.set_index(repository, listed, lambda entry: planting.stat(entry) if entry.clean else None)
        self._parts.append(_Part(state, repository, nodes, listed, frozenset(inside)))

    def _place(self, manifest: Manifest, number: int) -> tuple[Path, Path]:
        """Where the working tree and the repository of this number are to be; of a submodule the folder is there already."""
        state = manifest.repositories[number]
        if number == 0 or state.parent is None:
            top = self._folder / REPOSITORY
            return top, top / ".git"
        parent = self._parts[state.parent].repository
        worktree = parent.worktree / os.fsdecode(manifest.path_in_parent(number))
        if state.module is None:
            return worktree, worktree / ".git"
        git_dir = parent.git_dir / "modules" / os.fsdecode(state.module)
        git_dir.parent.mkdir(parents=True, exist_ok=True)
        return worktree, git_dir

    def _content(self, planting: Planting, expected: Node, entries: Iterator[Entry], number: int) -> None:
        entry = _next(entries, Kind.FILE if expected.kind == FILE else Kind.SYMLINK, number)
        if entry.name != expected.path or entry.header.size != expected.size:
            raise BundleBroken
        if expected.kind == FILE:
            planting.file(expected, self._telling.through(entry.chunks()))
        else:
            planting.link(expected, b"".join(entry.chunks()))

    def _conversation(self, entry: Entry) -> None:
        top = self._folder / CONVERSATIONS / str(entry.header.session_id)
        top.mkdir(mode=0o700, exist_ok=True)
        self._write(top, Node(entry.name, FILE, 0o600, 0, 0, "", carried=True), entry)

    def _write(self, top: Path, wanted: Node, entry: Entry) -> None:
        with Planting(top) as planting:
            planting.file(wanted, entry.chunks())

    def _compare(self, manifest: Manifest) -> None:
        """Look at what there is now, as the sender looked at what he had. Raises ``FingerprintDiffers``."""
        prints, told = [], list[str]()
        for number, part in enumerate(self._parts):
            found = _walked(part)
            work = self._work / f"{number}.found"
            work.mkdir()
            listed, _ = read.entries(read.snapshot(part.repository, work))
            status = read.status(part.repository)
            names = [ref.name for ref in part.state.refs]
            prints.append(take(part.repository, part.state.path, entries=listed, nodes=found, refs=names, status=status))
            told += (f"{shown(path)} {how}." for path, how in listing.differences(part.nodes, found, DIFFERENCES_MAX))
            told += _differing_records(manifest.statuses[number], status)
        talks = self._folder / CONVERSATIONS
        arrived = Fingerprint(
            repositories=tuple(prints),
            conversations=tuple(
                transcripts.print_of_folder(each.session_id, talks / str(each.session_id))
                for each in manifest.fingerprint.conversations
            ),
            records=records_sum(self._folder / SPOOL),
        )
        if arrived != manifest.fingerprint:
            words = [*differences(manifest.fingerprint, arrived), *told[:DIFFERENCES_MAX]]
            raise FingerprintDiffers(f"{FingerprintDiffers().detail} {' '.join(words)}")


def _next(entries: Iterator[Entry], kind: Kind, repository: int = 0) -> Entry:
    """The next entry, which must be this one."""
    try:
        entry = next(entries)
    except StopIteration:
        raise BundleBroken from None
    if entry.kind is not kind or entry.header.repository != repository:
        raise BundleBroken
    return entry


def _receive(repository: Repository, entry: Entry) -> None:
    try:
        objects.receive(repository, entry.chunks())
    except (StateBroken, BaseMissing):
        for _ in entry.chunks():  # to its end: damage on the way is another error
            pass
        raise


def _check(nodes: list[Node], listed: list[index.Entry], inside: set[bytes]) -> None:
    """A listing and an index that are each possible must be so together. Raises :class:`BundleBroken`."""
    known = {entry.path: entry for entry in listed}
    modes = {FILE: {index.FILE, index.EXECUTABLE}, LINK: {index.LINK}}
    for entry in listed:
        checked_path(entry.path)
        if any(map(is_git_folder, entry.path.split(b"/"))):
            raise BundleBroken
    for path in inside:
        if path not in known or known[path].mode != index.GITLINK:
            raise BundleBroken
    for each in nodes:
        if not each.carried and each.kind != FOLDER:
            there = known.get(each.path)
            if there is None or there.oid != each.oid or there.mode not in modes[each.kind]:
                raise BundleBroken
        if any(each.path == path or each.path.startswith(path + b"/") or path.startswith(each.path + b"/") for path in inside):
            raise BundleBroken


def _wanted(state: RepositoryState, listed: list[index.Entry]) -> Iterator[str]:
    """All objects that a repository must have to be what it was."""
    if state.head is not None:
        yield state.head
    yield from (ref.oid for ref in state.refs if ref.oid is not None)
    yield from (entry.commit for entry in state.stash)
    yield from (entry.oid for entry in listed if entry.mode != index.GITLINK and not entry.intent_to_add)


def _walked(part: _Part) -> list[Node]:
    nothing = frozenset[bytes]()
    judge = Judge(
        tracked=frozenset(entry.path for entry in part.entries),
        submodules=part.submodules,
        ignored=nothing,
        included=nothing,
        said=nothing,
        credentials=True,
    )
    walked = walk(part.repository.worktree, judge)
    with Opened(part.repository.worktree) as opened:
        found = sorted(walked.found, key=lambda each: each.path)
        return [node(opened, each, part.repository.object_format, lambda *_: None) for each in found]


def _differing_records(expected: bytes | None, found: bytes) -> list[str]:
    if expected is None:
        return []
    one, other = (text.split(b"\0") for text in (expected, found))
    return [f"git status said '{shown(record)}'." for record in one if record not in set(other)] + [
        f"git status says '{shown(record)}'." for record in other if record not in set(one)
    ]


class _Telling:
    """Says how much of the files is unpacked."""

    def __init__(self, progress: OnProgress) -> None:
        self._progress = progress
        self._done = self._told = self._total = 0

    def begin(self, total_bytes: int) -> None:
        self._total = total_bytes
        self.step(UNPACKING)

    def step(self, step: str) -> None:
        self._progress(Progress(step=step, done_bytes=self._done, total_bytes=self._total))

    def through(self, content: Iterator[bytes]) -> Iterator[bytes]:
        for piece in content:
            self._done += len(piece)
            if self._done - self._told > _TELL_EVERY_BYTES:
                self._told = self._done
                self.step(UNPACKING)
            yield piece
