"""Take archives apart, and build the tree that the last of them describes.

Nothing that an archive says is believed. Blocks are named by what they are, so none can be exchanged; the list is checked line by
line and has to have the digest that was asked for; and all of it happens in a folder of ours, which nobody else can enter, so
nobody can lay links in the way. A tree that was built is moved to its place as a whole, by the caller.
"""

import errno
import json
import os
import shutil
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

from pydantic import ValidationError

from ff_core.checkpoint.content import HOLE_SHA256
from ff_core.checkpoint.errors import ArchiveBroken, CheckpointDiskFull
from ff_core.checkpoint.frames import BLOCK, BLOCK_BYTES, ENTRIES, FORMAT, HEADER, Source, read_frames
from ff_core.checkpoint.manifest import LINE_BYTES_MAX, Digest, Entry, Kind, Line, applied, keyed, merged, parse
from ff_core.checkpoint.policy import DATABASE, HOME, PRIVATE, REPO
from ff_core.checkpoint.walk import OPEN_FOLDER
from ff_core.contract.checkpoint import CheckpointRef, Packed

ARCHIVES_MAX = 200
ENTRIES_MAX = 5_000_000
CONTENT_BYTES_MAX = 512 * 1024**3
"""Of all blocks together. What a small archive can become is bounded by this, and long before by the disk, whose end is an
error like any other; a bound on how well it compresses would keep real logs from being restored."""


@dataclass(frozen=True, slots=True)
class Owner:
    """Whose the tree becomes, but for what is private."""

    uid: int
    gid: int


class Unpacking:
    """Works in ``folder``, which is emptied first and must be on the filesystem that the tree will live on.

    ``stopped`` is asked again and again; true ends the work with :class:`ArchiveBroken`.
    """

    def __init__(self, folder: Path, *, stopped: Callable[[], bool] = lambda: False) -> None:
        self._folder = folder
        self._stopped = stopped
        self._content_bytes = 0
        self._list = folder / "list"
        self.tree = folder / "tree"
        """What :meth:`build` makes: ``repo``, ``home`` and ``.ff``, as far as the archive has them."""

    def receive(self, source: Source, wanted: CheckpointRef) -> Packed:
        """Read the chain of archives that ends with ``wanted``, the oldest first, up to the end of ``source``.

        Memory: one frame. Raises :class:`ArchiveBroken` and :class:`CheckpointDiskFull`.
        """
        with _disk_full():
            shutil.rmtree(self._folder, ignore_errors=True)
            (self._folder / "blocks").mkdir(parents=True, mode=0o700)
            for number in range(256):
                (self._folder / "blocks" / f"{number:02x}").mkdir()
            self._list.touch()
            packed = self._archives(source)
        if packed is None or packed.ref != wanted:
            raise ArchiveBroken("The checkpoint that came is not the one that was asked for; nothing of it was restored.")
        return packed

    def build(self, owner: Owner | None) -> None:
        """Make the tree from what was received. Raises :class:`ArchiveBroken` and :class:`CheckpointDiskFull`."""
        with _disk_full():
            self.tree.mkdir(mode=0o700)
            root = os.open(self.tree, OPEN_FOLDER)
            try:
                _Builder(root, self._folder / "blocks", owner, self._stopped).build(self.entries)
            finally:
                os.close(root)
            shutil.rmtree(self._folder / "blocks")

    def lines(self) -> Iterator[str]:
        """The list of the newest checkpoint that was received."""
        with self._list.open(encoding="ascii", newline="\n") as file:
            for line in file:
                yield line.rstrip("\n")

    def entries(self) -> Iterator[Entry]:
        """The same, as entries."""
        return map(parse, self.lines())

    def _archives(self, source: Source) -> Packed | None:
        packed: Packed | None = None
        inside = False
        archives = 0
        change = self._folder / "change"
        for kind, payload in read_frames(source):
            if self._stopped() or (kind != HEADER and not inside):
                raise ArchiveBroken
            match kind:
                case _ if kind == HEADER:
                    archives += 1
                    if inside or archives > ARCHIVES_MAX:
                        raise ArchiveBroken
                    _check_header(payload, packed)
                    inside = True
                    change.write_bytes(b"")
                case _ if kind == BLOCK:
                    self._block(payload)
                case _ if kind == ENTRIES:
                    if not payload.endswith(b"\n"):  # so no line is longer than a frame
                        raise ArchiveBroken
                    with change.open("ab") as file:
                        file.write(payload)
                case _:
                    packed = self._end(payload, packed, change)
                    inside = False
        if inside:
            raise ArchiveBroken("The checkpoint is not complete, so nothing of it was restored.")
        return packed

    def _block(self, payload: bytes) -> None:
        self._content_bytes += len(payload)
        if not 0 < len(payload) <= BLOCK_BYTES or self._content_bytes > CONTENT_BYTES_MAX:
            raise ArchiveBroken
        name = sha256(payload).hexdigest()
        path = self._folder / "blocks" / name[:2] / name[2:]
        try:
            fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        except FileExistsError:
            return
        with os.fdopen(fd, "wb", buffering=0) as file:
            file.write(payload)

    def _end(self, payload: bytes, before: Packed | None, change: Path) -> Packed:
        """Bring the list up to date, and see that it is what the archive says it is."""
        try:
            packed = Packed.model_validate_json(payload)
        except ValidationError as exc:
            raise ArchiveBroken from exc
        newer = self._folder / "list.newer"
        digest = Digest()
        count = 0
        with change.open(encoding="ascii", newline="\n", errors="strict") as changed, newer.open("w", encoding="ascii") as file:
            old = keyed(self.lines()) if before is not None else iter(())
            for line in applied(old, merged(_changed(changed))):
                count += 1
                if count > ENTRIES_MAX or self._stopped():
                    raise ArchiveBroken
                digest.add(line)
                file.write(f"{line}\n")
        if digest.hex() != packed.tree_sha256:
            raise ArchiveBroken
        newer.replace(self._list)
        return packed


