"""How far handoffs are, for those who watch. Kept in memory: after a restart a step begins anew anyway."""

from dataclasses import dataclass, replace

from ff_core.handoff.orders import Progress
from ff_core.ids import HandoffId


@dataclass(frozen=True)
class Far:
    """How far one is with its present step."""

    detail: str = ""
    done_bytes: int = 0
    total_bytes: int = 0


class Report:
    """What one handoff says of itself. May be called from any thread: a value is replaced, never changed."""

    def __init__(self) -> None:
        self.far = Far()

    def begin(self, detail: str) -> None:
        """Something new goes on."""
        self.far = Far(detail)

    def says(self, detail: str) -> None:
        """The same goes on, in other words."""
        self.far = replace(self.far, detail=detail)

    def bytes(self, done: int, total: int) -> None:
        """So much of it is done."""
        self.far = replace(self.far, done_bytes=done, total_bytes=total)

    def progress(self, line: Progress) -> None:
        """What the packing process says."""
        self.bytes(line.done_bytes, line.total_bytes)


class Reports:
    """Of all handoffs that go on."""

    def __init__(self) -> None:
        self._of: dict[HandoffId, Report] = {}

    def of(self, handoff_id: HandoffId) -> Report:
        """The report of one, made when there is none."""
        return self._of.setdefault(handoff_id, Report())

    def seen(self, handoff_id: HandoffId) -> Far:
        """How far it is."""
        report = self._of.get(handoff_id)
        return Far() if report is None else report.far

    def forget(self, handoff_id: HandoffId) -> None:
        """It is over."""
        self._of.pop(handoff_id, None)
