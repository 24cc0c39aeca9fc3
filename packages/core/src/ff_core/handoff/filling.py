"""Make one working tree equal to another, file by file, where somebody works: what he did meanwhile is seen before it is lost.

Each file appears at once or not at all, no link is followed on the way to it, and all of it may be repeated. What is in the way
and was not looked at when this began stops it.
"""

import errno
import os
import shutil
import stat
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from hashlib import sha256
from pathlib import Path

from ff_core.git.exact.words import shown
from ff_core.handoff.errors import WorktreeChanged
from ff_core.handoff.include import parents
from ff_core.handoff.listing import FILE, FOLDER, LINK
from ff_core.handoff.walk import OPEN_FILE, OPEN_FOLDER, PIECE_BYTES, Found

Signature = tuple[int, ...]
"""Of a file: the same as before means that nobody touched it. See ``Found.signature``."""
OnBytes = Callable[[int, int], None]
_TEMPORARY = b".ff-%s-%s"
_KERNEL_BYTES = 1 << 30


class Filling:
    """``source`` has all that ``target`` is to have; ``before`` is what travelled from there, and may be replaced and removed.

    ``tag`` names temporary files, so that those which were left are found again. ``equal``: whether a file need not be compared.
    ``keep``: what is not removed, though it is not in ``source``.
    """

    def __init__(
        self,
        source: Path,
        target: Path,
        *,
        tag: str,
        before: Mapping[bytes, Signature],
        equal: Callable[[bytes], bool],
        keep: Callable[[bytes], bool],
    ) -> None:
        self._source, self._target = os.fsencode(source), os.fsencode(target)
        self._tag = tag.encode()
        self._before, self._equal, self._keep = before, equal, keep

    def run(self, wanted: Sequence[Found], on_bytes: OnBytes = lambda _done, _total: None) -> None:
        """Raises :class:`WorktreeChanged`, or ``OSError``; then repeating it goes on, when the reason is gone."""
        self._remove(wanted)
        total = sum(each.stat.st_size for each in wanted if each.kind == FILE)
        done = 0
        with _Folders(self._target, self._make_way) as folders:
            for each in sorted(wanted, key=lambda found: found.path):
                self._put(folders, each)
                done += each.stat.st_size if each.kind == FILE else 0
                on_bytes(done, total)

    def _remove(self, wanted: Sequence[Found]) -> None:
        stays = {each.path for each in wanted}
        folders = {parent for path in stays for parent in parents(path)}
        for path in sorted(self._before, reverse=True):
            if path in stays or self._keep(path):
                continue
            place = self._place(path)
            seen = _seen(place)
            if seen is None or (stat.S_ISDIR(seen.st_mode) and path in folders):
                continue
            if stat.S_ISDIR(seen.st_mode):
                _remove_folder(place)
            else:
                self._require_known(path, seen)
                os.unlink(place)  # noqa: PTH108  (bytes)
            for parent in parents(path):
                if parent in folders or not _remove_folder(self._place(parent)):
                    break

    def _put(self, folders: "_Folders", each: Found) -> None:
        folder, name = folders.at(each.path)
        if each.kind == FOLDER:
            folders.enter(each.path)
            return
        seen = _seen_in(folder, name)
        if seen is not None and self._is_same(folder, name, each, seen):
            if each.kind == FILE and (seen.st_mode ^ each.stat.st_mode) & stat.S_IXUSR:
                os.chmod(name, stat.S_IMODE(each.stat.st_mode), dir_fd=folder)
            return
        if seen is not None and stat.S_ISDIR(seen.st_mode):
            self._require_empty(folder, name, each.path)
        elif seen is not None:
            self._require_known(each.path, seen)
        temporary = _TEMPORARY % (self._tag[:12], sha256(each.path).hexdigest()[:12].encode())
        with suppress(FileNotFoundError):
            os.unlink(temporary, dir_fd=folder)
        source = os.path.join(self._source, each.path)  # noqa: PTH118  (bytes)
        if each.kind == LINK:
            os.symlink(os.readlink(source), temporary, dir_fd=folder)  # noqa: PTH115  (bytes)
        else:
            _copy(source, folder, temporary)
        os.rename(temporary, name, src_dir_fd=folder, dst_dir_fd=folder)

    def _is_same(self, folder: int, name: bytes, each: Found, seen: os.stat_result) -> bool:
        if stat.S_IFMT(seen.st_mode) != stat.S_IFMT(each.stat.st_mode):
            return False
        source = os.path.join(self._source, each.path)  # noqa: PTH118  (bytes)
        if each.kind == LINK:
            return os.readlink(name, dir_fd=folder) == os.readlink(source)  # noqa: PTH115  (bytes)
        if seen.st_size != each.stat.st_size:
            return False
        return self._equal(each.path) or _same_content(folder, name, source)

    def _make_way(self, folder: int, name: bytes, path: bytes) -> None:
        """Something is where a folder has to be."""
        self._require_known(path, os.stat(name, dir_fd=folder, follow_symlinks=False))
        os.unlink(name, dir_fd=folder)

    def _require_known(self, path: bytes, seen: os.stat_result) -> None:
        known = self._before.get(path)
        if known is None or signature(seen) != known:
            raise WorktreeChanged(f"{shown(path)} has changed while the workspace came back; it is not overwritten.")

    def _require_empty(self, folder: int, name: bytes, path: bytes) -> None:
        try:
            os.rmdir(name, dir_fd=folder)
        except OSError as error:
            raise WorktreeChanged(f"The folder {shown(path)} has files that would be lost; it is not overwritten.") from error

    def _place(self, path: bytes) -> bytes:
        return os.path.join(self._target, path)  # noqa: PTH118  (bytes)