class _Builder:
    """Makes folders, links and files in the folder open as ``root``, in three goes through the list.

    A file of one block *is* that block, linked to its place. One of several is put together of them, and each is removed when
    it is not needed any more: so the disk never holds much more than the tree. Modes and times of folders come last.
    """

    def __init__(self, root: int, blocks: Path, owner: Owner | None, stopped: Callable[[], bool]) -> None:
        self._root = root
        self._blocks = os.open(blocks, OPEN_FOLDER)
        self._owner = owner
        self._stopped = stopped
        self._uses: Counter[str] = Counter()

    def build(self, entries: Callable[[], Iterator[Entry]]) -> None:
        try:
            for folder, name, entry in self._places(entries()):
                self._small(folder, name, entry)
            for folder, name, entry in self._places(entries()):
                if len(entry.blocks) > 64:
                    self._large(folder, name, entry)
            self._folders(entries())
        finally:
            os.close(self._blocks)

    def _places(self, entries: Iterator[Entry]) -> Iterator[tuple[int, bytes, Entry]]:
        """Each entry with its name in its open parent folder. Raises ``ArchiveBroken`` when its parent is not in the list."""
        with _Stack(self._root) as stack:
            for entry in entries:
                if self._stopped() or not _allowed(entry):
                    raise ArchiveBroken
                if entry.kind is Kind.LEFT_OUT:
                    continue
                parent, _, name = entry.path.rpartition(b"/")
                stack.leave_to(parent)
                yield stack.folder, name, entry
                if entry.kind is Kind.FOLDER:
                    stack.enter(entry, name)

    def _small(self, folder: int, name: bytes, entry: Entry) -> None:
        match entry.kind:
            case Kind.FOLDER:
                os.mkdir(name, 0o700, dir_fd=folder)
            case Kind.LINK:
                os.symlink(entry.text, name, dir_fd=folder)
                os.utime(name, ns=(entry.mtime_ns, entry.mtime_ns), dir_fd=folder, follow_symlinks=False)
                if (owner := self._owner_of(entry)) is not None:
                    os.chown(name, owner.uid, owner.gid, dir_fd=folder, follow_symlinks=False)
            case _:
                hashes = entry.hashes()
                if len(hashes) > 1:
                    self._uses.update(hashes)
                elif not hashes or not self._link(hashes[0], folder, name, entry.size):
                    self._write(folder, name, entry, hashes)  # empty, or the same as another
                else:
                    fd = os.open(name, os.O_WRONLY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=folder)
                    self._dress(fd, entry)

    def _large(self, folder: int, name: bytes, entry: Entry) -> None:
        self._write(folder, name, entry, hashes := entry.hashes())
        for block in hashes:
            self._uses[block] -= 1
            if self._uses[block] == 0:
                os.unlink(f"{block[:2]}/{block[2:]}", dir_fd=self._blocks)

    def _link(self, block: str, folder: int, name: bytes, size: int) -> bool:
        """Link a block to its place; false when it has one already."""
        path = f"{block[:2]}/{block[2:]}"
        try:
            seen = os.stat(path, dir_fd=self._blocks, follow_symlinks=False)
        except FileNotFoundError as exc:
            raise ArchiveBroken from exc
        if seen.st_size != size:
            raise ArchiveBroken
        if seen.st_nlink > 1:
            return False
        os.link(path, name, src_dir_fd=self._blocks, dst_dir_fd=folder, follow_symlinks=False)
        return True

    def _write(self, folder: int, name: bytes, entry: Entry, hashes: list[str]) -> None:
        fd = os.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600, dir_fd=folder)
        try:
            at = 0
            for block in hashes:
                at += self._append(fd, at, block)
            os.ftruncate(fd, at)
        except BaseException:
            os.close(fd)
            raise
        self._dress(fd, entry)
        if at != entry.size:
            raise ArchiveBroken

    def _append(self, fd: int, at: int, block: str) -> int:
        try:
            source = os.open(f"{block[:2]}/{block[2:]}", os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=self._blocks)
        except FileNotFoundError as exc:
            raise ArchiveBroken from exc
        try:
            size = os.fstat(source).st_size
            if block != HOLE_SHA256:
                os.lseek(fd, at, os.SEEK_SET)
                done = 0
                while done < size:
                    done += os.sendfile(fd, source, done, size - done)
            return size
        finally:
            os.close(source)

    def _dress(self, fd: int, entry: Entry) -> None:
        """Mode, time, owner, in the order that needs no right but CHOWN; then close."""
        try:
            os.fchmod(fd, entry.mode & 0o777)  # nothing here runs as somebody else
            os.utime(fd, ns=(entry.mtime_ns, entry.mtime_ns))
            if (owner := self._owner_of(entry)) is not None:
                os.fchown(fd, owner.uid, owner.gid)
        finally:
            os.close(fd)

    def _folders(self, entries: Iterator[Entry]) -> None:
        """Mode, time and owner of folders, each after everything in it."""
        with _Stack(self._root) as stack:
            for entry in entries:
                if entry.kind is Kind.FOLDER:
                    parent, _, name = entry.path.rpartition(b"/")
                    for fd, left in stack.leave_to(parent, keep=True):
                        self._dress_folder(fd, left)
                    stack.enter(entry, name)
            for fd, left in stack.leave_to(b"", keep=True):
                self._dress_folder(fd, left)

    def _dress_folder(self, fd: int, entry: Entry) -> None:
        try:
            os.fchmod(fd, entry.mode & 0o3777)
            os.utime(fd, ns=(entry.mtime_ns, entry.mtime_ns))
            if (owner := self._owner_of(entry)) is not None:
                os.fchown(fd, owner.uid, owner.gid)
        finally:
            os.close(fd)

    def _owner_of(self, entry: Entry) -> Owner | None:
        return None if entry.path.split(b"/", 1)[0] == PRIVATE else self._owner


