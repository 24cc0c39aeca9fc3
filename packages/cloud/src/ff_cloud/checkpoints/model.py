"""Checkpoints as we know them, and what to do with them. Pure."""

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from ff_cloud.kit.blobs import Stored
from ff_core.contract.checkpoint import CheckpointRef
from ff_core.ids import WorkspaceId

CHAIN_MAX = 24
"""Archives that a restore has to read at most."""
CHANGES_BYTES_FREE = 8 * 1024 * 1024
"""Changes up to this size are no reason to store everything anew, however small everything is."""
POINTS_KEPT = 3
"""How many states of a workspace can be restored: the newest, and what to fall back to when it turns out to be damaged."""


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """One that is stored."""

    workspace_id: WorkspaceId
    number: int
    base_number: int | None
    key: str
    stored: Stored
    tree_sha256: str
    journal_seq: int
    began_at: datetime

    @property
    def ref(self) -> CheckpointRef:
        """Its name, as the daemon knows it."""
        return CheckpointRef(number=self.number, tree_sha256=self.tree_sha256)


Known = Mapping[int, Checkpoint]
"""Those of one workspace, by number."""


def chain(known: Known, number: int) -> list[Checkpoint] | None:
    """What has to be read to have this one, the oldest first; None when something of it is missing."""
    found: list[Checkpoint] = []
    at: int | None = number
    while at is not None:
        if at not in known or len(found) > CHAIN_MAX:
            return None
        found.append(known[at])
        at = known[at].base_number
    return found[::-1]


def base_for(known: Known, present: Mapping[str, int]) -> Checkpoint | None:
    """What the next checkpoint builds on; None: it holds everything again.

    ``present`` are the objects in the store, with their sizes. Everything is stored anew when the newest chain is long, when what
    changed since its beginning outweighs half of that, or when something of it is gone.
    """
    if not known:
        return None
    newest = chain(known, max(known))
    if newest is None or len(newest) >= CHAIN_MAX or not is_present(newest, present):
        return None
    changes = sum(each.stored.size for each in newest[1:])
    return None if changes > max(newest[0].stored.size // 2, CHANGES_BYTES_FREE) else newest[-1]


def is_present(wanted: Sequence[Checkpoint], present: Mapping[str, int]) -> bool:
    """Whether the store has all of a chain, each of the size that was put."""
    return all(present.get(each.key) == each.stored.size for each in wanted)


def points(known: Known, present: Mapping[str, int]) -> Iterator[list[Checkpoint]]:
    """The chains that can be restored, the newest state first."""
    for number in sorted(known, reverse=True):
        found = chain(known, number)
        if found is not None and is_present(found, present):
            yield found


def needless(known: Known) -> Collection[int]:
    """The numbers that none of the newest states needs."""
    needed: set[int] = set()
    for number in sorted(known, reverse=True)[:POINTS_KEPT]:
        needed.update(each.number for each in chain(known, number) or ())
    return known.keys() - needed
