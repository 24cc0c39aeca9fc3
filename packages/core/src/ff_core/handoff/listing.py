"""What is in a working tree, path by path: as it travels, and as it is compared. Pure.

A listing has everything that travels: files, symbolic links, and folders in which nothing is. So it says what a receiver has to
have in the end, whichever way each part of it comes.
"""

import hashlib
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

from ff_core.handoff.errors import BundleBroken
from ff_core.handoff.names import checked_path

FILE, LINK, FOLDER = b"f", b"l", b"d"
NO_OID = "-"
_LINE = re.compile(
    rb"([fld]) ([0-7]{3}) (-?[0-9]{1,19}) ([0-9]{1,18}) ([=+]) (-|[0-9a-f]{40}|[0-9a-f]{64})\t(.+)\Z",
    re.DOTALL,
)
_TIME_MAX = 2**63 - 1
_PIECE_BYTES = 256 << 10


@dataclass(frozen=True, slots=True)
class Node:
    """Something in a working tree."""

    path: bytes
    kind: bytes
    mode: int
    """Permission bits."""
    mtime_ns: int
    size: int
    oid: str
    """The name git would give to the bytes of the file, or of where the link points, as they are; of a folder :data:`NO_OID`."""
    carried: bool
    """Its content travels by itself. Otherwise it is what the index has of this path."""

    @property
    def executable(self) -> bool:
        """For its owner: all that git knows of permissions."""
        return self.kind == FILE and bool(self.mode & 0o100)

    def line(self) -> bytes:
        """As it travels."""
        how = b"+" if self.carried else b"="
        numbers = (self.kind, self.mode & 0o777, self.mtime_ns, self.size, how, self.oid.encode(), self.path)
        return b"%s %03o %d %d %s %s\t%s" % numbers

    def look(self) -> bytes:
        """What of it belongs to the fingerprint."""
        return b"%s%s %s\t%s" % (self.kind, b"x" if self.executable else b"-", self.oid.encode(), self.path)


def sort(nodes: Iterable[Node]) -> list[Node]:
    """By the bytes of their paths."""
    return sorted(nodes, key=lambda node: node.path)


def digest(nodes: Iterable[Node]) -> str:
    """SHA-256 over what belongs to the fingerprint of nodes, which are sorted."""
    hashed = hashlib.sha256()
    for node in nodes:
        hashed.update(node.look() + b"\0")
    return hashed.hexdigest()


def encode(nodes: Iterable[Node]) -> Iterator[bytes]:
    """Sorted nodes as they travel, in pieces."""
    piece = bytearray()
    for node in nodes:
        piece += node.line() + b"\0"
        if len(piece) >= _PIECE_BYTES:
            yield bytes(piece)
            piece.clear()
    yield bytes(piece)


def decode(data: bytes) -> list[Node]:
    """What :func:`encode` made. Raises :class:`BundleBroken` unless there can be a tree like that."""
    nodes: list[Node] = []
    if data and not data.endswith(b"\0"):
        raise BundleBroken
    folders: set[bytes] = set()
    for line in data.split(b"\0")[:-1]:
        found = _LINE.match(line)
        if found is None:
            raise BundleBroken
        kind, mode, mtime, size, how, oid, path = found.groups()
        node = Node(checked_path(path), kind, int(mode, 8), int(mtime), int(size), oid.decode(), carried=how == b"+")
        if (
            abs(node.mtime_ns) > _TIME_MAX
            or (nodes and path <= nodes[-1].path)
            or (kind == FOLDER) != (node.oid == NO_OID)
            or node.line() != line
        ):
            raise BundleBroken
        parent = path
        while (parent := parent.rpartition(b"/")[0]) and parent not in folders:
            folders.add(parent)
        nodes.append(node)
    if any(node.path in folders for node in nodes):
        raise BundleBroken  # a file that is a folder too, or an empty one that is not
    return nodes


def differences(expected: Iterable[Node], found: Iterable[Node], most: int) -> list[tuple[bytes, str]]:
    """The first paths in which two trees differ, and how."""
    one, other = ({node.path: node for node in nodes} for nodes in (expected, found))
    told: list[tuple[bytes, str]] = []
    for path in sorted(one.keys() | other.keys()):
        if len(told) >= most:
            break
        told += ((path, how) for how in _difference(one.get(path), other.get(path)))
    return told[:most]


def _difference(one: Node | None, other: Node | None) -> list[str]:
    if one is None:
        return ["is there, and should not be"]
    if other is None:
        return ["is missing"]
    if one.kind != other.kind:
        return ["is of another kind"]
    tests: tuple[tuple[str, Callable[[Node], object]], ...] = (
        ("has other content", lambda node: node.oid),
        ("is executable on one side only", lambda node: node.executable),
    )
    return [words for words, part in tests if part(one) != part(other)]
