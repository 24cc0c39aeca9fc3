"""Rules of third-party credentials. Opening one is for the gateway; nothing here gives a value to the API."""

import os
from base64 import b64decode, b64encode
from collections.abc import Sequence
from dataclasses import dataclass

from pydantic import SecretStr

from ff_cloud.audit import service as audit
from ff_cloud.credentials import repository
from ff_cloud.credentials.errors import CredentialNotSet, ModelKeyMissing
from ff_cloud.credentials.keyring import KEY_BYTES, Keyring, derived
from ff_cloud.credentials.repository import Sealed
from ff_cloud.kit.crypto import Sealer
from ff_cloud.kit.db import Database, Tx
from ff_cloud.kit.origin import Origin
from ff_core.contract.credentials import HINT_CHARS, HINT_FROM_CHARS, CredentialKind, CredentialView
from ff_core.errors import TimedOut
from ff_core.ids import UserId
from ff_core.world import World

MODEL_KINDS = (CredentialKind.ANTHROPIC_API_KEY, CredentialKind.ANTHROPIC_OAUTH_TOKEN)
"""What opens the model, in the order of preference."""
REWRAPPED_AT_ONCE = 100
_BUSY_TRIES_MAX = 20
_BUSY_PAUSE_S = 0.5


@dataclass(frozen=True, slots=True)
class Opened:
    """A secret in the clear. Keep it no longer than the request that needs it."""

    kind: CredentialKind
    value: SecretStr


class Credentials:
    """Envelope encryption: each value under a data key of its own, each data key under a key of the ``keyring``.

    ``server_has_model_key``: users without a key of their own work with the server's.
    """

    def __init__(self, *, db: Database, keyring: Keyring, world: World, server_has_model_key: bool) -> None:
        self._db = db
        self._keyring = keyring
        self._world = world
        self._server_has_model_key = server_has_model_key

    async def put(self, tx: Tx, kind: CredentialKind, value: SecretStr, key_id: str, origin: Origin) -> CredentialView:
        """Store a secret under the key that :meth:`current_key` named; the one before is gone."""
        text = value.get_secret_value()
        data_key = os.urandom(KEY_BYTES)
        sealed = Sealed(
            user_id=tx.user_id,
            kind=kind,
            sealed=Sealer(data_key).seal(text, _context(tx.user_id, kind)),
            data_key_sealed=self._wrap(data_key, tx.user_id, kind, key_id),
            key_id=key_id,
        )
        hint = text[-HINT_CHARS:] if len(text) >= HINT_FROM_CHARS else ""
        view = await repository.put(tx, sealed, hint, self._world.now())
        await audit.record(tx, user_id=tx.user_id, action="credential.set", origin=origin, kind=kind)
        return view

    async def remove(self, tx: Tx, kind: CredentialKind, origin: Origin) -> None:
        """Forget a secret. Raises :class:`CredentialNotSet`."""
        if not await repository.remove(tx, kind):
            raise CredentialNotSet
        await audit.record(tx, user_id=tx.user_id, action="credential.removed", origin=origin, kind=kind)

    async def list(self, tx: Tx) -> list[CredentialView]:
        """What is stored, without values."""
        return await repository.views(tx)

    async def require_model_key(self, tx: Tx) -> None:
        """Raise :class:`ModelKeyMissing` when the transaction's user could only get refusals from the model."""
        if not self._server_has_model_key and not await repository.has_any(tx, MODEL_KINDS):
            raise ModelKeyMissing

    async def open_first(self, tx: Tx, kinds: Sequence[CredentialKind]) -> Opened | None:
        """The first of ``kinds`` that the transaction's user has; notes the use. For the gateway only. Raises ``SealBroken``."""
        found = await repository.find(tx, kinds)
        kind = next((kind for kind in kinds if kind in found), None)
        if kind is None:
            return None
        secret = found[kind]
        await repository.note_use(tx, secret, self._world.now())
        value = Sealer(self._unwrap(secret)).open_sealed(secret.sealed, _context(secret.user_id, kind))
        return Opened(kind, SecretStr(value))

    async def current_key(self) -> str:
        """The name of the key that new secrets go under."""
        if self._keyring.filed is not None:
            return self._keyring.filed
        async with self._db.system_transaction() as tx:
            return derived(await repository.key_version(tx))

    async def rotate(self) -> int:
        """Begin a new key (with a key file: take its newest) and put every data key under it; returns how many were moved.

        Values are not encrypted anew and never seen. Servers go on meanwhile. One that dies half way has moved some: the
        next rotation moves the rest. Raises ``SealBroken`` when a key is missing, and ``TimedOut`` when others hold rows.
        """
        if self._keyring.filed is None:
            async with self._db.system_transaction() as tx:
                await repository.add_key_version(tx, self._world.now())
        key_id = await self.current_key()
        moved = tries = 0
        while True:
            async with self._db.system_transaction() as tx:
                some = await repository.not_under(tx, key_id, REWRAPPED_AT_ONCE)
                for secret in some:
                    wrapped = self._wrap(self._unwrap(secret), secret.user_id, secret.kind, key_id)
                    await repository.rewrap(tx, secret, wrapped, key_id)
                left = 0 if some else await repository.count_not_under(tx, key_id)
            moved += len(some)
            if not some:
                if not left:
                    return moved
                tries += 1
                if tries > _BUSY_TRIES_MAX:
                    raise TimedOut(f"{left} credentials are in use by others and were not moved; run it again.")
                await self._world.sleep(_BUSY_PAUSE_S)

    def _wrap(self, data_key: bytes, user_id: UserId, kind: CredentialKind, key_id: str) -> str:
        return Sealer(self._keyring.key(key_id)).seal(b64encode(data_key).decode(), f"{_context(user_id, kind)}:{key_id}")

    def _unwrap(self, secret: Sealed) -> bytes:
        context = f"{_context(secret.user_id, secret.kind)}:{secret.key_id}"
        return b64decode(Sealer(self._keyring.key(secret.key_id)).open_sealed(secret.data_key_sealed, context))


def _context(user_id: UserId, kind: CredentialKind) -> str:
    """What a secret belongs to: it does not open in another user's row, nor as another kind."""
    return f"credential:{user_id}:{kind}"
