"""Rules of GitHub logins: whom one logs in, when it opens an account, and when it is refused.

A GitHub account is known by its number. An e-mail address joins nothing: whoever has an account here logs in to it first and
links then, so that neither an address that changed hands nor an account opened in advance under somebody else's lets anybody in.
"""

import hmac
import secrets
from base64 import urlsafe_b64encode
from dataclasses import dataclass
from datetime import timedelta
from hashlib import sha256

from ff_cloud.auth.errors import SignUpClosed
from ff_cloud.github import repository
from ff_cloud.github.client import GitHub, Person
from ff_cloud.github.errors import (
    AccountHasEmail,
    GitHubEmailUnverified,
    GitHubLoginInvalid,
    GitHubNotSetUp,
    GitHubRefused,
    IdentityElsewhere,
    OtherIdentity,
)
from ff_cloud.github.repository import Begun
from ff_cloud.kit.db import Database, SystemTx, Tx
from ff_cloud.users import service as users
from ff_cloud.users.email import normalised
from ff_cloud.users.errors import EmailTaken
from ff_core.contract.authorization import IdentityView
from ff_core.ids import UserId
from ff_core.world import World

STATE_LIFE = timedelta(minutes=10)
PARAMETER_CHARS_MAX = 500


@dataclass(frozen=True, slots=True)
class Arrival:
    """Somebody came back from GitHub: who it is here, where he goes on, and what happened (``login``, ``signup``, ``link``)."""

    user_id: UserId
    next: str
    how: str


class GitHubLogins:
    """Logins over GitHub. ``github`` is None when the server has none set up. ``key`` makes the PKCE verifiers."""

    def __init__(self, db: Database, github: GitHub | None, world: World, *, key: bytes, signup_open: bool) -> None:
        self._db = db
        self._github = github
        self._world = world
        self._key = key
        self._signup_open = signup_open

    @property
    def url(self) -> str | None:
        """GitHub's address; None when logins over GitHub are not set up."""
        return None if self._github is None else self._github.url

    async def begin(self, browser: bytes, following: str, user_id: UserId | None = None) -> str:
        """Where to send a browser, known by ``browser``, a hash of its cookie. With ``user_id``: to link this account.

        Raises :class:`GitHubNotSetUp`.
        """
        github = self._required()
        state, now = secrets.token_urlsafe(32), self._world.now()
        async with self._db.system_transaction() as tx:
            begun = Begun(following, user_id)
            await repository.add_state(tx, sha256(state.encode()).digest(), browser, begun, now, now + STATE_LIFE)
        challenge = urlsafe_b64encode(sha256(self._verifier(state).encode()).digest()).rstrip(b"=").decode()
        return github.authorize_url(state=state, code_challenge=challenge)

    async def finish(self, browser: bytes, *, state: str, code: str | None) -> Arrival:
        """Somebody comes back; without a code he said no. Each login is finished once, whatever comes of it.

        Raises :class:`GitHubNotSetUp`, :class:`GitHubLoginInvalid`, :class:`GitHubRefused`, ``GitHubUnavailable``,
        :class:`GitHubEmailUnverified`, :class:`AccountHasEmail`, :class:`IdentityElsewhere`, :class:`OtherIdentity`,
        ``SignUpClosed``, ``AccountDisabled``; nothing is left behind by any of them.
        """
        github = self._required()
        if not 1 <= len(state) <= PARAMETER_CHARS_MAX:
            raise GitHubLoginInvalid
        async with self._db.system_transaction() as tx:
            begun = await repository.take_state(tx, sha256(state.encode()).digest(), browser, self._world.now())
        if begun is None:
            raise GitHubLoginInvalid
        if code is None or not 1 <= len(code) <= PARAMETER_CHARS_MAX:
            raise GitHubRefused
        person = await github.person(code=code, code_verifier=self._verifier(state))
        async with self._db.system_transaction() as tx:
            user_id, how = await self._arrive(tx, person, begun)
            await users.require_enabled(tx, user_id)
        return Arrival(user_id, begun.next, how)

    async def _arrive(self, tx: SystemTx, person: Person, begun: Begun) -> tuple[UserId, str]:
        now = self._world.now()
        owner = await repository.owner_of(tx, person.subject)
        if begun.user_id is not None:
            if owner is None and not await repository.add(tx, begun.user_id, person.subject, person.login, now):
                raise OtherIdentity
            if owner not in {None, begun.user_id}:
                raise IdentityElsewhere
            return begun.user_id, "link"
        if owner is not None:
            await repository.note_use(tx, person.subject, person.login, now)
            return owner, "login"
        return await self._open_account(tx, person), "signup"

    async def _open_account(self, tx: SystemTx, person: Person) -> UserId:
        if person.email is None:
            raise GitHubEmailUnverified
        email, now = normalised(person.email), self._world.now()
        if await users.find(tx, email) is not None:
            raise AccountHasEmail
        if not self._signup_open:
            raise SignUpClosed
        user_id = UserId(self._world.new_id())
        name = "".join(char for char in person.name or person.login if char.isprintable())[:100].strip() or None
        try:
            await users.open_account(tx, user_id=user_id, email=email, name=name, now=now, verified=True)
        except EmailTaken as error:
            raise AccountHasEmail from error
        if not await repository.add(tx, user_id, person.subject, person.login, now):
            raise GitHubLoginInvalid  # the same person arrived twice at once; the other request opened the account
        return user_id

    def _required(self) -> GitHub:
        if self._github is None:
            raise GitHubNotSetUp
        return self._github

    def _verifier(self, state: str) -> str:
        # Derived, so that it is stored nowhere: whoever reads the database can't finish somebody's login.
        return urlsafe_b64encode(hmac.new(self._key, b"github:" + state.encode(), sha256).digest()).rstrip(b"=").decode()


async def list_own(tx: Tx) -> list[IdentityView]:
    """The identities of the transaction's user."""
    return await repository.list_own(tx)
