"""Waiting for something long: looks again and again, with a limit, and says how far it is."""

from collections.abc import Iterator

from ff_core.contract.base import ErrorView
from ff_core.contract.operation import OperationStatus, OperationView
from ff_core.contract.problem import Problem, RemoteProblem
from ff_core.errors import FFError, TimedOut
from ff_desktop.cli.plain import one_line
from ff_desktop.cli.screen import Progress
from ff_desktop.cli.shell import Shell

POLL_S_FIRST = 0.1
POLL_S_MAX = 1.0
ACTIVE = frozenset({OperationStatus.QUEUED, OperationStatus.RUNNING})


def pauses(shell: Shell, s_max: float, state: str) -> Iterator[None]:
    """Sleep before each look, longer each time; raises ``TimedOut`` with ``state`` when that took ``s_max`` seconds."""
    waited_s, pause_s = 0.0, POLL_S_FIRST
    while waited_s < s_max:
        shell.desktop.sleep(pause_s)
        waited_s, pause_s = waited_s + pause_s, min(POLL_S_MAX, pause_s * 1.5)
        yield
    raise TimedOut(f"{state} after {s_max:g} s; it goes on by itself, see: ff ls")


def tell(progress: Progress, operation: OperationView) -> None:
    """Show where an operation is."""
    waits = operation.status is OperationStatus.QUEUED and operation.error is not None
    progress.update(one_line(operation.error.message, 300) if waits and operation.error else _step(operation))


def failure(error: ErrorView | None, fallback: str) -> FFError:
    """What ended badly, as an error."""
    if error is None:
        return FFError(fallback)
    return RemoteProblem(Problem(title="Failed", status=500, code=error.code, detail=error.message))


def _step(operation: OperationView) -> str:
    return f"{operation.kind}: {operation.step or operation.status}"
