"""Ordering the end of an account."""

from contextlib import suppress
from uuid import UUID

from ff_cloud.audit import service as audit
from ff_cloud.auth.recovery import Recovery
from ff_cloud.auth.recovery_errors import PasswordMissing
from ff_cloud.kit.caller import Caller
from ff_cloud.kit.db import Database
from ff_cloud.kit.origin import Origin
from ff_cloud.mail import letters
from ff_cloud.mail.service import Post
from ff_cloud.operations.service import start
from ff_cloud.users import service as users
from ff_core.contract.recovery import CloseAccount
from ff_core.ids import UserId
from ff_core.world import World

CLOSE_ACCOUNT = "close_account"
_KEY = "account:"


class Closing:
    """See the module. One per process."""

    def __init__(self, *, db: Database, recovery: Recovery, post: Post, world: World) -> None:
        self._db = db
        self._recovery = recovery
        self._post = post
        self._world = world

    async def order(self, caller: Caller, request: CloseAccount, origin: Origin) -> None:
        """Disable the caller's account for good and have it deleted; from now on nothing it was logged in with is good.

        The operation is the server's own: nobody follows it, and its row names no more than the account's id. Raises
        ``LoginRequired``, ``PasswordWrong``, ``LastAdministrator``, ``TooManyAttempts``, ``TooManyLogins``.
        """
        caller.require_login()
        given = request.current_password
        with suppress(PasswordMissing):  # then the login is all there is
            await self._recovery.require_password(caller, given.get_secret_value() if given else "", origin)
        async with self._db.system_transaction() as tx:
            account = await users.disable(tx, caller.user_id, self._world.now(), closing=True)
            await self._recovery.end_logins(tx, caller.user_id)
            # Without its user: the letter must not go with the account. It stays until it is sent, a day at most.
            await self._post.post(tx, account.email, letters.closing(), user_id=None)
            await audit.record(tx, user_id=caller.user_id, action="account.closing", origin=origin)
            await start(
                tx,
                CLOSE_ACCOUNT,
                key=key_of(caller.user_id),
                user_id=None,
                input={},
                world=self._world,
                cancellable=False,
            )


def key_of(user_id: UserId) -> str:
    """What the operation acts on."""
    return f"{_KEY}{user_id}"


def user_of(key: str) -> UserId:
    """The account that an operation acts on."""
    return UserId(UUID(key.removeprefix(_KEY)))
