"""Whose credential is this? Implements ``kit.caller.Authenticator`` for access tokens and API keys."""

import hmac

from ff_cloud.auth import api_keys, repository
from ff_cloud.auth.tokens import TokenKeys
from ff_cloud.errors import NotLoggedIn
from ff_cloud.kit.caller import Caller, Via
from ff_cloud.kit.db import Database
from ff_core.contract.account import Scope
from ff_core.world import World

SESSION_SCOPES = frozenset(Scope) - {Scope.ADMIN}
"""What a login may do: everything that concerns its own account. Nobody is an administrator by merely signing up."""


class Access:
    """Checks credentials against the database at every request, so that a revocation counts at once."""

    def __init__(self, db: Database, keys: TokenKeys, world: World) -> None:
        self._db = db
        self._keys = keys
        self._world = world

    async def authenticate(self, credential: str) -> Caller:
        """See :class:`ff_cloud.kit.caller.Authenticator`."""
        if credential.startswith(api_keys.MARK):
            return await self._by_key(credential)
        return await self._by_token(credential)

    async def _by_token(self, credential: str) -> Caller:
        now = self._world.now()
        claims = self._keys.verify(credential, now)
        async with self._db.system_transaction() as tx:
            if not await repository.use_session(tx, claims.session_id, claims.user_id, now):
                raise NotLoggedIn("The session of this access token has ended; log in again.")
        return Caller(claims.user_id, SESSION_SCOPES, Via.SESSION, claims.session_id)

    async def _by_key(self, credential: str) -> Caller:
        now = self._world.now()
        presented = api_keys.parse(credential)
        if presented is None:
            raise NotLoggedIn("That is not a whole API key; copy it again.")
        async with self._db.system_transaction() as tx:
            stored = await repository.find_key(tx, presented.prefix, now)
            if stored is None or not hmac.compare_digest(stored.sha256, presented.sha256):
                raise NotLoggedIn("This API key is unknown, has ended or was deleted.")
            await repository.note_key_use(tx, stored.id, now)
        return Caller(stored.user_id, stored.scopes, Via.API_KEY, stored.id)
