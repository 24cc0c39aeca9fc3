"""Make a bundle of a workspace, in which nothing of ours runs meanwhile; if somebody changes it all the same, it is seen.

The bundle holds, after the manifest, for each repository: its listing, its index, its objects as a pack, and the content of files
and links that the index does not have as they lie there, in the order of the listing. Then the transcripts and the spool.
"""

import contextlib
import hashlib
import os
import struct
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from ff_core.claude import transcripts
from ff_core.contract.base import ErrorView
from ff_core.contract.handoff import Fingerprint
from ff_core.git.exact import index, objects
from ff_core.git.exact.errors import RepositoryUnsupported
from ff_core.handoff import listing, look
from ff_core.handoff.errors import ChangedWhilePacking, TreeTooDeep
from ff_core.handoff.format import Header, Kind, Whole
from ff_core.handoff.listing import FILE
from ff_core.handoff.look import OnProgress, Part
from ff_core.handoff.manifest import Manifest, status_to_tell
from ff_core.handoff.names import checked_plain
from ff_core.handoff.orders import Conversation, Pack, Packed, Progress, Survey, Surveyed
from ff_core.handoff.solid import alone_in, sync_folder
from ff_core.handoff.walk import Opened, hashed, pieces
from ff_core.handoff.writer import BundleWriter

TRIES = 3
PACKING = "packing"
CHECKING = "checking"
_TELL_EVERY_BYTES = 8 << 20


def survey(order: Survey, progress: OnProgress) -> Surveyed:
    """What would travel, and what stands in the way. Changes nothing."""
    with tempfile.TemporaryDirectory(prefix="ff-handoff-") as folder:
        try:
            parts = look.look(order, Path(folder), progress, read_all=False)
        except (RepositoryUnsupported, TreeTooDeep) as error:
            refused = ErrorView(code=error.code, message=error.detail)
            return Surveyed(contents=look.NO_CONTENTS, credentials=(), refusals=(refused,))
        return Surveyed(
            contents=look.contents(parts, commits=look.count_commits(parts), sessions=len(order.conversations)),
            credentials=look.credentials(parts),
            refusals=tuple(ErrorView(code=error.code, message=error.detail) for error in look.refusals(parts)),
        )


def pack(order: Pack, progress: OnProgress) -> Packed:
    """Make the bundle. May be repeated. Memory: the listings, and a piece of content.

    Raises the first refusal there is, ``ChangedWhilePacking`` when the workspace does not hold still, ``BundleTooLarge``,
    ``HandoffBusy``, ``OSError``, and what git says.
    """
    with alone_in(order.bundle.parent):
        for _ in range(TRIES - 1):
            with contextlib.suppress(ChangedWhilePacking):
                return _pack(order, progress)
        return _pack(order, progress)


def records_sum(spool: Path) -> str:
    """SHA-256 over the files of a spool: name, NUL, size, NUL, content, sorted by name."""
    whole = hashlib.sha256()
    for path in spool_files(spool):
        whole.update(b"%s\0%d\0" % (os.fsencode(path.name), path.stat().st_size))
        with path.open("rb") as file:
            whole.update(hashlib.file_digest(file, "sha256").digest())
    return whole.hexdigest()


def spool_files(spool: Path) -> list[Path]:
    """What a spool has, by name."""
    return sorted((path for path in spool.iterdir() if path.is_file() and not path.is_symlink()), key=lambda path: path.name)


def _pack(order: Pack, progress: OnProgress) -> Packed:
    with tempfile.TemporaryDirectory(prefix="ff-handoff-") as folder:
        parts = look.look(order, Path(folder), progress, read_all=True)
        for error in look.refusals(parts):
            raise error
        talks = list(_conversations(order))
        fingerprint = Fingerprint(
            repositories=tuple(part.print() for part in parts),
            conversations=tuple(transcripts.print_of(each.session_id, files) for each, files in talks),
            records=records_sum(order.spool),
        )
        manifest = Manifest(
            repositories=tuple(part.state for part in parts),
            statuses=tuple(status_to_tell(part.status.text) for part in parts),
            fingerprint=fingerprint,
            contents=look.contents(parts, commits=look.count_commits(parts), sessions=len(order.conversations)),
        )
        partial = order.bundle.with_name(order.bundle.name + ".partial")
        with partial.open("wb") as file:
            whole = _write(file, manifest, parts, talks, order, progress)
            progress(Progress(step=CHECKING))
            if not all(look.is_as_before(part, Path(folder)) for part in parts) or fingerprint.conversations != tuple(
                transcripts.print_of(each.session_id, files) for each, files in _conversations(order)
            ):
                raise ChangedWhilePacking
            file.flush()
            os.fsync(file.fileno())
        partial.replace(order.bundle)
        sync_folder(order.bundle.parent)
        return Packed(size=whole.size, sha256=whole.sha256, fingerprint=fingerprint, contents=manifest.contents)


