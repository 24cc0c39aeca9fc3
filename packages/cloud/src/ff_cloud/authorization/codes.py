"""Authorization codes: given to a program on the user's own machine, exchanged once for a session."""

import secrets
from dataclasses import replace
from datetime import timedelta
from hashlib import sha256

from ff_cloud.authorization import policy, repository
from ff_cloud.authorization.begin import Sessions, session_of
from ff_cloud.authorization.errors import GrantInvalid
from ff_cloud.authorization.policy import CodeWish
from ff_cloud.kit.db import Database
from ff_cloud.kit.origin import Origin
from ff_core.contract.account import TokenPairView
from ff_core.ids import UserId
from ff_core.world import World

CODE_LIFE = timedelta(seconds=60)


class Codes:
    """Gives codes and takes them back."""

    def __init__(self, db: Database, sessions: Sessions, world: World) -> None:
        self._db = db
        self._sessions = sessions
        self._world = world

    async def give(self, wish: CodeWish, user_id: UserId) -> str:
        """A code for what the user allowed. It is good once, for a minute, with the verifier of the wish's challenge."""
        code, now = secrets.token_urlsafe(32), self._world.now()
        async with self._db.system_transaction() as tx:
            await repository.add_code(tx, _hash(code), user_id, wish, now, now + CODE_LIFE)
        return code

    async def exchange(self, *, code: str, client_id: str, redirect_uri: str, verifier: str, origin: Origin) -> TokenPairView:
        """Exchange a code. Of any number that try at once at most one succeeds, and then the others end what it got.

        An attempt with anything that does not fit uses the code up. Raises :class:`GrantInvalid`, ``AccountDisabled``.
        """
        now, digest = self._world.now(), _hash(code)
        tokens: TokenPairView | None = None
        async with self._db.system_transaction() as tx:
            stored = await repository.use_code(tx, digest, now)
            if stored is None:
                # A copy of the code is about: whoever came first may not be the one it was meant for.
                if (issued := await repository.issued_by(tx, digest)) is not None:
                    await self._sessions.end(tx, *issued, now)
            elif (
                stored.expires_at > now
                and stored.wish.client_id == client_id
                and stored.wish.redirect_uri == redirect_uri
                and policy.verifies(stored.wish.code_challenge, verifier)
            ):
                named = replace(origin, user_agent=f"{policy.CLIENTS[client_id]} on {stored.wish.device}")
                tokens = await self._sessions.begin(tx, stored.user_id, named, client_id, stored.wish.scopes)
                await repository.note_issued(tx, digest, session_of(tokens))
        if tokens is None:
            raise GrantInvalid  # outside: what was written above stays
        return tokens


def _hash(code: str) -> bytes:
    return sha256(code.encode()).digest()
