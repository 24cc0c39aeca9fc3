"""Lists of entries on disk: a folder of one file for each part, each line with the signature that its file had.

They are ours alone: nobody else can write where they are kept.
"""

import json
import shutil
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO

from ff_core.checkpoint.frames import FORMAT
from ff_core.checkpoint.manifest import Line, keyed, merged
from ff_core.checkpoint.policy import LAST_PART, PARTS
from ff_core.contract.checkpoint import CheckpointRef

NAMES = (*(part.name for part in PARTS), LAST_PART)
_META = "checkpoint.json"
UNKNOWN = "?"
"""A signature that no file has."""


@dataclass(frozen=True, slots=True)
class Known:
    """A line of a part, and the signature of what it describes."""

    line: Line
    signature: str


class Lists:
    """The lists in ``folder``, which is made when something is written."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def fresh(self) -> "Lists":
        """Empty it."""
        shutil.rmtree(self.folder, ignore_errors=True)
        self.folder.mkdir(parents=True)
        return self

    @contextmanager
    def writing(self, name: str) -> Iterator[TextIO]:
        """The list of a part, to be written from the start with :func:`put`."""
        with (self.folder / name).open("w", encoding="ascii", newline="\n") as file:
            yield file

    @contextmanager
    def reading(self, name: str) -> Iterator[Iterator[Known]]:
        """The list of a part; empty when there is none."""
        path = self.folder / name
        if not path.exists():
            yield iter(())
            return
        with path.open(encoding="ascii", newline="\n") as file:
            yield _known(file)

    @contextmanager
    def all(self) -> Iterator[Iterator[Line]]:
        """The lines of all parts as one sorted list."""
        with ExitStack() as stack:
            parts = [stack.enter_context(self.reading(name)) for name in NAMES]
            yield merged(*(_lines(part) for part in parts))

    def ref(self) -> CheckpointRef | None:
        """Which checkpoint they are of; None when they are none of a checkpoint that was finished, by this version of us."""
        try:
            meta = json.loads((self.folder / _META).read_text(encoding="ascii"))
            if meta["format"] != FORMAT:
                return None
            return CheckpointRef(number=meta["number"], tree_sha256=meta["tree_sha256"])
        except (OSError, ValueError, KeyError, TypeError):
            return None

    def settle(self, ref: CheckpointRef, place: Path) -> None:
        """Say which checkpoint they are of, and move them to ``place``."""
        meta = {"format": FORMAT, "number": ref.number, "tree_sha256": ref.tree_sha256}
        (self.folder / _META).write_text(json.dumps(meta), encoding="ascii")
        shutil.rmtree(place, ignore_errors=True)
        self.folder.replace(place)
        self.folder = place

    def refresh(self, newer: "Lists") -> None:
        """Take over the files of ``newer``, which has the same lines and newer signatures."""
        for name in NAMES:
            (newer.folder / name).replace(self.folder / name)

    def split(self, lines: Iterator[str], part_of: dict[bytes, str]) -> None:
        """Write a whole list as that of parts, without signatures; ``part_of`` names the part of each root."""
        with ExitStack() as stack:
            files = {name: stack.enter_context(self.writing(name)) for name in NAMES}
            for line in keyed(lines):
                path = line.key.replace(b"\0", b"/")
                while path not in part_of:
                    path = path.rpartition(b"/")[0]
                put(files[part_of[path]], line.text, UNKNOWN)


def put(file: TextIO, line: str, signature: str) -> None:
    """Write a line and its signature."""
    file.write(f"{signature}\t{line}\n")


def _known(file: TextIO) -> Iterator[Known]:
    for row in file:
        signature, _, text = row.rstrip("\n").partition("\t")
        (line,) = keyed([text])
        yield Known(line, signature)


def _lines(known: Iterator[Known]) -> Iterator[Line]:
    return (each.line for each in known)