def _write(
    file: BinaryIO,
    manifest: Manifest,
    parts: list[Part],
    talks: list[tuple[Conversation, list[transcripts.TranscriptFile]]],
    order: Pack,
    progress: OnProgress,
) -> Whole:
    writer = BundleWriter(file)
    telling = _Telling(progress, sum(each.size for part in parts for each in part.carried))
    writer.write(Header(Kind.MANIFEST), manifest.model_dump_json().encode())
    for number, part in enumerate(parts):
        writer.write(Header(Kind.LISTING, repository=number), listing.encode(part.nodes))
        writer.write(Header(Kind.INDEX, repository=number), b"".join(index.encode(part.entries)))
        wanted = objects.tips(part.state, part.entries, part.copied)
        if wanted:
            with objects.pack(part.repository, wanted, part.have) as packed:
                writer.write(Header(Kind.OBJECTS, repository=number), packed)
        else:
            writer.write(Header(Kind.OBJECTS, repository=number), _nothing(part.repository.object_format))
        _write_files(writer, number, part, telling)
    for conversation, files in talks:
        for each in files:
            header = Header(Kind.CONVERSATION, each.name, session_id=conversation.session_id)
            writer.write(header, each.chunks())
    for path in spool_files(order.spool):
        with path.open("rb") as content:
            writer.write(Header(Kind.SPOOL, checked_plain(os.fsencode(path.name))), content)
    return writer.finish()


def _write_files(writer: BundleWriter, number: int, part: Part, telling: "_Telling") -> None:
    object_format = part.repository.object_format
    with Opened(part.repository.worktree) as opened:
        for node in part.carried:
            header = Header(
                Kind.FILE if node.kind == FILE else Kind.SYMLINK,
                node.path,
                repository=number,
                mode=node.mode if node.kind == FILE else 0,
                mtime_ns=node.mtime_ns,
                size=node.size,
            )
            digest = hashed(object_format, node.size)
            if node.kind == FILE:
                with _readable(opened, node.path) as fd:
                    writer.write(header, telling.through(_fed(pieces(fd, node.size), digest)))
            else:
                writer.write(header, _fed(iter([opened.link(node.path)]), digest))
            if digest.hexdigest() != node.oid:
                raise ChangedWhilePacking


@contextlib.contextmanager
def _readable(opened: Opened, path: bytes) -> Iterator[int]:
    try:
        with opened.file(path) as fd:
            yield fd
    except PermissionError as exc:
        raise ChangedWhilePacking from exc


def _fed(content: Iterator[bytes], digest: "hashlib._Hash") -> Iterator[bytes]:
    for piece in content:
        digest.update(piece)
        yield piece


def _conversations(order: Survey) -> Iterator[tuple[Conversation, list[transcripts.TranscriptFile]]]:
    """Those that the CLI ever wrote, with their files."""
    for each in order.conversations:
        files = list(transcripts.collect(order.config_dir, each.provider_session_id))
        if files:
            yield each, files


def _nothing(object_format: str) -> bytes:
    """A pack without objects."""
    head = struct.pack(">4sLL", b"PACK", 2, 0)
    return head + hashlib.new(object_format, head).digest()


class _Telling:
    """Says how much of the files is packed."""

    def __init__(self, progress: OnProgress, total_bytes: int) -> None:
        self._progress, self._total = progress, total_bytes
        self._done = self._told = 0
        self._tell()

    def through(self, content: Iterator[bytes]) -> Iterator[bytes]:
        for piece in content:
            self._done += len(piece)
            if self._done - self._told > _TELL_EVERY_BYTES:
                self._tell()
            yield piece

    def _tell(self) -> None:
        self._told = self._done
        self._progress(Progress(step=PACKING, done_bytes=self._done, total_bytes=self._total))
