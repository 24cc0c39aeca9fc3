"""Whose credential is this? Implements ``kit.caller.Authenticator`` for access tokens and API keys."""

import hmac

from ff_cloud.auth import api_keys, repository, session_repository
from ff_cloud.auth.scopes import granted
from ff_cloud.auth.signing import TokenKeys
from ff_cloud.errors import NotLoggedIn
from ff_cloud.kit.caller import Caller, Via
from ff_cloud.kit.db import Database, SystemTx
from ff_cloud.kit.limits import GateClosed, RouteClass, RouteLimits
from ff_cloud.kit.origin import Origin
from ff_cloud.users import service as users
from ff_cloud.users.errors import AccountDisabled
from ff_core.contract.account import Scope
from ff_core.ids import UserId
from ff_core.world import World


class Access:
    """Checks credentials against the database at every request, so that a revocation counts at once."""

    def __init__(self, db: Database, keys: TokenKeys, limits: RouteLimits, world: World) -> None:
        self._db = db
        self._keys = keys
        self._limits = limits
        self._world = world

    async def admit(self, credential: str, kind: RouteClass, origin: Origin) -> Caller:
        """See :class:`ff_cloud.kit.caller.Authenticator`. Raises ``AccountDisabled`` too."""
        if credential.startswith(api_keys.MARK):
            return await self._by_key(credential, kind, origin)
        return await self._by_token(credential, kind, origin)

    async def _by_token(self, credential: str, kind: RouteClass, origin: Origin) -> Caller:
        now = self._world.now()
        claims = await self._keys.verify(credential, now)
        user_id, session_id = claims.user_id, claims.session_id
        try:
            gates = self._limits.gates(kind, origin, user_id)
            session = await session_repository.admit(self._db, session_id, user_id, gates, now)
        except GateClosed:
            async with self._db.system_transaction() as tx:
                await self._limits.count(tx, kind, origin, user_id)
            # It has opened meanwhile, and is counted.
            session = await session_repository.admit(self._db, session_id, user_id, (), now)
        if session is None:
            raise NotLoggedIn
        if not session.enabled:
            raise AccountDisabled
        if session.stale:
            async with self._db.system_transaction() as tx:
                await session_repository.touch(tx, session_id, now)
        return Caller(user_id, granted(session.scopes, is_admin=session.is_admin), Via.SESSION, session_id)

    async def _by_key(self, credential: str, kind: RouteClass, origin: Origin) -> Caller:
        now = self._world.now()
        presented = api_keys.parse(credential)
        if presented is None:
            raise NotLoggedIn("That is not a whole API key; copy it again.")
        async with self._db.system_transaction() as tx:
            stored = await repository.find_key(tx, presented.prefix, now)
            if stored is None or not hmac.compare_digest(stored.sha256, presented.sha256):
                raise NotLoggedIn("This API key is unknown, has ended or was deleted.")
            scopes = await _granted(tx, stored.user_id, stored.scopes)
            await self._limits.count(tx, kind, origin, stored.user_id)
            await repository.note_key_use(tx, stored, now)
        return Caller(stored.user_id, scopes, Via.API_KEY, stored.id)


async def _granted(tx: SystemTx, user_id: UserId, bound: frozenset[Scope] | None) -> frozenset[Scope]:
    account = await users.require_enabled(tx, user_id)
    return granted(bound, is_admin=account.is_admin)
