"""A seed: what a repository had a while ago, carried into another place so that a clone there fetches only what is newer.

The control plane keeps bare mirrors (:mod:`ff_core.git.mirror`), :func:`pack` makes a stream of bytes out of one,
:func:`unpack` makes a bare repository out of that in a VM, and a clone borrows from it: ``git clone --reference=SEED`` asks
the real server what there is now and fetches what the seed has not. :func:`settle` then links the seed's packs into the new
repository and ends the borrowing. So what there is in the end was decided by ``git clone`` and the real server alone; the
seed only saved the way. It may be removed at once; the repository needs nothing outside itself.

The stream is a tar archive with few expected members, in this order: ``seed.json`` (:class:`Manifest`), ``packed-refs``,
and for each pack ``objects/pack/NAME.pack`` and ``.idx``. It is not compressed, because packs are. Nothing else is taken:
settings and hooks, which could run programs, are never read from it.
"""

import asyncio
import contextlib
import errno
import hashlib
import os
import re
import shutil
import tarfile
from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Callable
from datetime import datetime
from io import RawIOBase
from pathlib import Path
from typing import Annotated, Literal, Self, TypeVar

from pydantic import Field, ValidationError, model_validator

from ff_core.contract.base import Request
from ff_core.errors import FFError, TooLarge
from ff_core.git.errors import CloneDiskFull, GitFailed
from ff_core.process import RunAs, clean_env, run

MANIFEST = "seed.json"
REFS = "packed-refs"
PACKS = "objects/pack"
MANIFEST_BYTES_MAX = 64 << 10
REFS_BYTES_MAX = 32 << 20
PACKS_MAX = 64
"""Git itself repacks a repository with more than 50."""
PIECE_BYTES = 1 << 20
"""Read, hashed or written at a time, at least: what a stream costs in memory is a few of these, or of its own pieces."""
SETTLE_TIMEOUT_S = 60.0

_BLOCK = tarfile.BLOCKSIZE
_REF = re.compile(rb"[0-9a-f]{40} refs/(heads|tags)/[^\x00-\x20\x7f]+|\^[0-9a-f]{40}|#[^\x00-\x1f\x7f]*")
# As the user that both belong to, so that no link that he puts in the way leads where he can't go himself.
_SETTLE = """
set -eu
for file in "$1"/objects/pack/pack-*; do ln -f -- "$file" objects/pack/; done
rm -f objects/info/alternates
"""
_CONFIG = "[core]\n\trepositoryformatversion = 0\n\tfilemode = true\n\tbare = true\n"
_HEAD = "ref: refs/heads/main\n"

_Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
_Bytes = Annotated[int, Field(ge=0, le=1 << 50)]


_T = TypeVar("_T")


class SeedRefused(FFError):
    """This is not a seed of a repository, or it was damaged on the way; clone without it."""

    code = "seed_refused"
    status = 422


class Content(Request):
    """What a file must hold."""

    size_bytes: _Bytes
    sha256: _Sha256


class Pack(Request):
    """A pack with its index."""

    name: Annotated[str, Field(pattern=r"^pack-[0-9a-f]{40}$")]
    pack: Content
    idx: Content

    @property
    def files(self) -> tuple[tuple[str, Content], ...]:
        """The members of the archive."""
        return (f"{PACKS}/{self.name}.pack", self.pack), (f"{PACKS}/{self.name}.idx", self.idx)


class Manifest(Request):
    """What a seed is of, and what belongs to it."""

    format: Literal[1] = 1
    url: Annotated[str, Field(max_length=2048)]
    head: Annotated[str, Field(max_length=1024)] | None
    """The remote's own branch at that time, such as ``refs/heads/main``; None: detached."""
    fetched_at: datetime
    refs: Content
    packs: Annotated[tuple[Pack, ...], Field(min_length=1, max_length=PACKS_MAX)]

    @model_validator(mode="after")
    def _each_once(self) -> Self:
        if len({pack.name for pack in self.packs}) < len(self.packs):
            raise ValueError("a pack is named twice")
        if self.refs.size_bytes > REFS_BYTES_MAX:
            raise ValueError("too many refs")
        return self

    @property
    def files(self) -> tuple[tuple[str, Content], ...]:
        """The members of the archive after the manifest, in order."""
        return ((REFS, self.refs), *(file for pack in self.packs for file in pack.files))

    @property
    def size_bytes(self) -> int:
        """Of all files."""
        return sum(content.size_bytes for _, content in self.files)


