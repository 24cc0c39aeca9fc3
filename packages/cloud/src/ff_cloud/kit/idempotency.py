"""``Idempotency-Key``: a creating request that is sent twice takes effect once, and its answer is given again.

The answer is stored in the transaction of the effect, so both are there or none is. Of two requests with one key at
the same time the second waits for the first.
"""

import hashlib
import hmac
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Annotated, Any

from fastapi import Depends, Request
from psycopg.types.json import Jsonb
from sqlalchemy import Column, DateTime, SmallInteger, Table, Text, Uuid, delete, func
from sqlalchemy.dialects.postgresql import JSONB

from ff_cloud.errors import IdempotencyKeyInvalid, IdempotencyMismatch
from ff_cloud.kit.db import SystemTx, Tx
from ff_cloud.kit.tables import metadata

KEY_CHARS_MAX = 200
KEPT = timedelta(hours=24)
"""How long an answer is remembered at least."""

idempotency_keys = Table(
    "idempotency_keys",
    metadata,
    Column("user_id", Uuid, primary_key=True),
    Column("key", Text, primary_key=True),
    Column("fingerprint", Text, nullable=False),
    Column("status", SmallInteger),
    Column("body", JSONB),
    Column("created_at", DateTime(timezone=True), nullable=False, server_default=func.now()),
)


_CLAIM = """
    insert into idempotency_keys (user_id, key, fingerprint) values (%(user_id)s, %(key)s, %(fingerprint)s)
    on conflict do nothing returning key
"""
_EARLIER = "select fingerprint, status, body from idempotency_keys where user_id = %(user_id)s and key = %(key)s"
_ANSWERED = "update idempotency_keys set status = %(status)s, body = %(body)s where user_id = %(user_id)s and key = %(key)s"


@dataclass(frozen=True, slots=True)
class Answer:
    """What a request answered. ``replayed`` when an earlier one with the same key did the work."""

    status: int
    body: dict[str, Any]
    replayed: bool = False


async def once(tx: Tx, key: str | None, fingerprint: str, make: Callable[[], Awaitable[Answer]]) -> Answer:
    """Call ``make`` unless this user's key was used before; then give that answer again. Without a key: just call.

    ``make`` works in ``tx`` and its body must hold no secret, since it is stored. Raises :class:`IdempotencyMismatch`
    when the key belongs to another request. A request that failed leaves its key free.
    """
    if key is None:
        return await make()
    mine = {"user_id": tx.user_id, "key": key}
    if not await tx.fetch(_CLAIM, {**mine, "fingerprint": fingerprint}):
        (earlier,) = await tx.fetch(_EARLIER, mine)
        if not hmac.compare_digest(earlier.fingerprint, fingerprint):
            raise IdempotencyMismatch
        return Answer(earlier.status, earlier.body, replayed=True)
    answer = await make()
    await tx.fetch(_ANSWERED, {**mine, "status": answer.status, "body": Jsonb(answer.body)})
    return answer


async def fingerprint_of(request: Request, secret: bytes) -> str:
    """What tells a request from others: a hash of method, path and body.

    Keyed with ``Secrets.fingerprint_key``, since it is stored and a body may hold a password.
    """
    line = f"{request.method} {request.url.path}\n".encode()
    return hmac.new(secret, line + await request.body(), hashlib.sha256).hexdigest()


async def forget_old(tx: SystemTx, now: datetime) -> int:
    """Delete what is older than :data:`KEPT`; to be called every hour or so. Says how many."""
    return (await tx.execute(delete(idempotency_keys).where(idempotency_keys.c.created_at < now - KEPT))).rowcount


async def _header(request: Request) -> str | None:
    key = request.headers.get("idempotency-key")
    if key is not None and (not 1 <= len(key) <= KEY_CHARS_MAX or not key.isascii() or not key.isprintable() or " " in key):
        raise IdempotencyKeyInvalid
    return key


IdempotencyKey = Annotated[str | None, Depends(_header)]
"""The header of the request, checked."""
