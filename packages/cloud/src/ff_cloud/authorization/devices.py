"""Device logins (RFC 8628): a program without a browser shows a code, its user types it into a browser elsewhere.

This can be abused to make somebody approve another's login, so the code is typed and never linked to, the login is fresh, the
page says what asks from where, and a mail follows.
"""

import secrets
from dataclasses import dataclass, replace
from datetime import timedelta
from hashlib import sha256

from sqlalchemy.exc import IntegrityError

from ff_cloud.audit import service as audit
from ff_cloud.auth import throttle
from ff_cloud.auth.errors import TooManyAttempts
from ff_cloud.authorization import policy, repository
from ff_cloud.authorization.begin import Sessions
from ff_cloud.authorization.errors import (
    AccessDenied,
    AuthorizationPending,
    DeviceCodeExpired,
    GrantInvalid,
    OAuthRefusal,
    SlowDown,
    TooManyDeviceLogins,
    UserCodeUnknown,
)
from ff_cloud.authorization.policy import Wish
from ff_cloud.authorization.repository import StoredDevice
from ff_cloud.kit.db import Database, SystemTx
from ff_cloud.kit.limits import Limit
from ff_cloud.kit.origin import Origin
from ff_cloud.mail import letters
from ff_cloud.mail.service import Post
from ff_cloud.users import service as users
from ff_core.contract.account import TokenPairView
from ff_core.contract.authorization import SLOW_DOWN_S
from ff_core.ids import UserId
from ff_core.world import World

LIFE = timedelta(minutes=10)
INTERVAL_S = 5
INTERVAL_S_MAX = 300
BEGIN_PER_ADDRESS = Limit("device-begin", burst=20, every_s=15)
TYPE_PER_ACCOUNT = Limit("device-type-account", burst=5, every_s=120)
TYPE_PER_ADDRESS = Limit("device-type-address", burst=20, every_s=30)
_CODES_TRIED_MAX = 5


@dataclass(frozen=True, slots=True)
class Begun:
    """A device login, as its program is told."""

    device_code: str
    user_code: str


class Devices:
    """Begins device logins, shows them to users, and answers the programs that wait."""

    def __init__(self, db: Database, sessions: Sessions, post: Post, world: World) -> None:
        self._db = db
        self._sessions = sessions
        self._post = post
        self._world = world

    async def begin(self, wish: Wish, origin: Origin) -> Begun:
        """Begin one. Raises :class:`TooManyDeviceLogins`."""
        now = self._world.now()
        device_code = secrets.token_urlsafe(32)
        stored = StoredDevice(
            wish=wish,
            place=origin.network,
            status="pending",
            user_id=None,
            interval_s=INTERVAL_S,
            last_poll_at=None,
            created_at=now,
            expires_at=now + LIFE,
        )
        async with self._db.system_transaction() as tx:
            try:
                await throttle.take(tx, [BEGIN_PER_ADDRESS.of(origin.network)], now)
            except TooManyAttempts as error:
                raise TooManyDeviceLogins from error
            return Begun(device_code, await self._add(tx, _hash(device_code), stored))

    async def look(self, user_code: str, user_id: UserId, origin: Origin) -> StoredDevice:
        """What waits under a code that ``user_id`` typed.

        Raises :class:`UserCodeUnknown`, and after five wrong ones ``TooManyAttempts``.
        """
        gates = [TYPE_PER_ACCOUNT.of(str(user_id)), TYPE_PER_ADDRESS.of(origin.network)]
        code, now = policy.typed_code(user_code), self._world.now()
        async with self._db.system_transaction() as tx:
            await throttle.take(tx, gates, now)
            found = None if code is None else await repository.waiting_device(tx, _hash(code), now)
            if found is not None:
                await throttle.forgive(tx, gates)
        if found is None:
            raise UserCodeUnknown  # outside: the attempt stays counted
        return found

    async def decide(self, user_code: str, user_id: UserId, origin: Origin, *, approve: bool) -> None:
        """Approve or deny, once; the account's owner hears of an approval by mail too.

        Raises :class:`UserCodeUnknown` when it was decided or ended meanwhile, ``AccountDisabled``.
        """
        code, now = policy.typed_code(user_code), self._world.now()
        async with self._db.system_transaction() as tx:
            await users.require_enabled(tx, user_id)
            found = None if code is None else await repository.waiting_device(tx, _hash(code), now)
            status = "approved" if approve else "denied"
            if code is None or found is None or not await repository.decide_device(tx, _hash(code), user_id, status, now):
                raise UserCodeUnknown
            action = "device.approved" if approve else "device.denied"
            await audit.record(tx, user_id=user_id, action=action, origin=origin, device=found.wish.device)
            if approve:
                account = await users.get(tx, user_id)
                await self._post.post(tx, account.email, letters.device_approved(found.wish.device, found.place), user_id=user_id)

    async def poll(self, *, device_code: str, client_id: str, origin: Origin) -> TokenPairView:
        """The tokens, once, when the user has approved. Of any number that ask at once one gets them.

        Raises :class:`AuthorizationPending`, :class:`SlowDown` (from now on the interval is five seconds longer),
        :class:`AccessDenied`, :class:`DeviceCodeExpired`, :class:`GrantInvalid`, ``AccountDisabled``.
        """
        digest = _hash(device_code)
        async with self._db.system_transaction() as tx:
            approved = await repository.consume_device(tx, digest, client_id, self._world.now())
            if approved is not None and approved.user_id is not None:
                named = replace(origin, user_agent=f"{policy.CLIENTS[client_id]} on {approved.wish.device}")
                return await self._sessions.begin(tx, approved.user_id, named, client_id, approved.wish.scopes)
            refusal = await self._refusal(tx, digest, client_id)
        raise refusal  # outside: what was written stays

    async def _refusal(self, tx: SystemTx, digest: bytes, client_id: str) -> OAuthRefusal:
        now = self._world.now()
        device = await repository.lock_device(tx, digest, client_id)
        if device is None or device.status == "consumed":
            return GrantInvalid()
        if device.expires_at <= now:
            return DeviceCodeExpired()
        if device.status == "denied":
            return AccessDenied()
        early = device.last_poll_at is not None and now < device.last_poll_at + timedelta(seconds=device.interval_s)
        interval_s = min(device.interval_s + SLOW_DOWN_S, INTERVAL_S_MAX) if early else device.interval_s
        await repository.note_poll(tx, digest, interval_s, now)
        return SlowDown() if early else AuthorizationPending()

    async def _add(self, tx: SystemTx, digest: bytes, stored: StoredDevice) -> str:
        for _ in range(_CODES_TRIED_MAX):
            user_code = policy.new_user_code()
            try:
                async with tx.savepoint():
                    await repository.add_device(tx, digest, _hash(user_code), stored)
            except IntegrityError:
                continue
            return user_code
        raise TooManyDeviceLogins


def _hash(code: str) -> bytes:
    return sha256(code.encode()).digest()
