"""Whether the loops of a process do their work: each tells of every round, and so a loop that only fails is seen from outside."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Protocol

from ff_cloud.kit.metrics import LoopMetrics
from ff_core.errors import FFError
from ff_core.world import World

FAILURES_MAX = 3
"""In a row; a loop that failed more often does not do its work."""
ROUNDS_MISSED_MAX = 3
ROUND_S_MAX = 120.0
"""How long one round may take, beyond the pause between two."""


class Pulse(Protocol):
    """One loop's way to say how its rounds end."""

    def ok(self) -> None:
        """A round did what it should."""
        ...

    def failed(self, error: BaseException) -> None:
        """A round failed; the loop goes on."""
        ...


class _Unheard:
    def ok(self) -> None:
        """See :class:`Pulse`."""

    def failed(self, error: BaseException) -> None:
        """See :class:`Pulse`."""


UNHEARD: Pulse = _Unheard()
"""For a loop that nobody watches."""


@dataclass(frozen=True, slots=True)
class Beat:
    """How a loop does. ``failures``: rounds that failed since one succeeded; ``error``: the code of the last one.

    ``every_s`` is null for one that works only when there is something to do: its silence means nothing.
    """

    name: str
    every_s: float | None
    last_success: datetime
    failures: int
    error: str | None

    def complaint(self, now: datetime) -> str | None:
        """What is wrong with it at ``now``; None when nothing is. Pure."""
        if self.failures >= FAILURES_MAX:
            return f"failed {self.failures} times in a row, last with {self.error}"
        if self.every_s is None:
            return None
        silent = now - self.last_success
        if silent > timedelta(seconds=ROUNDS_MISSED_MAX * self.every_s + ROUND_S_MAX):
            return f"last succeeded {silent.total_seconds():.0f} s ago"
        return None


class _Heard:
    def __init__(self, beat: Beat, metrics: LoopMetrics, world: World, tell: Callable[[Beat], None]) -> None:
        self._beat = beat
        self._metrics = metrics
        self._world = world
        self._tell = tell

    def ok(self) -> None:
        """See :class:`Pulse`."""
        now = self._world.now()
        self._set(Beat(self._beat.name, self._beat.every_s, now, 0, None))
        self._metrics.succeeded(self._beat.name, now.timestamp())

    def failed(self, error: BaseException) -> None:
        """See :class:`Pulse`."""
        beat, code = self._beat, error.code if isinstance(error, FFError) else type(error).__name__
        self._set(Beat(beat.name, beat.every_s, beat.last_success, beat.failures + 1, code))
        self._metrics.failed(beat.name, self._beat.failures)

    def _set(self, beat: Beat) -> None:
        self._beat = beat
        self._tell(beat)


class Heartbeats:
    """The loops of this process."""

    def __init__(self, metrics: LoopMetrics, world: World) -> None:
        self._metrics = metrics
        self._world = world
        self._beats: dict[str, Beat] = {}

    def pulse(self, name: str, *, every_s: float | None) -> Pulse:
        """Watch a loop from now on, which pauses ``every_s`` between two rounds; see :class:`Beat` for null."""
        now = self._world.now()
        beat = Beat(name, every_s, now, 0, None)
        self._beats[name] = beat
        self._metrics.expect(name, now.timestamp())
        return _Heard(beat, self._metrics, self._world, lambda told: self._beats.__setitem__(name, told))

    def forget(self, name: str) -> None:
        """The loop has ended as it should."""
        self._beats.pop(name, None)

    def beats(self) -> list[Beat]:
        """How each loop does, in the order they began."""
        return list(self._beats.values())
