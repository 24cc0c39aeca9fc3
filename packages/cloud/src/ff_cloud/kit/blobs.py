"""Large objects by name, kept where a lost host does not take them along: a folder (of another disk, of a network), or S3.

What is stored is never changed: whoever has something newer stores it under another name.
"""

import asyncio
import hashlib
import os
import re
import tempfile
from collections.abc import AsyncGenerator, AsyncIterable, Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import islice
from pathlib import Path
from typing import IO, ParamSpec, Protocol, TypeVar

from ff_core.errors import FFError

P = ParamSpec("P")
T = TypeVar("T")

CHUNK_BYTES = 1024 * 1024
KEY_CHARS_MAX = 500
LIST_MAX = 1000
"""Of a page of names."""
_KEY = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._-]*(/[A-Za-z0-9_-][A-Za-z0-9._-]*)*\Z")
_PREFIX = re.compile(r"([A-Za-z0-9_-][A-Za-z0-9._-]*/)*\Z")


class BlobMissing(FFError):
    """What should be stored there is not. If the store is a folder, see that it is the right one and is mounted."""

    code = "blob_missing"


class BlobDamaged(FFError):
    """What is stored is not what was once put there."""

    code = "blob_damaged"


class BlobsUnavailable(FFError):
    """The store for checkpoints can't be reached, refuses us, or is full; FF_CHECKPOINT_STORE says which one it is."""

    code = "blobs_unavailable"
    status = 503


@dataclass(frozen=True, slots=True)
class Stored:
    """What was put."""

    size: int
    sha256: str
    """In hexadecimal digits."""


@dataclass(frozen=True, slots=True)
class BlobInfo:
    """What is there."""

    key: str
    size: int
    modified_at: datetime


class Blobs(Protocol):
    """A store. A key is one or more names of letters, digits, ``.``, ``_`` and ``-`` with slashes between, or a ``ValueError``.

    All methods raise :class:`BlobsUnavailable`. Any number of processes may use one store at the same time.
    """

    async def put(self, key: str, chunks: AsyncIterable[bytes]) -> Stored:
        """Store everything that ``chunks`` gives: when this returns it is there and survives a crash, and before it is not.

        What ``chunks`` raises is raised, and nothing is there then. One that is there already is replaced as a whole.
        """
        ...

    def get(self, key: str, *, expected: Stored | None = None) -> AsyncGenerator[bytes, None]:
        """What is stored, in pieces. Close it when you don't read it to its end.

        Raises :class:`BlobMissing` before the first piece; :class:`BlobDamaged` instead of ending when it is not ``expected``.
        """
        ...

    async def head(self, key: str) -> BlobInfo | None:
        """What is there, or None."""
        ...

    async def delete(self, key: str) -> None:
        """Remove it; fine when there is none."""
        ...

    def list(self, prefix: str = "") -> AsyncGenerator[BlobInfo, None]:
        """Everything below ``prefix``, which is empty or ends with a slash, in no order; what comes meanwhile may be missed."""
        ...

    async def tidy(self, older_than: datetime) -> int:
        """Remove what interrupted ``put`` calls left behind before that time; how much there was."""
        ...


def checked_key(key: str) -> str:
    """The key, if it is one. Pure. Raises ``ValueError``."""
    if len(key) > KEY_CHARS_MAX or not _KEY.match(key):
        raise ValueError(f"not a key of a blob: {key[:100]!r}")
    return key


def checked_prefix(prefix: str) -> str:
    """The same for a prefix."""
    if len(prefix) > KEY_CHARS_MAX or not _PREFIX.match(prefix):
        raise ValueError(f"not a prefix of keys: {prefix[:100]!r}")
    return prefix


async def measured(chunks: AsyncIterable[bytes], tally: "Tally") -> AsyncGenerator[bytes, None]:
    """The same pieces, counted in ``tally``."""
    async for chunk in chunks:
        tally.add(chunk)
        yield chunk


class Tally:
    """Size and hash of what passes."""

    def __init__(self) -> None:
        self._hash = hashlib.sha256()
        self._size = 0

    def add(self, chunk: bytes) -> None:
        """The next piece."""
        self._hash.update(chunk)
        self._size += len(chunk)

    def stored(self) -> Stored:
        """What passed so far."""
        return Stored(self._size, self._hash.hexdigest())

    def require(self, expected: Stored | None) -> None:
        """Raise :class:`BlobDamaged` when something else passed."""
        if expected is not None and self.stored() != expected:
            raise BlobDamaged


def open_blobs(place: Path | str, *, endpoint: str | None = None) -> Blobs:
    """The store at ``place``, a folder or ``s3://bucket/prefix``; ``endpoint`` is that of an S3 service other than Amazon's."""
    bucket, _, prefix = str(place).removeprefix("s3://").partition("/")
    if not str(place).startswith("s3://"):
        return FolderBlobs(Path(place))
    from ff_cloud.kit.blobs_s3 import S3Blobs  # noqa: PLC0415  (20 MB that a folder does not need)

    return S3Blobs(bucket, prefix.strip("/"), endpoint=endpoint)


