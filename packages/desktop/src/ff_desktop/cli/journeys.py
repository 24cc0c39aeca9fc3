"""Watching moves to their end: a bar for each on a terminal, one line for each step elsewhere."""

from collections.abc import Iterable

from ff_core.contract.local import LocalHandoff, LocalStatus
from ff_core.contract.problem import RemoteProblem
from ff_core.errors import FFError
from ff_core.ids import HandoffId
from ff_desktop.cli.move_words import where
from ff_desktop.cli.plain import one_line
from ff_desktop.cli.shell import Shell
from ff_desktop.moves import Moves

POLL_S_FIRST = 0.05
POLL_S_MAX = 0.5
STOPPED_S_MAX = 15.0
"""How long to watch one that can't go on: ``ff serve`` tries again without us."""
_ENDS = frozenset({LocalStatus.DONE, LocalStatus.ABORTED, LocalStatus.FAILED})


def follow(shell: Shell, moves: Moves, begun: Iterable[LocalHandoff]) -> list[LocalHandoff]:
    """Return when each is over, or has stopped for longer than we wait for.

    Ctrl-C aborts those that are not decided; the second one leaves them to ``ff serve`` (``KeyboardInterrupt``).
    """
    known = {handoff.id: handoff for handoff in begun}
    stopped_s: dict[HandoffId, float] = {}
    interrupted, pause_s = False, POLL_S_FIRST
    with shell.screen.bars() as bars:
        while True:
            try:
                waits = [each for each in known.values() if not _over(each, stopped_s)]
                for handoff in known.values():
                    bars.show(str(handoff.id), one_line(handoff.name, 30), one_line(where(handoff), 200), _share(handoff))
                if not waits:
                    return list(known.values())
                shell.desktop.sleep(pause_s)
                for handoff in waits:
                    seen = known[handoff.id] = moves.get(handoff.id)
                    stopped = seen.status is LocalStatus.STOPPED
                    stopped_s[seen.id] = stopped_s.get(seen.id, 0.0) + pause_s if stopped else 0.0
                pause_s = min(pause_s * 1.3, POLL_S_MAX)
            except KeyboardInterrupt:
                if interrupted:
                    shell.screen.note("ff serve goes on with it; see: ff handoffs")
                    raise
                interrupted = True
                shell.screen.note("Giving up what is not decided yet; Ctrl-C again leaves it to ff serve.")
                abort(shell, moves, known.values())


def abort(shell: Shell, moves: Moves, handoffs: Iterable[LocalHandoff]) -> None:
    """Have those aborted that still can be."""
    for handoff in handoffs:
        if handoff.status in _ENDS:
            continue
        try:
            moves.abort(handoff.id)
        except FFError as error:
            shell.screen.note(f"{handoff.name}: {error.detail}")


def joined(moves: Moves, error: RemoteProblem) -> LocalHandoff | None:
    """The handoff that moves the workspace already, when that was the reason for a refusal."""
    found = error.extra.get("handoff_id")
    if not isinstance(found, str):
        return None
    return next((each for each in moves.all(only_open=True) if str(each.id) == found), None)


def _over(handoff: LocalHandoff, stopped_s: dict[HandoffId, float]) -> bool:
    return handoff.status in _ENDS or stopped_s.get(handoff.id, 0.0) >= STOPPED_S_MAX


def _share(handoff: LocalHandoff) -> float | None:
    if handoff.status is LocalStatus.DONE:
        return 1.0
    return handoff.done_bytes / handoff.total_bytes if handoff.total_bytes else None
