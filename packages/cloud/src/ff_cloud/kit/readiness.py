"""Whether a process can do its work: one check per part, asked for by probes and never more than once a second."""

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import Literal

import structlog

from ff_core.contract.base import View
from ff_core.errors import FFError
from ff_core.world import World

log = structlog.get_logger(__name__)

CHECK_S_MAX = 2.0
"""What a part may take to answer; then it counts as not well."""
CACHED_S = 1.0
"""How long an answer is given to all who ask: probes can't load the database, however many there are."""


class CheckView(View):
    """How one part is. A part that is not ``required`` may be ill, and the process still serves."""

    name: str
    ok: bool
    required: bool
    detail: str


class ReadinessView(View):
    """``degraded``: something that is not required is not well."""

    status: Literal["ready", "degraded", "unready"]
    checks: tuple[CheckView, ...]


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a look at a part found, in words for an operator, without secrets or addresses."""

    ok: bool
    detail: str
    required: bool = True


Look = Callable[[], Awaitable[list[tuple[str, Outcome]]]]
"""Looks at one or more parts, by name. An ``FFError`` means that the part is not well."""


@dataclass(frozen=True, slots=True)
class Check:
    """``name`` stands for the look where it fails."""

    name: str
    look: Look
    required: bool = True


def one(name: str, look: Callable[[], Awaitable[Outcome]], *, required: bool = True) -> Check:
    """A check of one part."""

    async def looking() -> list[tuple[str, Outcome]]:
        return [(name, await look())]

    return Check(name, looking, required)


class Readiness:
    """The checks of this process; parts add theirs while they run."""

    def __init__(self, world: World, *, check_s_max: float = CHECK_S_MAX) -> None:
        self._world = world
        self._check_s_max = check_s_max
        self._checks: list[Check] = []
        self._asking = asyncio.Lock()
        self._told: tuple[datetime, ReadinessView] | None = None

    @contextmanager
    def including(self, *checks: Check) -> Iterator[None]:
        """Ask these too while the block runs."""
        self._checks.extend(checks)
        self._told = None
        try:
            yield
        finally:
            for check in checks:
                self._checks.remove(check)
            self._told = None

    async def report(self) -> ReadinessView:
        """How all parts are. Takes at most :data:`CHECK_S_MAX`; an answer is at most :data:`CACHED_S` old."""
        async with self._asking:
            now = self._world.now()
            if self._told is None or not 0 <= (now - self._told[0]).total_seconds() < CACHED_S:
                found = await asyncio.gather(*(_ask(check, self._check_s_max) for check in list(self._checks)))
                self._told = (now, _view([view for views in found for view in views]))
            return self._told[1]


async def _ask(check: Check, limit_s: float) -> list[CheckView]:
    try:
        async with asyncio.timeout(limit_s):
            found = await check.look()
    except TimeoutError:
        found = [(check.name, Outcome(ok=False, detail=f"did not answer within {limit_s:g} s", required=check.required))]
    except FFError as error:
        found = [(check.name, Outcome(ok=False, detail=error.detail, required=check.required))]
    except Exception as error:
        log.exception("readiness.check_failed", check=check.name)
        found = [(check.name, Outcome(ok=False, detail=f"the check failed: {type(error).__name__}", required=check.required))]
    required = check.required
    return [CheckView(name=name, ok=out.ok, required=required and out.required, detail=out.detail) for name, out in found]


def _view(checks: list[CheckView]) -> ReadinessView:
    ill = [check for check in checks if not check.ok]
    status: Literal["ready", "degraded", "unready"] = "ready"
    if ill:
        status = "unready" if any(check.required for check in ill) else "degraded"
    return ReadinessView(status=status, checks=tuple(checks))
