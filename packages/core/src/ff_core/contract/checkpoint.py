"""Checkpoints: the state of a workspace as one archive, kept outside its VM, and put back into an empty one.

An archive is a zstd stream, followed by a *trailer*: a skippable zstd frame that says what the archive holds. An archive
without its trailer is not whole. ``ff_core.checkpoint.frames`` has what is inside; nobody else needs to know.
"""

import struct
from datetime import datetime
from typing import Annotated

from pydantic import Field, ValidationError

from ff_core.contract.base import Label, Request, View
from ff_core.ids import WorkspaceId

MEDIA_TYPE = "application/vnd.factory-factory.checkpoint"
TIMEOUT_S_MAX = 3600.0
TRAILER_BYTES_MAX = 64 * 1024
LEFT_OUT_SHOWN_MAX = 100
EVENT_LINE_BYTES_MAX = 4 * 1024 * 1024
EVENTS_BYTES_MAX = 1 << 30
"""Of the events in front of a restore's archives."""

Number = Annotated[int, Field(ge=1, lt=2**63)]
Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]

_MAGIC = 0x184D2A5F  # one of the sixteen that zstd reserves for frames that readers skip
_HEAD = struct.Struct("<II")
_FOOT = struct.Struct("<I")


class CheckpointRef(Request):
    """One checkpoint of a workspace. ``tree_sha256`` is that of the list of everything in it, so it names its content."""

    number: Number
    tree_sha256: Sha256


class CheckpointRequest(Request):
    """Ask the daemon for a checkpoint, to be called ``number``.

    ``base`` is the newest one that is safely stored; asking so acknowledges it. The daemon then sends what changed since,
    if it still knows that one, and everything otherwise. Without ``base`` it always sends everything.
    """

    number: Number
    base: CheckpointRef | None = None
    timeout_s: Annotated[float, Field(gt=0, le=TIMEOUT_S_MAX)] = 900.0


class LeftOut(View):
    """Something that is in the workspace and not in the checkpoint. ``path`` is below ``repo/`` or ``home/``."""

    path: str
    reason: str
    """``ignored`` (a folder git ignores), ``ignored_large``, ``cache``, ``home_large``, ``too_large``, ``too_deep``, ``special``,
    ``secret``, ``temporary``, ``unreadable``, ``other_filesystem``."""


class Packed(View):
    """What an archive holds: its trailer. Sizes in bytes."""

    number: Number
    base: CheckpointRef | None
    """The checkpoint this one builds on; null when it holds everything."""
    tree_sha256: Sha256
    made_at: datetime
    journal_seq: int
    settled: bool
    """False: something changed all the time while it was read. What git knows of is whole all the same."""
    entries: int
    """Files, folders and links of the whole tree."""
    tree_bytes: int
    """Of all files of the tree."""
    content_bytes: int
    """Of the content in this archive, not compressed."""
    left_out: tuple[LeftOut, ...] = ()
    """At most :data:`LEFT_OUT_SHOWN_MAX`."""
    left_out_count: int = 0

    @property
    def ref(self) -> CheckpointRef:
        """Its name."""
        return CheckpointRef(number=self.number, tree_sha256=self.tree_sha256)


class RestoreRequest(Request):
    """Put a checkpoint into an empty VM that belongs to nobody; the parameters of the address.

    The body is: the events that are newer than the checkpoint, one JSON object a line and without a gap; an empty line; the
    archives of its chain, the oldest first, one after the other. May be repeated: what was restored is left as it is.
    """

    workspace_id: WorkspaceId
    number: Number
    tree_sha256: Sha256

    @property
    def ref(self) -> CheckpointRef:
        """The checkpoint it names."""
        return CheckpointRef(number=self.number, tree_sha256=self.tree_sha256)


class Restored(View):
    """A VM that holds a workspace as a checkpoint had it. The VM still has to be bound."""

    workspace_id: WorkspaceId
    name: Label
    number: Number
    saved_at: datetime
    seq: int
    """The newest event of the journal now."""
    lost_events: int
    """Newer than the checkpoint: they stay in the journal, but what they tell of files is gone."""
    left_out_count: int


def trailer(packed: Packed) -> bytes:
    """The trailer of an archive. Ends with its own length, so that it can be found from the end. Pure."""
    text = packed.model_dump_json().encode()
    if len(text) > TRAILER_BYTES_MAX:
        # Names alone made it so long; the count still tells.
        text = packed.model_copy(update={"left_out": ()}).model_dump_json().encode()
    return _HEAD.pack(_MAGIC, len(text) + _FOOT.size) + text + _FOOT.pack(len(text))


def read_trailer(tail: bytes) -> Packed | None:
    """What the last :data:`TAIL_BYTES` of an archive say of it; None when it is cut off or no archive. Pure."""
    if len(tail) < _HEAD.size + _FOOT.size:
        return None
    (length,) = _FOOT.unpack_from(tail, len(tail) - _FOOT.size)
    start = len(tail) - _FOOT.size - length
    if length > TRAILER_BYTES_MAX or start < _HEAD.size:
        return None
    if _HEAD.unpack_from(tail, start - _HEAD.size) != (_MAGIC, length + _FOOT.size):
        return None
    try:
        return Packed.model_validate_json(tail[start : start + length])
    except ValidationError:
        return None


TAIL_BYTES = TRAILER_BYTES_MAX + _HEAD.size + _FOOT.size
"""Enough of an archive's end for :func:`read_trailer`."""
