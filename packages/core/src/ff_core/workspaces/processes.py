"""What runs here as the workspace's user besides what we started and wait for."""

import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from ff_core.process import RunAs

PROC = Path("/proc")


@dataclass(frozen=True)
class Seen:
    """A process as the kernel shows it. ``session`` is the pid of its session's leader, whether that lives or not."""

    pid: int
    parent: int
    session: int
    uid: int
    zombie: bool


def background(run_as: RunAs | None, *, proc: Path = PROC) -> int:
    """How many processes of the workspace's user nobody waits for.

    Without a user of their own (``run_as`` None: a developer's machine) they can't be told from anybody else's: 0.
    """
    return 0 if run_as is None else count(list(look(proc)), uid=run_as.uid, ours=os.getpid())


def count(seen: Iterable[Seen], *, uid: int, ours: int) -> int:
    """Of ``uid``, and not in a session that a living child of the process ``ours`` leads. Pure.

    Whatever we start (a command, an agent, our own git) leads a session, and somebody waits for it: it is counted
    elsewhere, with what it started in its session. What outlives it is in a session without leader, and what began a
    session of its own is no longer part of it; these are the background.
    """
    seen = list(seen)
    waited_for = {process.pid for process in seen if process.parent == ours and not process.zombie}
    return sum(process.uid == uid and not process.zombie and process.session not in waited_for for process in seen)


def look(proc: Path = PROC) -> Iterator[Seen]:
    """All processes of our own container; one that ends while we look may be missing."""
    for name in os.listdir(proc):  # noqa: PTH208  (names are all that is needed, of hundreds)
        if name.isdecimal():
            try:
                yield _read(proc / name)
            except (OSError, IndexError, ValueError):
                continue


def _read(folder: Path) -> Seen:
    # The command's name stands in parentheses and may hold anything, parentheses too.
    state, parent, _group, session = (folder / "stat").read_text(errors="replace").rpartition(")")[2].split()[:4]
    # The folder's owner is root for a process that does not want to be looked into.
    uid = next(line for line in (folder / "status").read_text(errors="replace").splitlines() if line.startswith("Uid:"))
    return Seen(int(folder.name), int(parent), int(session), int(uid.split()[1]), zombie=state in "ZX")
