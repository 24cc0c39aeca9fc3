"""Limits on guessing, kept in PostgreSQL so that all replicas count together: GCRA, one statement per limit.

An attempt that is refused does not count, so nobody who waits is locked out for good. Besides the limit per e-mail there
is a tighter one per e-mail and address: a stranger who hammers on an account uses up his own share first.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from ipaddress import IPv6Address, ip_address

from sqlalchemy import text

from ff_cloud.auth.errors import TooManyAttempts
from ff_cloud.kit.db import SystemTx

_TAKE = text("""
    insert into rate_limits as r (key, tat) values (:key, cast(:now as timestamptz) + :every)
    on conflict (key) do update set tat = greatest(r.tat, :now) + :every
    where greatest(r.tat, :now) - :now <= :slack
    returning tat
""")
_WAIT = text("select tat - cast(:now as timestamptz) - :slack from rate_limits where key = :key")
_FORGET = text("delete from rate_limits where key = :key")
# Rows whose time has passed say nothing. Each attempt writes a few rows and removes more, so the table stays small.
_SWEEP = text("""
    delete from rate_limits where key in
    (select key from rate_limits where tat < :now order by tat limit 10 for update skip locked)
""")


@dataclass(frozen=True, slots=True)
class Limit:
    """``burst`` attempts at once, then one every ``every_s`` seconds."""

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


LOGIN_PER_EMAIL_AND_ADDRESS = Limit("login-pair", burst=10, every_s=30)
LOGIN_PER_EMAIL = Limit("login-email", burst=60, every_s=60)
LOGIN_PER_ADDRESS = Limit("login-address", burst=100, every_s=2)
SIGN_UP_PER_ADDRESS = Limit("signup-address", burst=30, every_s=30)


def login_gates(email: str, address: str) -> list[Gate]:
    """The gates an attempt to log in passes."""
    return [
        LOGIN_PER_EMAIL_AND_ADDRESS.of(email, address),
        LOGIN_PER_EMAIL.of(email),
        LOGIN_PER_ADDRESS.of(address),
    ]


async def take(tx: SystemTx, gates: Sequence[Gate], now: datetime) -> None:
    """Count one attempt at each gate. Raises :class:`TooManyAttempts` when one is closed, and then counts it at none
    if the transaction is left with that error.
    """
    await tx.execute(_SWEEP, {"now": now})
    for gate in _in_order(gates):
        slack = timedelta(seconds=(gate.limit.burst - 1) * gate.limit.every_s)
        values = {"key": gate.key, "now": now, "slack": slack}
        if await tx.scalar(_TAKE, {**values, "every": timedelta(seconds=gate.limit.every_s)}) is None:
            wait = await tx.scalar(_WAIT, values)
            raise TooManyAttempts(retry_after_s=wait.total_seconds() if wait else gate.limit.every_s)


async def forgive(tx: SystemTx, gates: Sequence[Gate]) -> None:
    """Forget what was counted at ``gates``, after a login that was right."""
    for gate in _in_order(gates):
        await tx.execute(_FORGET, {"key": gate.key})


def _in_order(gates: Sequence[Gate]) -> list[Gate]:
    # Everybody locks rows in the same order, so that no two wait for each other.
    return sorted(gates, key=lambda gate: gate.key)


def network_of(host: str | None) -> str:
    """What counts as one address: an IPv4 address, a /64 of IPv6 (one customer), or ``local`` for a local socket."""
    try:
        address = ip_address((host or "").partition("%")[0])
    except ValueError:
        return "local"
    if isinstance(address, IPv6Address) and address.ipv4_mapped is None:
        return f"{IPv6Address(int(address) >> 64 << 64)}/64"
    return str(getattr(address, "ipv4_mapped", None) or address)
