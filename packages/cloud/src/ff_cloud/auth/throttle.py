"""Limits on guessing. The counting is that of ``kit.limits``.

Besides the limit per e-mail there is a tighter one per e-mail and address: a stranger who hammers on an account uses up his own
share first.
"""

from collections.abc import Sequence
from datetime import datetime

from ff_cloud.auth.errors import TooManyAttempts
from ff_cloud.kit import limits
from ff_cloud.kit.db import SystemTx
from ff_cloud.kit.limits import Gate, Limit

__all__ = ["Gate", "Limit", "forgive", "login_gates", "take"]

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
    wait_s = await limits.take(tx, gates, now)
    if wait_s is not None:
        raise TooManyAttempts(retry_after_s=wait_s)


async def forgive(tx: SystemTx, gates: Sequence[Gate]) -> None:
    """Forget what was counted at ``gates``, after a login that was right."""
    await limits.forget(tx, gates)
