"""Limits on how often, kept in PostgreSQL so that all replicas count together: GCRA, one statement for any number of limits.

Two uses: attempts to guess a secret (room ``auth``), and how often an account or an address may call each class of routes
(:class:`RouteLimits`). A request that is refused does not count, so nobody who waits is locked out for good.
"""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any

from ff_cloud.errors import TooManyRequests
from ff_cloud.kit.db import Database, SystemTx
from ff_cloud.kit.origin import Origin
from ff_core.ids import UserId
from ff_core.world import World

ADDRESS_SHARE = 5
"""How many accounts' worth of requests one address may send: an office behind one address works, a flood does not."""

GATE_CLOSED = "P0429"
"""The SQLSTATE of a function of ours that counts at gates and met a closed one. It counted at none."""

_TAKE = "select unnest(rate_limits_take(%(now)s, %(keys)s, %(every)s::interval[], %(slack)s::interval[])) as key"
_WAIT = "select tat - %(now)s::timestamptz - %(slack)s as wait from rate_limits where key = %(key)s"
_FORGET = "delete from rate_limits where key = %(key)s returning key"


@dataclass(frozen=True, slots=True)
class Limit:
    """``burst`` times at once, then one every ``every_s`` seconds."""

    name: str
    burst: int
    every_s: float

    def of(self, *subject: str) -> "Gate":
        """The limit for one subject. Only a hash of it is stored."""
        digest = hashlib.sha256("\0".join(subject).encode("utf-8", "surrogatepass")).hexdigest()
        return Gate(self, f"{self.name}:{digest[:32]}")


@dataclass(frozen=True, slots=True)
class Gate:
    """A limit and the row that counts for one subject."""

    limit: Limit
    key: str

    @property
    def slack(self) -> timedelta:
        """How far ahead of its time a subject may be."""
        return timedelta(seconds=(self.limit.burst - 1) * self.limit.every_s)


def values_of(gates: Sequence[Gate]) -> dict[str, Any]:
    """``keys``, ``every`` and ``slack`` as ``rate_limits_take`` has them (migration 0011)."""
    return {
        "keys": [gate.key for gate in gates],
        "every": [timedelta(seconds=gate.limit.every_s) for gate in gates],
        "slack": [gate.slack for gate in gates],
    }


async def take(tx: SystemTx, gates: Sequence[Gate], now: datetime) -> float | None:
    """Count once at each gate. None when all are open; else in how many seconds the first closed one opens.

    The caller then leaves the transaction with an error, so that it counts at none.
    """
    ordered = sorted(gates, key=lambda gate: gate.key)
    passed = {row.key for row in await tx.fetch(_TAKE, {"now": now, **values_of(ordered)})}
    closed = next((gate for gate in ordered if gate.key not in passed), None)
    if closed is None:
        return None
    found = await tx.fetch(_WAIT, {"key": closed.key, "now": now, "slack": closed.slack})
    return found[0].wait.total_seconds() if found else closed.limit.every_s


async def forget(tx: SystemTx, gates: Sequence[Gate]) -> None:
    """Forget what was counted at ``gates``."""
    for gate in sorted(gates, key=lambda gate: gate.key):
        await tx.fetch(_FORGET, {"key": gate.key})


class RouteClass(StrEnum):
    """What a request costs us, roughly. Each class is counted by itself."""

    AUTH = "auth"
    """Whatever is asked without a good credential."""
    READ = "read"
    WRITE = "write"
    STREAM = "stream"
    """Opening a stream; how long it lasts does not count."""


class GateClosed(Exception):
    """Nothing was counted; :meth:`RouteLimits.count` says for how long. Nobody but the caller is told."""


class TooOften(TooManyRequests):
    """Too many requests of this kind; wait as long as the header Retry-After says."""

    code = "rate_limited"


def class_of(method: str, path: str) -> RouteClass:
    """The class of a request that came with a good credential. Pure."""
    if method not in {"GET", "HEAD"}:
        return RouteClass.WRITE
    return RouteClass.STREAM if path.endswith("/events") else RouteClass.READ


class RouteLimits:
    """How often each account and each address may call; ``per_minute`` at once and then per minute, 0 for no limit."""

    def __init__(self, db: Database, world: World, per_minute: Mapping[RouteClass, int]) -> None:
        self._db = db
        self._world = world
        self._per_minute = per_minute

    def gates(self, kind: RouteClass, origin: Origin, user_id: UserId | None) -> list[Gate]:
        """Where a request of ``user_id``, or of nobody known, from ``origin`` counts; nowhere when there is no limit."""
        rate = self._per_minute[kind]
        if rate == 0:
            return []
        if user_id is None:
            return [_limit(f"{kind}-address", rate).of(origin.network)]
        return [
            _limit(f"{kind}-account", rate).of(str(user_id)),
            _limit(f"{kind}-address", rate * ADDRESS_SHARE).of(origin.network),
        ]

    async def count_unknown(self, origin: Origin) -> None:
        """Count a request without a good credential, in a transaction of its own. Raises :class:`TooOften`."""
        if self._per_minute[RouteClass.AUTH] == 0:
            return
        async with self._db.system_transaction() as tx:
            await self.count(tx, RouteClass.AUTH, origin, None)

    async def count(self, tx: SystemTx, kind: RouteClass, origin: Origin, user_id: UserId | None) -> None:
        """Count a request of ``user_id``, or of nobody known, from ``origin``.

        Raises :class:`TooOften`; ``tx`` is then left with it, so that the request does not count.
        """
        gates = self.gates(kind, origin, user_id)
        wait_s = await take(tx, gates, self._world.now()) if gates else None
        if wait_s is not None:
            whose = "from your address" if user_id is None else "by your account or from your address"
            sentence = f"Too many requests of the class `{kind}` {whose}, more than {self._per_minute[kind]} a minute"
            raise TooOften(f"{sentence}; wait {max(1, round(wait_s))} s.", retry_after_s=wait_s)


def _limit(name: str, per_minute: int) -> Limit:
    return Limit(name, burst=per_minute, every_s=60 / per_minute)
