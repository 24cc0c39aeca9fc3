"""Rules of signing up, logging in, and API keys."""

from dataclasses import dataclass
from datetime import timedelta

from ff_cloud.auth import api_keys, policy, repository, throttle
from ff_cloud.auth.errors import BadCredentials, SignUpClosed, TooManyApiKeys
from ff_cloud.auth.passwords import Passwords, normalise
from ff_cloud.auth.tokens import LIFE_S, AccessClaims, TokenKeys
from ff_cloud.errors import LoginRequired
from ff_cloud.kit.caller import Caller, Via
from ff_cloud.kit.db import Database, SystemTx, Tx
from ff_cloud.users import service as users
from ff_cloud.users.email import normalised
from ff_cloud.users.errors import EmailInvalid
from ff_core.contract.account import ApiKeyView, LogIn, NewApiKey, NewApiKeyView, SignUp, TokenView
from ff_core.errors import NotFound
from ff_core.ids import ApiKeyId, UserId
from ff_core.world import World

SESSION_LIFE = timedelta(days=30)
USER_AGENT_CHARS_MAX = 200
API_KEYS_MAX = 100


@dataclass(frozen=True, slots=True)
class Origin:
    """Where a request comes from: the network that limits count by, and what the program calls itself."""

    network: str
    user_agent: str


class Auth:
    """Signing up, in and out. Passwords are hashed between transactions, never inside one."""

    def __init__(self, db: Database, passwords: Passwords, keys: TokenKeys, world: World, *, signup_open: bool = True) -> None:
        self._db = db
        self._passwords = passwords
        self._keys = keys
        self._world = world
        self._signup_open = signup_open

    async def sign_up(self, request: SignUp, origin: Origin) -> TokenView:
        """Open an account and log in. Raises :class:`SignUpClosed`, ``EmailInvalid``, ``PasswordRefused``, ``EmailTaken``,
        ``TooManyAttempts``, ``TooManyLogins``.

        ``EmailTaken`` tells a stranger that an e-mail has an account. It has to be so as long as addresses are not verified by
        mail; then the answer becomes the same for both.
        """
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
            await users.open_account(tx, user_id=user_id, email=email, name=request.name, now=now)
            await repository.set_password(tx, user_id, verifier, now)
            return await self._begin_session(tx, user_id, origin)

    async def log_in(self, request: LogIn, origin: Origin) -> TokenView:
        """Begin a session. Raises :class:`BadCredentials` (the same, after the same work, whether the e-mail is known or not),
        ``TooManyAttempts``, ``TooManyLogins``.
        """
        password = normalise(request.password.get_secret_value())
        email = _known_spelling(request.email)
        gates = throttle.login_gates(email or request.email, origin.network)
        async with self._db.system_transaction() as tx:
            await throttle.take(tx, gates, self._world.now())
            user_id = None if email is None else await users.find(tx, email)
            verifier = None if user_id is None else await repository.password_of(tx, user_id)
        verdict = await self._passwords.verify(verifier, password)
        if user_id is None or verifier is None or not verdict.right:
            raise BadCredentials
        async with self._db.system_transaction() as tx:
            await throttle.forgive(tx, gates[:2])
            if verdict.renewed is not None:
                await repository.renew_password(tx, user_id, verifier, verdict.renewed)
            return await self._begin_session(tx, user_id, origin)

    async def log_out(self, caller: Caller) -> None:
        """End the caller's session; its access tokens are refused from now on. Raises :class:`LoginRequired` for an API key."""
        require_login(caller)
        async with self._db.transaction(caller.user_id) as tx:
            await repository.revoke_session(tx, caller.credential_id, self._world.now())

    async def make_key(self, tx: Tx, caller: Caller, request: NewApiKey) -> NewApiKeyView:
        """Make an API key; only here its secret is seen. It can do no more than its maker, and a key makes no keys.

        Raises :class:`LoginRequired`, ``ScopeMissing``, :class:`TooManyApiKeys`.
        """
        require_login(caller)
        for scope in sorted(request.scopes):
            caller.require(scope)
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
        return view

    async def delete_key(self, tx: Tx, caller: Caller, key_id: ApiKeyId) -> None:
        """End a key at once. A key may end itself (that is how the desktop logs out) and no other one.

        Raises :class:`LoginRequired`, ``NotFound``.
        """
        if caller.via is Via.API_KEY and caller.credential_id != key_id:
            raise LoginRequired
        if not await repository.revoke_key(tx, key_id, self._world.now()):
            raise NotFound

    async def _begin_session(self, tx: SystemTx, user_id: UserId, origin: Origin) -> TokenView:
        now = self._world.now()
        session_id = self._world.new_id()
        await repository.add_session(
            tx,
            session_id=session_id,
            user_id=user_id,
            user_agent=origin.user_agent[:USER_AGENT_CHARS_MAX],
            now=now,
            expires_at=now + SESSION_LIFE,
        )
        token = self._keys.issue(AccessClaims(user_id, session_id, self._world.new_id()), now)
        return TokenView(access_token=token, expires_in=LIFE_S)


async def list_keys(tx: Tx) -> list[ApiKeyView]:
    """The user's keys, newest first, expired ones included, deleted ones not; at most :data:`API_KEYS_MAX`."""
    return await repository.list_keys(tx)


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
