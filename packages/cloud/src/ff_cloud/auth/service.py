"""Rules of signing up, in and out, and of API keys."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from uuid import UUID

from pydantic import JsonValue

from ff_cloud.audit import service as audit
from ff_cloud.auth import api_keys, policy, repository, session_repository, sessions, throttle
from ff_cloud.auth.errors import BadCredentials, SignUpClosed, TooManyApiKeys
from ff_cloud.auth.passwords import Passwords, normalise
from ff_cloud.auth.recovery import Asking, Recovery
from ff_cloud.auth.recovery_errors import EmailUnverified
from ff_cloud.auth.signing import TokenKeys
from ff_cloud.errors import LoginRequired
from ff_cloud.kit.caller import Caller, Via
from ff_cloud.kit.db import Database, SystemTx, Tx
from ff_cloud.kit.origin import Origin
from ff_cloud.users import service as users
from ff_cloud.users.email import normalised
from ff_cloud.users.errors import AccountDisabled, EmailInvalid, EmailTaken
from ff_core.contract.account import (
    ApiKeyView,
    AuthSessionView,
    KeySetView,
    LogIn,
    NewApiKey,
    NewApiKeyView,
    Refresh,
    SignUp,
    TokenPairView,
)
from ff_core.errors import NotFound
from ff_core.ids import ApiKeyId, UserId
from ff_core.world import World

API_KEYS_MAX = 100


class Auth:
    """Signing up, in and out. Passwords are hashed between transactions, never inside one."""

    def __init__(
        self,
        db: Database,
        passwords: Passwords,
        keys: TokenKeys,
        world: World,
        *,
        recovery: Recovery,
        signup_open: bool = True,
        require_verified: bool = False,
    ) -> None:
        self._db = db
        self._passwords = passwords
        self.keys = keys
        self._world = world
        self._recovery = recovery
        self._signup_open = signup_open
        self._require_verified = require_verified

    async def sign_up(self, request: SignUp, asking: Asking) -> TokenPairView | None:
        """Open an account and log in; a link to confirm the e-mail is mailed. Raises :class:`SignUpClosed`, ``EmailInvalid``,
        ``PasswordRefused``, ``EmailTaken``, ``TooManyAttempts``, ``TooManyLogins``.

        ``EmailTaken`` tells a stranger that an e-mail has an account. Where ``FF_REQUIRE_VERIFIED_EMAIL`` is set nobody is
        told: the answer is None for both, whoever has the mailbox reads there how it goes on.
        """
        origin = asking.origin
        if not self._signup_open:
            raise SignUpClosed
        email = normalised(request.email)
        password = normalise(request.password.get_secret_value())
        policy.require_good(password, [email, request.name or ""])
        async with self._db.system_transaction() as tx:
            await throttle.take(tx, [throttle.SIGN_UP_PER_ADDRESS.of(origin.network)], self._world.now())
        verifier = await self._passwords.hash(password)
        now = self._world.now()
        user_id = UserId(self._world.new_id())
        async with self._db.system_transaction() as tx:
            try:
                await users.open_account(tx, user_id=user_id, email=email, name=request.name, now=now)
            except EmailTaken:
                if not self._require_verified:
                    raise
                await self._recovery.tell_owner(tx, email, asking)
                return None
            await repository.set_password(tx, user_id, verifier, now)
            await self._recovery.welcome(tx, user_id, email, asking)
            await audit.record(tx, user_id=user_id, action="account.opened", origin=origin)
            if self._require_verified:
                return None
            return await self._begin(tx, user_id, origin, request.client_id)

    async def log_in(self, request: LogIn, origin: Origin) -> TokenPairView:
        """Begin a session. Raises :class:`BadCredentials` (the same, after the same work, whether the e-mail is known or not),
        ``AccountDisabled`` (told only to who knows the password), ``TooManyAttempts``, ``TooManyLogins``.
        """
        async with self._proven(request, origin) as (tx, user_id):
            return await self._begin(tx, user_id, origin, request.client_id)

    async def prove(self, request: LogIn, origin: Origin) -> UserId:
        """Who this is, without a session of the API: for pages in a browser. Raises like :meth:`log_in`."""
        async with self._proven(request, origin) as (tx, user_id):
            await users.require_enabled(tx, user_id)
            return user_id

    @asynccontextmanager
    async def _proven(self, request: LogIn, origin: Origin) -> AsyncIterator[tuple[SystemTx, UserId]]:
        """Check a password; the block runs in the transaction that notes the login."""
        password = normalise(request.password.get_secret_value())
        email = _known_spelling(request.email)
        gates = throttle.login_gates(email or request.email, origin.network)
        async with self._db.system_transaction() as tx:
            await throttle.take(tx, gates, self._world.now())
            user_id = None if email is None else await users.find(tx, email)
            verifier = None if user_id is None else await repository.password_of(tx, user_id)
        verdict = await self._passwords.verify(verifier, password)
        if user_id is None or verifier is None or not verdict.right:
            await self._note_refusal(user_id, origin)
            raise BadCredentials
        try:
            async with self._db.system_transaction() as tx:
                if self._require_verified and (await users.get(tx, user_id)).email_verified_at is None:
                    raise EmailUnverified
                await throttle.forgive(tx, gates[:2])
                if verdict.renewed is not None:
                    await repository.renew_password(tx, user_id, verifier, verdict.renewed)
                await audit.record(tx, user_id=user_id, action="login", origin=origin, method="password")
                yield tx, user_id
                # A reset that ran meanwhile has ended the sessions of before; this one must not come after.
                if await repository.password_of(tx, user_id) not in {verifier, verdict.renewed}:
                    raise BadCredentials
        except AccountDisabled:
            await self._note_refusal(user_id, origin)
            raise

    async def begin_session(self, user_id: UserId, origin: Origin, client_id: str) -> TokenPairView:
        """Begin a session for somebody whose identity was made sure of in another way. Raises ``AccountDisabled``.

        Opens a transaction of its own; whoever has one calls :func:`ff_cloud.auth.sessions.begin` with :attr:`keys`.
        """
        async with self._db.system_transaction() as tx:
            return await self._begin(tx, user_id, origin, client_id)

    async def refresh(self, request: Refresh, origin: Origin) -> TokenPairView:
        """Exchange a refresh token; see :func:`ff_cloud.auth.sessions.refresh`."""
        return await sessions.refresh(self._db, request, keys=self.keys, world=self._world, origin=origin)

    async def public_keys(self) -> KeySetView:
        """What access tokens are verified with."""
        return await self.keys.public_keys(self._world.now())

    async def log_out(self, caller: Caller, origin: Origin) -> None:
        """End the caller's session; its tokens are refused from now on. Raises :class:`LoginRequired` for an API key."""
        require_login(caller)
        async with self._db.transaction(caller.user_id) as tx:
            now = self._world.now()
            await session_repository.revoke(tx, caller.user_id, caller.credential_id, now, "logout")
            await audit.record(tx, user_id=caller.user_id, action="logout", origin=origin)

    async def list_sessions(self, tx: Tx, caller: Caller) -> list[AuthSessionView]:
        """The user's sessions that go on, the latest used first, and which of them asks."""
        current = caller.credential_id if caller.via is Via.SESSION else None
        return await sessions.list_live(tx, self._world.now(), current)

    async def end_session(self, tx: Tx, caller: Caller, session_id: UUID, origin: Origin) -> None:
        """End one of the caller's sessions at once. Raises :class:`LoginRequired`, ``NotFound``."""
        require_login(caller)
        if not await session_repository.revoke(tx, caller.user_id, session_id, self._world.now(), "revoked"):
            raise NotFound
        await audit.record(tx, user_id=caller.user_id, action="session.revoked", origin=origin, session_id=str(session_id))

    async def end_sessions(self, tx: Tx, caller: Caller, origin: Origin, *, own: bool) -> None:
        """End all of the caller's sessions at once, the one that asks only if ``own``. May be repeated.

        Raises :class:`LoginRequired`.
        """
        require_login(caller)
        but = None if own else caller.credential_id
        ended = await sessions.revoke_all(tx, caller.user_id, self._world.now(), but=but)
        await audit.record(tx, user_id=caller.user_id, action="session.revoked", origin=origin, sessions=ended)

    async def make_key(self, tx: Tx, caller: Caller, request: NewApiKey, origin: Origin) -> NewApiKeyView:
        """Make an API key; only here its secret is seen. It can do no more than its maker, and a key makes no keys.

        Raises :class:`LoginRequired`, ``ScopeMissing``, :class:`TooManyApiKeys`.
        """
        require_login(caller)
        for scope in sorted(request.scopes):
            caller.require(scope)
        await repository.lock_keys(tx)
        if await repository.count_keys(tx) >= API_KEYS_MAX:
            raise TooManyApiKeys(f"An account may have {API_KEYS_MAX} API keys, expired ones included; delete some first.")
        now = self._world.now()
        key = api_keys.generate()
        presented = api_keys.parse(key)
        assert presented is not None  # noqa: S101  (what generate makes, parse takes)
        view = NewApiKeyView(
            id=ApiKeyId(self._world.new_id()),
            name=request.name,
            prefix=presented.prefix,
            scopes=request.scopes,
            created_at=now,
            expires_at=now + timedelta(days=request.expires_in_days),
            last_used_at=None,
            key=key,
        )
        await repository.add_key(tx, ApiKeyView.model_validate(view.model_dump()), presented.sha256)
        scopes: list[JsonValue] = [*sorted(request.scopes)]
        await audit.record(
            tx, user_id=caller.user_id, action="api_key.made", origin=origin, api_key_id=str(view.id), scopes=scopes
        )
        return view

    async def delete_key(self, tx: Tx, caller: Caller, key_id: ApiKeyId, origin: Origin) -> None:
        """End a key at once. A key may end itself (that is how the desktop logs out) and no other one.

        Raises :class:`LoginRequired`, ``NotFound``.
        """
        if caller.via is Via.API_KEY and caller.credential_id != key_id:
            raise LoginRequired
        if not await repository.revoke_key(tx, key_id, self._world.now()):
            raise NotFound
        await audit.record(tx, user_id=caller.user_id, action="api_key.deleted", origin=origin, api_key_id=str(key_id))

    async def _note_refusal(self, user_id: UserId | None, origin: Origin) -> None:
        # For an unknown e-mail too: it is the same work, and an administrator sees that somebody tries addresses.
        async with self._db.system_transaction() as tx:
            await audit.record(tx, user_id=user_id, action="login", outcome="refused", origin=origin, method="password")

    async def _begin(self, tx: SystemTx, user_id: UserId, origin: Origin, client_id: str) -> TokenPairView:
        return await sessions.begin(tx, keys=self.keys, world=self._world, user_id=user_id, origin=origin, client_id=client_id)


async def list_keys(tx: Tx) -> list[ApiKeyView]:
    """The user's keys, newest first, expired ones included, deleted ones not; at most :data:`API_KEYS_MAX`."""
    return await repository.list_keys(tx)


async def has_password(tx: SystemTx, user_id: UserId) -> bool:
    """Whether this account can log in with a password."""
    return await repository.password_of(tx, user_id) is not None


def require_login(caller: Caller) -> None:
    """Raise :class:`LoginRequired` unless the caller logged in with a password."""
    if caller.via is not Via.SESSION:
        raise LoginRequired


def _known_spelling(email: str) -> str | None:
    """The spelling an account would have; None for what is no address, so that nobody can have it."""
    try:
        return normalised(email)
    except EmailInvalid:
        return None
