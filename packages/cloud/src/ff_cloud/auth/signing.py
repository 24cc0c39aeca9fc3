"""The keys of access tokens: rows that all replicas share, the private half sealed. Rotation logs nobody out.

One key signs. When it is replaced it goes on verifying until its last token has ended, then it is deleted. Which key signs is
asked in the transaction that signs; which keys verify is remembered for :data:`REMEMBERED_S`, and asked again at once when a
token names an unknown one.
"""

from contextlib import suppress
from datetime import datetime, timedelta

from joserfc.jwk import OKPKey

from ff_cloud.audit import service as audit
from ff_cloud.auth import signing_repository, tokens
from ff_cloud.auth.signing_repository import StoredSigningKey
from ff_cloud.auth.tokens import ALGORITHM, CLOCK_SKEW_S, LIFE_S, AccessClaims, KeyUnknown, SigningKey
from ff_cloud.errors import NotLoggedIn
from ff_cloud.kit.crypto import Sealer
from ff_cloud.kit.db import Database, SystemTx
from ff_core.contract.account import KeySetView, PublicKeyView

ROTATE_AFTER = timedelta(days=90)
REMEMBERED_S = 60
VERIFIES_ON = timedelta(seconds=LIFE_S + CLOCK_SKEW_S + 60)
"""How long a key verifies after it was replaced: the life of a token signed in a transaction that ends a minute later."""


class TokenKeys:
    """Signs and verifies access tokens. Any number of replicas may have one over the same database."""

    def __init__(self, db: Database, sealer: Sealer) -> None:
        self._db = db
        self._sealer = sealer
        self._signing: SigningKey | None = None
        self._verifying: dict[str, OKPKey] = {}
        self._read_at: datetime | None = None

    async def issue(self, tx: SystemTx, claims: AccessClaims, now: datetime) -> str:
        """A token, signed with the newest key. Raises ``SealBroken`` when the server's secret is not the one that sealed it;
        :meth:`rotate` then makes a key that works.
        """
        stored = await self._current(tx, now)
        if self._signing is None or self._signing.kid != stored.kid:
            seed = self._sealer.open_sealed(stored.private, _context(stored.kid))
            self._signing = SigningKey.of_seed(tokens.from_base64url(seed))
        return tokens.issue(claims, self._signing, now)

    async def verify(self, token: str, now: datetime) -> AccessClaims:
        """What a token says. Raises ``NotLoggedIn`` for everything but a good one of ours. Opens a transaction of its own once a
        minute, and for a token that names an unknown key.
        """
        fresh = self._read_at is not None and timedelta() <= now - self._read_at < timedelta(seconds=REMEMBERED_S)
        if fresh:
            with suppress(KeyUnknown):
                return tokens.verify(token, self._verifying, now)
        await self._read(now)
        try:
            return tokens.verify(token, self._verifying, now)
        except KeyUnknown as error:
            raise NotLoggedIn from error

    async def public_keys(self, now: datetime) -> KeySetView:
        """The keys that verify, newest first, without their private halves. Makes the first key of a fresh server."""
        async with self._db.system_transaction() as tx:
            await self._current(tx, now)
            stored = await signing_repository.verifying(tx, now)
        shown = (PublicKeyView(kid=key.kid, kty="OKP", crv="Ed25519", x=key.public, alg=ALGORITHM, use="sig") for key in stored)
        return KeySetView(keys=tuple(shown))

    async def rotate(self, tx: SystemTx, now: datetime) -> str:
        """Sign with a new key from now on; its id. Nobody is logged out. Of several at once one makes the key."""
        await self._replace(tx, now, made_until=now)
        return (await self._current(tx, now)).kid

    async def rotate_if_due(self, tx: SystemTx, now: datetime) -> bool:
        """Rotate when the key has signed for :data:`ROTATE_AFTER`, and delete keys whose last token has ended; for a sweep.

        True when this call rotated. Makes the first key of a fresh server. May be repeated and raced.
        """
        await signing_repository.forget_retired(tx, now)
        await self._current(tx, now)
        return await self._replace(tx, now, made_until=now - ROTATE_AFTER)

    async def _replace(self, tx: SystemTx, now: datetime, *, made_until: datetime) -> bool:
        if not await signing_repository.retire(tx, made_until=made_until, retires_at=now + VERIFIES_ON):
            return False
        new = self._new(now)
        await signing_repository.add(tx, new)
        await audit.record(tx, user_id=None, action="signing_key.rotated", kid=new.kid)
        return True

    async def _current(self, tx: SystemTx, now: datetime) -> StoredSigningKey:
        stored = await signing_repository.current(tx)
        if stored is None:
            await signing_repository.add(tx, self._new(now))
            stored = await signing_repository.current(tx)
            assert stored is not None  # noqa: S101  (ours, or that of whoever was faster)
        return stored

    def _new(self, now: datetime) -> StoredSigningKey:
        seed = tokens.new_seed()
        key = SigningKey.of_seed(seed)
        sealed = self._sealer.seal(tokens.base64url(seed), _context(key.kid))
        return StoredSigningKey(key.kid, key.public, sealed, created_at=now, retires_at=None)

    async def _read(self, now: datetime) -> None:
        async with self._db.system_transaction() as tx:
            stored = await signing_repository.verifying(tx, now)
        self._verifying = {key.kid: tokens.verifying_key(key.public) for key in stored}
        self._read_at = now


def _context(kid: str) -> str:
    return f"signing_key:{kid}"