class _Folders:
    """Open folders below ``top``, made where they are missing. ``make_way`` is asked where something else is."""

    def __init__(self, top: bytes, make_way: Callable[[int, bytes, bytes], None]) -> None:
        self._make_way = make_way
        self._open: list[tuple[bytes, int]] = [(b"", os.open(top, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC))]

    def __enter__(self) -> "_Folders":
        return self

    def __exit__(self, *_: object) -> None:
        while self._open:
            os.close(self._open.pop()[1])

    def at(self, path: bytes) -> tuple[int, bytes]:
        """The open folder that a path is in, and its name there."""
        parent, _, name = path.rpartition(b"/")
        return self.enter(parent), name

    def enter(self, folder: bytes) -> int:
        """A folder, open."""
        while self._open[-1][0] and not (folder + b"/").startswith(self._open[-1][0] + b"/"):
            os.close(self._open.pop()[1])
        at = self._open[-1][0]
        for part in filter(None, folder[len(at) :].split(b"/")):
            at = at + b"/" + part if at else part
            self._open.append((at, self._entered(self._open[-1][1], part, at)))
        return self._open[-1][1]

    def _entered(self, above: int, name: bytes, path: bytes) -> int:
        try:
            return os.open(name, OPEN_FOLDER, dir_fd=above)
        except FileNotFoundError:
            os.mkdir(name, dir_fd=above)
        except OSError as error:
            if error.errno not in {errno.ENOTDIR, errno.ELOOP}:
                raise
            self._make_way(above, name, path)
            os.mkdir(name, dir_fd=above)
        return os.open(name, OPEN_FOLDER, dir_fd=above)


def signature(seen: os.stat_result) -> Signature:
    """Of something that is not a folder; the same as ``Found.signature``."""
    return Found(b"", FILE, seen).signature