def describe(repository: Path, *, url: str, fetched_at: datetime, known: Manifest | None = None) -> Manifest:
    """Write ``seed.json`` into a bare repository without loose objects and refs, which must not change any more; blocking.

    Packs that ``known`` names are not read again (their names are hashes of what they hold). Raises :class:`SeedRefused`
    when the repository can't be a seed: it is empty, or has more than :data:`PACKS_MAX` packs, or objects of another kind.
    """
    before = {pack.name: pack for pack in known.packs} if known else {}
    names = sorted(path.stem for path in (repository / PACKS).glob("pack-*.pack"))
    head = (repository / "HEAD").read_bytes().decode(errors="replace").strip()
    try:
        manifest = Manifest(
            url=url,
            head=head.removeprefix("ref: ") if head.startswith("ref: ") else None,
            fetched_at=fetched_at,
            refs=_content(repository / REFS),
            packs=tuple(before.get(name) or _described(repository / PACKS / name, name) for name in names),
        )
    except (ValidationError, FileNotFoundError) as error:
        raise SeedRefused from error
    written = manifest.model_dump_json().encode()
    if len(written) > MANIFEST_BYTES_MAX:
        raise SeedRefused
    (repository / MANIFEST).write_bytes(written)
    return manifest


def read(repository: Path) -> Manifest:
    """The ``seed.json`` of a repository; blocking. Raises :class:`SeedRefused` when there is none."""
    try:
        return Manifest.model_validate_json((repository / MANIFEST).read_bytes())
    except (OSError, ValidationError) as error:
        raise SeedRefused from error


async def pack(repository: Path) -> AsyncGenerator[bytes, None]:
    """A described repository as a stream, about :data:`PIECE_BYTES` at a time, as slowly as it is taken.

    The repository must stay as it is meanwhile. Raises :class:`SeedRefused` when a file is not what was described: the disk
    has damaged it.
    """
    manifest = await asyncio.to_thread(read, repository)
    whole = manifest.model_dump_json().encode()
    yield _header(MANIFEST, len(whole)) + whole + _padding(len(whole))
    for name, content in manifest.files:
        yield _header(name, content.size_bytes)
        left, hashed = content.size_bytes, hashlib.sha256()
        with await asyncio.to_thread((repository / name).open, "rb", buffering=0) as file:
            while left:
                piece = await asyncio.to_thread(_read_hashed, file, min(left, PIECE_BYTES), hashed)
                if not piece:
                    raise SeedRefused(f"{name} is shorter than it was.")
                left -= len(piece)
                if not left and hashed.hexdigest() != content.sha256:
                    raise SeedRefused(f"{name} is not what it was.")  # before the receiver sees it too and turns away
                yield piece
        yield _padding(content.size_bytes)
    yield bytes(2 * _BLOCK)


async def unpack(stream: AsyncIterable[bytes], place: Path, *, bytes_max: int, run_as: RunAs | None = None) -> Manifest:
    """Make a bare repository that belongs to ``run_as`` at ``place``, whole or not at all, out of a stream of :func:`pack`.

    What was at ``place`` is removed first; its parent must exist and belong to us, not to ``run_as``. Holds a few
    :data:`PIECE_BYTES` in memory. Every byte of it is compared with its hash. Raises :class:`SeedRefused`, ``TooLarge``
    when more than ``bytes_max`` are announced, and ``CloneDiskFull``.
    """
    try:
        return await _unpacked(_Source(stream), place, bytes_max, run_as)
    except BaseException as error:
        await asyncio.to_thread(shutil.rmtree, place, ignore_errors=True)
        if isinstance(error, OSError):
            if error.errno in (errno.ENOSPC, errno.EDQUOT):
                raise CloneDiskFull from error
            raise SeedRefused(f"The seed could not be written: {error.strerror}.") from error
        raise


async def settle(seed: Path, git_dir: Path, *, run_as: RunAs | None = None) -> None:
    """Give ``git_dir``, made by ``git clone --reference=SEED``, the seed's packs and end its borrowing; may be repeated.

    Both must lie on one file system (the packs are linked, not copied) and belong to ``run_as``. The seed stays as it
    is. Raises ``GitFailed``.
    """
    done = await run(
        ["sh", "-c", _SETTLE, "sh", str(seed)],
        cwd=git_dir,
        env=clean_env(LC_ALL="C"),
        timeout_s=SETTLE_TIMEOUT_S,
        output_bytes_max=4096,
        user=run_as,
    )
    if done.exit_code != 0:
        raise GitFailed("The packs of the seed could not be linked into the repository.")


async def _unpacked(source: "_Source", place: Path, bytes_max: int, run_as: RunAs | None) -> Manifest:
    await asyncio.to_thread(_fresh, place)
    manifest = _parsed(await source.member(MANIFEST, MANIFEST_BYTES_MAX))
    if manifest.size_bytes > bytes_max:
        raise TooLarge(f"The seed holds {manifest.size_bytes} bytes, more than the {bytes_max} that are taken here.")
    for name, content in manifest.files:
        await source.file(name, content, place / name)
    await source.end()
    await asyncio.to_thread(_finish, place, manifest, run_as)
    return manifest


