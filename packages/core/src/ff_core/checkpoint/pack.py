"""Make an archive of a tree that may change while it is read.

The tree is walked until a walk finds everything as the one before left it: then there was a moment, between the two, at
which all of it was so. A tree that never rests is taken as the last walk found it, in the order of
:mod:`ff_core.checkpoint.policy`. What has the signature it had before is not read again, so a tree without changes costs
one walk.
"""

import json
import os
import shutil
from collections.abc import Callable, Collection, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from datetime import datetime
from pathlib import Path
from stat import S_IMODE

from ff_core.checkpoint.content import Blocks, is_steady
from ff_core.checkpoint.frames import BLOCK, END, ENTRIES, FORMAT, HEADER, Sink, Writer
from ff_core.checkpoint.lists import Lists, put
from ff_core.checkpoint.manifest import Digest, Entry, Kind, Line, changes, key_of
from ff_core.checkpoint.policy import DATABASE, LAST_PART, OBJECTS, PARTS, PRIVATE, Judge, Limits, Part, Reason
from ff_core.checkpoint.walk import Found, Walk, open_file, read_link, signature
from ff_core.contract.base import dump
from ff_core.contract.checkpoint import LEFT_OUT_SHOWN_MAX, CheckpointRef, LeftOut, Packed, trailer

ROUNDS_MAX = 4
VANISHED_TRIES = 3
BATCH_BYTES = 512 * 1024
LEFT_OUT_CHARS_MAX = 300


@dataclass(frozen=True, slots=True)
class Order:
    """What to make: a checkpoint called ``number`` of the tree at ``root``, on top of ``base`` if ``lists`` knows that one.

    ``lists`` is a folder of our own for what we remember from one checkpoint to the next. ``copy_database`` copies the live
    database at its path into a file and says which event is its newest; None: there is none.
    """

    root: Path
    lists: Path
    number: int
    base: CheckpointRef | None
    made_at: datetime
    ignored: Collection[bytes] = ()
    copy_database: Callable[[Path, Path], int] | None = None
    limits: Limits = field(default_factory=Limits)


