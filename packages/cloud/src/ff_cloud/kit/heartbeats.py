"""Whether the loops of a process do their work: each tells of every round, and so a loop that only fails is seen from outside."""

from dataclasses import dataclass, replace
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
    failures: int = 0
    error: str | None = None
    last_failure: datetime | None = None

    def complaint(self, now: datetime) -> str | None:
        """What is wrong with it at ``now``; None when nothing is. Pure."""
        if self.failures >= FAILURES_MAX and (self.every_s is not None or self._failed_lately(now)):
            return f"failed {self.failures} times in a row, last with {self.error}"
        if self.every_s is None:
            return None
        silent = now - self.last_success
        if silent > timedelta(seconds=ROUNDS_MISSED_MAX * self.every_s + ROUND_S_MAX):
            return f"last succeeded {silent.total_seconds():.0f} s ago"
        return None

    def _failed_lately(self, now: datetime) -> bool:
        return self.last_failure is not None and now - self.last_failure < timedelta(seconds=ROUND_S_MAX)


class _Heard:
    def __init__(self, beat: Beat, metrics: LoopMetrics, world: World) -> None:
        self.beat = beat
        self._metrics = metrics
        self._world = world

    def ok(self) -> None:
        """See :class:`Pulse`."""
        now = self._world.now()
        self.beat = Beat(self.beat.name, self.beat.every_s, now)
        self._metrics.succeeded(self.beat.name, now.timestamp())

    def failed(self, error: BaseException) -> None:
        """See :class:`Pulse`."""
        code = error.code if isinstance(error, FFError) else type(error).__name__
        self.beat = replace(self.beat, failures=self.beat.failures + 1, error=code, last_failure=self._world.now())
        self._metrics.failed(self.beat.name, self.beat.failures)


class Heartbeats:
    """The loops of this process."""

    def __init__(self, metrics: LoopMetrics, world: World) -> None:
        self._metrics = metrics
        self._world = world
        self._heard: dict[str, _Heard] = {}

    def pulse(self, name: str, *, every_s: float | None) -> Pulse:
        """Watch a loop from now on, which pauses ``every_s`` between two rounds; see :class:`Beat` for null."""
        now = self._world.now()
        heard = self._heard[name] = _Heard(Beat(name, every_s, now), self._metrics, self._world)
        self._metrics.expect(name, now.timestamp())
        return heard

    def crashed(self, name: str, error: BaseException) -> None:
        """A loop fell out of its rounds by an error that nobody foresaw, and is started again."""
        pulse = self._heard.get(name) or self.pulse(name, every_s=None)
        pulse.failed(error)

    def forget(self, name: str) -> None:
        """The loop has ended as it should."""
        self._heard.pop(name, None)

    def beats(self) -> list[Beat]:
        """How each loop does, in the order they began."""
        return [heard.beat for heard in self._heard.values()]