class _Stack:
    """The folders from the root down to where we are, open."""

    def __init__(self, root: int) -> None:
        self._root = root
        self._open: list[tuple[int, Entry]] = []

    @property
    def folder(self) -> int:
        return self._open[-1][0] if self._open else self._root

    def enter(self, entry: Entry, name: bytes) -> None:
        if len(self._open) > DEPTH_MAX:
            raise ArchiveBroken
        self._open.append((os.open(name, OPEN_FOLDER, dir_fd=self.folder), entry))

    def leave_to(self, parent: bytes, *, keep: bool = False) -> list[tuple[int, Entry]]:
        """Go up to ``parent``; with ``keep`` the folders that were left are returned, the inmost first, and still open."""
        left = []
        while self._open and self._open[-1][1].path != parent:
            left.append(self._open.pop())
            if not keep:
                os.close(left[-1][0])
        if not self._open and parent:
            for fd, _ in left if keep else ():
                os.close(fd)
            raise ArchiveBroken
        return left

    def __enter__(self) -> "_Stack":
        return self

    def __exit__(self, *_: object) -> None:
        while self._open:
            os.close(self._open.pop()[0])


DEPTH_MAX = 220


def _check_header(payload: bytes, before: Packed | None) -> None:
    """An archive stands on the one before it, and the first on none."""
    try:
        header = json.loads(payload)
        base = None if header["base"] is None else CheckpointRef.model_validate(header["base"])
        known = header["format"] == FORMAT
    except (ValueError, KeyError, TypeError, RecursionError) as exc:
        raise ArchiveBroken from exc
    if not known:
        raise ArchiveBroken("The checkpoint was made by another version of this program; use that one to restore it.")
    if base != (None if before is None else before.ref):
        raise ArchiveBroken


def _changed(file: Iterator[str]) -> Iterator[Line]:
    try:
        for line in file:
            if len(line) > LINE_BYTES_MAX or not line.endswith("\n"):
                raise ArchiveBroken
            text = line.removesuffix("\n")
            entry = parse(text)
            yield Line(entry.path.replace(b"/", b"\0"), text)
    except UnicodeDecodeError as exc:
        raise ArchiveBroken from exc


def _allowed(entry: Entry) -> bool:
    root = entry.path.split(b"/", 1)[0]
    if root == PRIVATE:
        return (entry.path == PRIVATE and entry.kind is Kind.FOLDER) or (entry.path == DATABASE and entry.kind is Kind.FILE)
    return root in {REPO, HOME} and (entry.path != root or entry.kind in {Kind.FOLDER, Kind.LEFT_OUT})


@contextmanager
def _disk_full() -> Iterator[None]:
    try:
        yield
    except OSError as exc:
        if exc.errno in {errno.ENOSPC, errno.EDQUOT}:
            raise CheckpointDiskFull from exc
        raise