class FolderBlobs:
    """Blobs as files below ``root``, which is made when it is missing; for our eyes only."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._incoming = root / ".incoming"

    async def put(self, key: str, chunks: AsyncIterable[bytes]) -> Stored:
        """See :class:`Blobs`."""
        path = self._path(key)
        tally = Tally()
        file = await self._do(self._open)
        try:
            waiting: list[bytes] = []
            size = 0
            async for chunk in measured(chunks, tally):
                waiting.append(chunk)
                size += len(chunk)
                if size >= CHUNK_BYTES:
                    await self._do(_write, file, waiting)
                    waiting, size = [], 0
            await self._do(_write, file, waiting)
            await self._do(_settle, file, path)
        except BaseException:
            # Also when we are cancelled: a thread that still writes does so into a file that has no name any more.
            with suppress(OSError):
                file.close()
            with suppress(OSError):
                os.unlink(file.name)  # noqa: PTH108  (nothing to wait for)
            raise
        return tally.stored()

    async def get(self, key: str, *, expected: Stored | None = None) -> AsyncGenerator[bytes, None]:
        """See :class:`Blobs`."""
        path = self._path(key)
        tally = Tally()
        try:
            file = await asyncio.to_thread(path.open, "rb")
        except FileNotFoundError as exc:
            raise BlobMissing from exc
        except OSError as exc:
            raise BlobsUnavailable from exc
        with file:
            while chunk := await self._do(file.read, CHUNK_BYTES):
                tally.add(chunk)
                yield chunk
        tally.require(expected)

    async def head(self, key: str) -> BlobInfo | None:
        """See :class:`Blobs`."""
        path = self._path(key)
        try:
            return await self._do(self._info, path)
        except BlobMissing:
            return None

    async def delete(self, key: str) -> None:
        """See :class:`Blobs`."""
        await self._do(self._path(key).unlink, missing_ok=True)

    async def list(self, prefix: str = "") -> AsyncGenerator[BlobInfo, None]:
        """See :class:`Blobs`."""
        found = self._walk(self._root / checked_prefix(prefix))
        while page := await self._do(_page, found):
            for path in page:
                with suppress(BlobMissing):
                    yield await self._do(self._info, path)

    async def tidy(self, older_than: datetime) -> int:
        """See :class:`Blobs`. Removes empty folders too."""
        return await self._do(self._tidy, older_than)

    async def _do(self, act: Callable[P, T], *arguments: P.args, **named: P.kwargs) -> T:
        try:
            return await asyncio.to_thread(act, *arguments, **named)
        except FileNotFoundError as exc:
            raise BlobMissing from exc
        except OSError as exc:
            raise BlobsUnavailable(f"The folder for checkpoints can't be used: {exc.strerror}.") from exc

    def _path(self, key: str) -> Path:
        return self._root / checked_key(key)

    def _open(self) -> IO[bytes]:
        for folder in (self._root, self._incoming):
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        return tempfile.NamedTemporaryFile(dir=self._incoming, delete=False)  # of mode 0600

    def _info(self, path: Path) -> BlobInfo:
        seen = path.stat()
        key = path.relative_to(self._root).as_posix()
        return BlobInfo(key, seen.st_size, datetime.fromtimestamp(seen.st_mtime, UTC))

    def _walk(self, top: Path) -> Iterator[Path]:
        for folder, folders, files in os.walk(top):
            folders[:] = [name for name in folders if not name.startswith(".")]
            yield from (Path(folder) / name for name in files)

    def _tidy(self, older_than: datetime) -> int:
        count = 0
        for path in self._incoming.iterdir() if self._incoming.is_dir() else ():
            with suppress(FileNotFoundError):
                if path.stat().st_mtime < older_than.timestamp():
                    path.unlink()
                    count += 1
        for folder, _, _ in os.walk(self._root, topdown=False):
            if Path(folder) not in {self._root, self._incoming}:
                with suppress(OSError):  # it is not empty, or somebody just put something there
                    os.rmdir(folder)  # noqa: PTH106
        return count


def _write(file: IO[bytes], chunks: list[bytes]) -> None:
    for chunk in chunks:
        file.write(chunk)


def _settle(file: IO[bytes], path: Path) -> None:
    """Give a file that is complete its name, for good."""
    file.flush()
    os.fsync(file.fileno())
    file.close()
    for tries_left in (2, 1, 0):
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        try:
            os.replace(file.name, path)  # noqa: PTH105
            break
        except FileNotFoundError:
            if tries_left == 0:  # else somebody tidied the empty folder away
                raise
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def _page(found: Iterator[Path]) -> list[Path]:
    return list(islice(found, LIST_MAX))