class _Source:
    """Reads the members of an archive out of a stream."""

    def __init__(self, stream: AsyncIterable[bytes]) -> None:
        self._stream = aiter(stream)
        self._held = memoryview(b"")

    async def member(self, name: str, bytes_max: int) -> bytes:
        """The whole of a small member, which must come next."""
        size = await self._announced(name)
        if size > bytes_max:
            raise SeedRefused
        content = await self._whole(size)
        await self._whole(len(_padding(size)))
        return content

    async def file(self, name: str, expected: Content, to: Path) -> None:
        """Write a member, which must come next and hold what is expected, to a new file."""
        if await self._announced(name) != expected.size_bytes:
            raise SeedRefused(f"{name} has another size than was announced.")
        hashed = hashlib.sha256()
        descriptor = await asyncio.to_thread(os.open, to, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o444)
        with os.fdopen(descriptor, "wb", buffering=0) as file:

            def keep(parts: list[memoryview]) -> None:
                for part in parts:
                    hashed.update(part)
                    left = part
                    while left:
                        left = left[file.write(left) :]

            async with _Behind() as behind:  # more comes in while some is written
                gathered, size = list[memoryview](), 0
                async for part in self._parts(expected.size_bytes):
                    gathered.append(part)
                    size += len(part)
                    if size >= PIECE_BYTES:
                        await behind.run(keep, gathered)
                        gathered, size = [], 0
                await behind.run(keep, gathered)
        if hashed.hexdigest() != expected.sha256:
            raise SeedRefused(f"{name} was damaged on the way.")
        await self._whole(len(_padding(expected.size_bytes)))

    async def end(self) -> None:
        """Nothing but the end of the archive may follow."""
        if any(await self._whole(2 * _BLOCK)):
            raise SeedRefused

    async def _announced(self, name: str) -> int:
        try:
            header = tarfile.TarInfo.frombuf(await self._whole(_BLOCK), "ascii", "strict")
        except (tarfile.HeaderError, UnicodeDecodeError) as error:
            raise SeedRefused from error
        if header.name != name or header.type != tarfile.REGTYPE or header.size < 0:
            raise SeedRefused(f"{name} was expected, and something else came.")
        return header.size

    async def _whole(self, size: int) -> bytes:
        return b"".join([part async for part in self._parts(size)])

    async def _parts(self, size: int) -> AsyncIterator[memoryview]:
        """The next ``size`` bytes, as they come."""
        while size:
            if not self._held:
                try:
                    self._held = memoryview(await anext(self._stream))
                except StopAsyncIteration as error:
                    raise SeedRefused("The seed ended before it was whole.") from error
            part, self._held = self._held[:size], self._held[size:]
            size -= len(part)
            yield part


class _Behind:
    """Runs blocking calls in another thread, one at a time, while the caller goes on; at the end none is left."""

    def __init__(self) -> None:
        self._running: asyncio.Future[None] | None = None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._last()

    async def run(self, call: Callable[[_T], None], argument: _T) -> None:
        """Begin a call when the one before has ended, whose error is raised here."""
        await self._last()
        self._running = asyncio.get_running_loop().run_in_executor(None, call, argument)

    async def _last(self) -> None:
        running, self._running = self._running, None
        if running is not None:
            try:
                await asyncio.shield(running)
            except asyncio.CancelledError:
                await asyncio.wait({running})  # it uses what the caller is about to close
                raise


def _fresh(place: Path) -> None:
    if place.is_symlink() or place.is_file():
        place.unlink()
    elif place.exists():
        shutil.rmtree(place)
    place.mkdir(mode=0o700)
    for folder in ("refs", PACKS):
        (place / folder).mkdir(parents=True)


def _finish(place: Path, manifest: Manifest, run_as: RunAs | None) -> None:
    with (place / REFS).open("rb") as lines:
        for line in lines:
            if not line.endswith(b"\n") or not _REF.fullmatch(line[:-1]):
                raise SeedRefused(f"{REFS} is not a list of branches and tags.")
    (place / "config").write_text(_CONFIG)
    (place / "HEAD").write_text(_HEAD)
    (place / MANIFEST).write_text(manifest.model_dump_json())
    if run_as is not None:
        for folder, _, files in os.walk(place, topdown=False):
            for name in files:
                os.chown(os.path.join(folder, name), run_as.uid, run_as.gid)  # noqa: PTH118  (os.walk speaks in strings)
            os.chown(folder, run_as.uid, run_as.gid)


def _read_hashed(file: RawIOBase, size: int, hashed: "hashlib._Hash") -> bytes:
    piece = file.read(size) or b""
    hashed.update(piece)
    return piece


def _parsed(text: bytes) -> Manifest:
    with contextlib.suppress(ValidationError):
        return Manifest.model_validate_json(text)
    raise SeedRefused  # outside, so that no traceback carries the input along


def _described(base: Path, name: str) -> Pack:
    return Pack(name=name, pack=_content(base.with_suffix(".pack")), idx=_content(base.with_suffix(".idx")))


def _content(path: Path) -> Content:
    with path.open("rb") as file:
        sha256 = hashlib.file_digest(file, "sha256").hexdigest()
        return Content(size_bytes=file.tell(), sha256=sha256)


def _header(name: str, size: int) -> bytes:
    header = tarfile.TarInfo(name)
    header.size = size
    return header.tobuf(tarfile.GNU_FORMAT, "ascii", "strict")


def _padding(size: int) -> bytes:
    return bytes(-size % _BLOCK)