def in_the_way(
    source: Path, target: Path, wanted: Iterable[Found], travelled: Mapping[bytes, Signature], most: int
) -> list[bytes]:
    """The first paths at which something is that did not travel, and that is not what would be put there."""
    found: list[bytes] = []
    looked: set[bytes] = set()
    for each in wanted:
        if len(found) >= most:
            break
        for path in (each.path, *parents(each.path)):
            if path in looked:
                break
            looked.add(path)
            seen = _seen(os.path.join(os.fsencode(target), path))  # noqa: PTH118  (bytes)
            if seen is None or path in travelled:
                continue
            is_folder = stat.S_ISDIR(seen.st_mode)
            if path != each.path or each.kind == FOLDER:
                blocked = not is_folder
            elif is_folder:
                blocked = _holds_others(target, path, travelled)
            else:
                blocked = not _is_what_comes(source, target, each, seen)
            if blocked:
                found.append(path)
    return found


def _is_what_comes(source: Path, target: Path, each: Found, seen: os.stat_result) -> bool:
    if stat.S_IFMT(seen.st_mode) != stat.S_IFMT(each.stat.st_mode):
        return False
    one, other = (os.path.join(os.fsencode(top), each.path) for top in (source, target))  # noqa: PTH118  (bytes)
    if each.kind == LINK:
        return os.readlink(one) == os.readlink(other)  # noqa: PTH115  (bytes)
    if seen.st_size != each.stat.st_size:
        return False
    folder = os.open(os.path.dirname(other), OPEN_FOLDER)  # noqa: PTH120  (bytes)
    try:
        return _same_content(folder, os.path.basename(other), one)  # noqa: PTH119  (bytes)
    finally:
        os.close(folder)


def _holds_others(target: Path, folder: bytes, travelled: Mapping[bytes, Signature]) -> bool:
    """Whether a folder has files that did not travel."""
    top = os.fsencode(target)
    for where, _, names in os.walk(os.path.join(top, folder)):  # noqa: PTH118  (bytes)
        for name in names:
            if os.path.relpath(os.path.join(where, name), top) not in travelled:  # noqa: PTH118  (bytes)
                return True
    return False


def _same_content(folder: int, name: bytes, source: bytes) -> bool:
    with (
        os.fdopen(os.open(name, OPEN_FILE, dir_fd=folder), "rb") as one,
        os.fdopen(os.open(source, OPEN_FILE), "rb") as other,
    ):
        while True:
            piece = one.read(PIECE_BYTES)
            if piece != other.read(PIECE_BYTES):
                return False
            if not piece:
                return True


def _copy(source: bytes, folder: int, name: bytes) -> None:
    """A file of its own, never a second name of the source: that one has to stay what it is until all of this is over."""
    made = os.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600, dir_fd=folder)
    with os.fdopen(made, "wb", buffering=0) as file, os.fdopen(os.open(source, OPEN_FILE), "rb", buffering=0) as given:
        seen = os.fstat(given.fileno())
        if not _copied_by_the_kernel(given.fileno(), made):
            shutil.copyfileobj(given, file, PIECE_BYTES)
        os.fchmod(made, stat.S_IMODE(seen.st_mode))
        os.utime(made, ns=(seen.st_mtime_ns, seen.st_mtime_ns))


def _copied_by_the_kernel(source: int, target: int) -> bool:
    """Where the system can: without moving the bytes, on file systems that share blocks. Otherwise nothing was written."""
    if not hasattr(os, "copy_file_range"):
        return False
    begun = False
    try:
        while os.copy_file_range(source, target, _KERNEL_BYTES):
            begun = True
    except OSError:
        if begun:
            raise
        return False
    return True


def _seen(place: bytes) -> os.stat_result | None:
    try:
        return os.lstat(place)
    except (FileNotFoundError, NotADirectoryError):
        return None


def _seen_in(folder: int, name: bytes) -> os.stat_result | None:
    try:
        return os.stat(name, dir_fd=folder, follow_symlinks=False)
    except FileNotFoundError:
        return None


def _remove_folder(place: bytes) -> bool:
    """Remove a folder with nothing in it; whether it is gone."""
    try:
        os.rmdir(place)  # noqa: PTH106  (bytes)
    except FileNotFoundError:
        return True
    except OSError:
        return False
    return True