def pack(order: Order, sink: Sink) -> Packed | None:
    """Write the archive to ``sink`` and say what it holds; None, and nothing is written, when nothing changed since the base.

    Memory: a block, and the largest folder's names. Raises ``CheckpointTooLarge``, ``OSError``, and what ``copy_database``
    does. What was written is worth nothing unless this returns. Not to be called twice at once for the same ``lists``.
    """
    root = os.open(order.root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        return _Packer(order, root, sink).run()
    finally:
        os.close(root)
        shutil.rmtree(order.lists / "work", ignore_errors=True)


class _Packer:
    def __init__(self, order: Order, root: int, sink: Sink) -> None:
        self._order = order
        self._root = root
        self._sink = sink
        self._writer = Writer(sink)
        self._blocks = Blocks(lambda block: self._write(BLOCK, block))
        base = Lists(order.lists / str(order.base.number)) if order.base is not None else None
        self._base = base if base is not None and base.ref() == order.base else None
        self._journal_seq = 0

    def run(self) -> Packed | None:
        work = self._order.lists / "work"
        shutil.rmtree(work, ignore_errors=True)
        before = self._base or Lists(work / "nothing")
        settled = False
        for number in range(ROUNDS_MAX):
            now = Lists(work / str(number)).fresh()
            settled = not self._round(before, now)
            if settled:
                break
            if before is not self._base:
                shutil.rmtree(before.folder, ignore_errors=True)
            before = now
        if settled and before is self._base and self._writer.frames == 0:
            before.refresh(now)
            return None
        return self._finish(now, settled=settled)

    def _round(self, before: Lists, now: Lists) -> bool:
        """Walk through everything once; whether anything was not as ``before`` has it."""
        judge = Judge(self._order.limits, self._order.ignored)
        walk = Walk(self._root, judge, self._order.limits)
        moved = False
        for part in PARTS:
            for _ in range(VANISHED_TRIES):
                gone = walk.vanished
                moved |= self._part(part, walk, before, now)
                if part.root != OBJECTS or walk.vanished == gone:
                    break
                # Git put them elsewhere, where we may have looked already.
        moved |= self._database(before, now)
        return moved or walk.vanished > 0

    def _part(self, part: Part, walk: Walk, before: Lists, now: Lists) -> bool:
        moved = False
        with before.reading(part.name) as old, now.writing(part.name) as file:
            known = next(old, None)
            for found in walk.part(part):
                key = key_of(found.path)
                while known is not None and known.line.key < key:
                    moved, known = True, next(old, None)
                was = None
                if known is not None and known.line.key == key:
                    was, known = known, next(old, None)
                if was is not None and was.signature == found.signature():
                    put(file, was.line.text, was.signature)
                    continue
                made = self._entry(found, was.line.text if was else None)
                if made is None:
                    walk.vanished += 1
                    continue
                line, seen = made
                moved |= was is None or was.line.text != line
                put(file, line, seen)
            return moved or known is not None

    def _entry(self, found: Found, before: str | None) -> tuple[str, str] | None:
        """Line and signature of what was found, read anew; None when it is gone."""
        entry, seen = Entry(found.kind, found.path), found.signature()
        match found.kind:
            case Kind.FOLDER:
                entry = replace(entry, mode=S_IMODE(found.stat.st_mode), mtime_ns=found.stat.st_mtime_ns)
            case Kind.LINK:
                target = read_link(found)
                if target is None:
                    return None
                entry = replace(entry, mtime_ns=found.stat.st_mtime_ns, text=target)
            case Kind.FILE:
                return self._file(found, before)
            case _:
                entry = replace(entry, text=(found.reason or Reason.SPECIAL).encode())
        return entry.line(), seen

    def _file(self, found: Found, before: str | None) -> tuple[str, str] | None:
        try:
            opened = open_file(found)
        except PermissionError:
            return Entry(Kind.LEFT_OUT, found.path, text=Reason.UNREADABLE.encode()).line(), f"x {Reason.UNREADABLE}"
        if opened is None:
            return None
        fd, seen = opened
        try:
            content = self._blocks.read(fd, seen, _blocks_of(before))
        finally:
            os.close(fd)
        entry = Entry(
            Kind.FILE,
            found.path,
            mode=S_IMODE(content.stat.st_mode),
            mtime_ns=content.stat.st_mtime_ns,
            size=content.size,
            blocks=content.blocks,
        )
        return entry.line(), signature(Kind.FILE, content.stat) + ("" if content.steady else " !")

    def _database(self, before: Lists, now: Lists) -> bool:
        """Like :meth:`_part`, for a copy of the database."""
        with before.reading(LAST_PART) as old, now.writing(LAST_PART) as file:
            was = next((each for each in old if each.line.key == key_of(DATABASE)), None)
            if self._order.copy_database is None:
                return was is not None
            put(file, Entry(Kind.FOLDER, PRIVATE, mode=0o700).line(), "")
            path = self._order.root / os.fsdecode(DATABASE)
            seen = _signature_of_database(path)
            if was is not None and was.signature.partition(" ")[2] == seen and not seen.endswith("!"):
                self._journal_seq = int(was.signature.partition(" ")[0])
                put(file, was.line.text, was.signature)
                return False
            copy = self._order.lists / "work" / "state.db"
            self._journal_seq = self._order.copy_database(path, copy)
            fd = os.open(copy, os.O_RDONLY | os.O_CLOEXEC)
            try:
                content = self._blocks.read(fd, os.fstat(fd), _blocks_of(was.line.text if was else None))
            finally:
                os.close(fd)
                copy.unlink()
            # Its own time would differ in every copy.
            line = Entry(Kind.FILE, DATABASE, mode=0o600, size=content.size, blocks=content.blocks).line()
            put(file, line, f"{self._journal_seq} {seen}")
            return was is None or was.line.text != line

    def _finish(self, now: Lists, *, settled: bool) -> Packed | None:
        """Write the list and the end; None when everything is as the base has it after all."""
        tally = _Tally()
        with ExitStack() as stack:
            old = stack.enter_context(self._base.all()) if self._base is not None else iter(())
            new = stack.enter_context(now.all())
            batch: list[str] = []
            size = 0
            for line in changes(old, tally.through(new)):
                batch.append(line)
                size += len(line) + 1
                if size >= BATCH_BYTES:
                    self._write(ENTRIES, _text(batch))
                    batch, size = [], 0
            if batch:
                self._write(ENTRIES, _text(batch))
        if self._writer.frames == 0 and self._base is not None:
            return None
        packed = Packed(
            number=self._order.number,
            base=self._base.ref() if self._base is not None else None,
            tree_sha256=tally.digest.hex(),
            made_at=self._order.made_at,
            journal_seq=self._journal_seq,
            settled=settled,
            entries=tally.entries,
            tree_bytes=tally.bytes,
            content_bytes=self._blocks.bytes,
            left_out=tuple(tally.left_out),
            left_out_count=tally.left_out_count,
        )
        # Before anybody can acknowledge it.
        now.settle(packed.ref, self._order.lists / str(packed.number))
        _forget(self._order.lists, {str(packed.number), *([self._base.folder.name] if self._base else [])})
        self._write(END, packed.model_dump_json().encode())
        self._writer.close()
        self._sink.write(trailer(packed))
        return packed

    def _write(self, kind: bytes, payload: bytes | memoryview) -> None:
        if self._writer.frames == 0:
            base = self._base.ref() if self._base is not None else None
            header = {"format": FORMAT, "number": self._order.number, "base": dump(base) if base else None}
            self._writer.write(HEADER, json.dumps(header).encode())
        self._writer.write(kind, payload)


class _Tally:
    """Counts the lines that go through."""

    def __init__(self) -> None:
        self.digest = Digest()
        self.entries = self.bytes = self.left_out_count = 0
        self.left_out: list[LeftOut] = []

    def through(self, lines: Iterator[Line]) -> Iterator[Line]:
        for line in lines:
            self.digest.add(line.text)
            fields = json.loads(line.text)
            if fields[0] == Kind.LEFT_OUT:
                self.left_out_count += 1
                if len(self.left_out) < LEFT_OUT_SHOWN_MAX:
                    self.left_out.append(LeftOut(path=readable(fields[1]), reason=fields[2]))
            else:
                self.entries += 1
                self.bytes += fields[4] if fields[0] == Kind.FILE else 0
            yield line


def readable(path: str) -> str:
    """A path for people: what is no text is replaced, what is long is cut."""
    return os.fsencode(path).decode(errors="replace")[:LEFT_OUT_CHARS_MAX]


def forget_others(lists: Path, kept: set[str]) -> None:
    """Remove the lists of all checkpoints but these."""
    for path in lists.iterdir() if lists.is_dir() else ():
        if path.name not in kept:
            shutil.rmtree(path, ignore_errors=True)


def _forget(lists: Path, kept: set[str]) -> None:
    forget_others(lists, kept | {"work"})


def _blocks_of(line: str | None) -> set[str]:
    """The blocks that a file had before; its line is ours."""
    if line is None or not line.startswith(f'["{Kind.FILE}"'):
        return set()
    return set(Entry(Kind.FILE, b"", blocks=json.loads(line)[5]).hashes())


def _signature_of_database(path: Path) -> str:
    """Never the same twice while it is written to."""
    parts = []
    newest_ns = 0
    for each in (path, path.with_name(path.name + "-wal")):
        if each.exists():
            parts.append(signature(Kind.FILE, seen := each.stat()))
            newest_ns = max(newest_ns, seen.st_ctime_ns)
    return " ".join(parts) + ("" if is_steady(newest_ns) else " !")


def _text(lines: list[str]) -> bytes:
    return "".join(f"{line}\n" for line in lines).encode("ascii")
