"""Time, sleep and randomness as a parameter, so that tests decide them."""

import asyncio
import secrets
from datetime import UTC, datetime
from typing import Protocol
from uuid import UUID


class World(Protocol):
    """What a part may know of the world outside. Tests pass ``ff_core.testing.world.FakeWorld``."""

    def now(self) -> datetime:
        """The time, aware, in UTC."""
        ...

    async def sleep(self, seconds: float) -> None:
        """Return after ``seconds``."""
        ...

    def new_id(self) -> UUID:
        """A new UUID version 7 (RFC 9562): unique, and later ones sort after earlier ones."""
        ...


class SystemWorld:
    """The real one."""

    def now(self) -> datetime:
        """See :class:`World`."""
        return datetime.now(UTC)  # noqa: TID251  (this is World)

    async def sleep(self, seconds: float) -> None:
        """See :class:`World`."""
        await asyncio.sleep(seconds)

    def new_id(self) -> UUID:
        """See :class:`World`."""
        return uuid7(int(self.now().timestamp() * 1000), secrets.randbits(74))


def uuid7(unix_ms: int, random_bits: int) -> UUID:
    """Assemble a UUID version 7 of a time in milliseconds and 74 random bits (RFC 9562, section 5.7)."""
    value = (unix_ms & (1 << 48) - 1) << 80
    value |= 0x7 << 76
    value |= (random_bits >> 62 & 0xFFF) << 64
    value |= 0b10 << 62
    value |= random_bits & ((1 << 62) - 1)
    return UUID(int=value)
