"""Verification of e-mails, forgotten passwords, changes of password and e-mail.

A link holds a token of 256 random bits, is stored as a hash, works once, and a newer one for the same purpose makes it void. What
an outsider may ask for is answered alike, after the same work, whether the e-mail has an account or not.
"""

import hashlib
import secrets
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import timedelta
from urllib.parse import quote

from ff_cloud.audit import service as audit
from ff_cloud.auth import policy, recovery_repository, repository, sessions, throttle
from ff_cloud.auth.passwords import Passwords, normalise
from ff_cloud.auth.recovery_errors import LinkInvalid, PasswordMissing, PasswordWrong
from ff_cloud.auth.recovery_repository import Link, Purpose
from ff_cloud.kit.caller import Caller
from ff_cloud.kit.db import Database, SystemTx
from ff_cloud.kit.origin import Origin
from ff_cloud.mail import letters
from ff_cloud.mail.letters import Letter
from ff_cloud.mail.service import Post
from ff_cloud.users import service as users
from ff_cloud.users.email import normalised
from ff_core.contract.recovery import ChangeEmail, ChangePassword, ResetPassword
from ff_core.ids import UserId
from ff_core.world import World

RESET_LIFE = timedelta(minutes=15)
VERIFY_LIFE = timedelta(hours=24)
PASSWORD_PER_USER = throttle.Limit("password-user", burst=10, every_s=30)
LINK_PER_ADDRESS = throttle.Limit("link-address", burst=30, every_s=30)
MAIL_PER_EMAIL = throttle.Limit("mail-email", burst=3, every_s=300)
"""So that nobody can fill a stranger's mailbox."""
_TOKEN_BYTES = 32
_CONFIRM = frozenset({Purpose.VERIFY, Purpose.CHANGE})

EndBrowsers = Callable[[SystemTx, UserId], Awaitable[None]]
"""Ends what a user is logged in with in browsers; passed in, because browsers are a later room's."""

_LIVES = {Purpose.VERIFY: VERIFY_LIFE, Purpose.RESET: RESET_LIFE, Purpose.CHANGE: VERIFY_LIFE}
_LETTERS: dict[Purpose, Callable[[str], Letter]] = {
    Purpose.VERIFY: letters.verify,
    Purpose.RESET: letters.reset,
    Purpose.CHANGE: letters.change_email,
}
_PAGES = {Purpose.VERIFY: "verify", Purpose.RESET: "reset", Purpose.CHANGE: "verify"}


@dataclass(frozen=True, slots=True)
class Asking:
    """Who asks for a letter, and where its link shall lead: the address of this server as a browser sees it."""

    origin: Origin
    base_url: str


class Recovery:
    """See the module. Passwords are hashed between transactions, never inside one."""

    def __init__(self, db: Database, passwords: Passwords, post: Post, world: World, end_browsers: EndBrowsers) -> None:
        self._db = db
        self._passwords = passwords
        self._post = post
        self._world = world
        self._end_browsers = end_browsers

    async def forgot(self, email: str, asking: Asking) -> None:
        """Mail a link that sets a new password, if the e-mail has an account. Raises ``EmailInvalid``, ``TooManyAttempts``."""
        email = normalised(email)
        await self._throttle(email, asking.origin)
        async with self._db.system_transaction() as tx:
            user_id = await self._enabled(tx, email)
            await self._mail_or_pretend(tx, Purpose.RESET, user_id, email, asking)
            await audit.record(tx, user_id=user_id, action="password.forgotten", origin=asking.origin)

    async def ask_verification(self, email: str, asking: Asking) -> None:
        """Mail another link that confirms an e-mail, if it has an account and is not confirmed. Raises like :meth:`forgot`."""
        email = normalised(email)
        await self._throttle(email, asking.origin)
        async with self._db.system_transaction() as tx:
            user_id = await self._enabled(tx, email)
            if user_id is not None and (await users.get(tx, user_id)).email_verified_at is not None:
                user_id = None
            await self._mail_or_pretend(tx, Purpose.VERIFY, user_id, email, asking)

    async def welcome(self, tx: SystemTx, user_id: UserId, email: str, asking: Asking) -> None:
        """After a sign-up: mail the link that confirms the e-mail."""
        await self._mail_link(tx, Link(user_id, Purpose.VERIFY, email), asking)

    async def tell_owner(self, tx: SystemTx, email: str, asking: Asking) -> None:
        """After a sign-up with a taken e-mail that must not say so: tell its owner, with a link to set a password."""
        user_id = await self._enabled(tx, email)
        await self._mail_or_pretend(tx, Purpose.RESET, user_id, email, asking, letters.have_account)

    async def confirm(self, token: str, origin: Origin) -> str:
        """Use a link that was mailed to an address: confirms it, and moves the account there if that was asked for.

        Returns the address. Raises :class:`LinkInvalid`, ``EmailTaken``, ``TooManyAttempts``.
        """
        await self._throttle(None, origin)
        now, sha256 = self._world.now(), _sha256(token)
        async with self._db.system_transaction() as tx:
            link = await self._take(tx, sha256, _CONFIRM)
            if link.purpose is Purpose.VERIFY:
                if not await users.verified(tx, link.user_id, link.email, now):
                    raise LinkInvalid
                await audit.record(tx, user_id=link.user_id, action="email.verified", origin=origin)
                return link.email
            old = await users.move_to(tx, link.user_id, link.email, now)
            # What was mailed to the old address opens nothing any more.
            await recovery_repository.void_links(tx, link.user_id)
            await self._post.post(tx, old, letters.email_changed(link.email), user_id=link.user_id)
            await audit.record(tx, user_id=link.user_id, action="email.changed", origin=origin, before=old, after=link.email)
            return link.email

    async def reset(self, request: ResetPassword, origin: Origin) -> None:
        """Set a password with a link. It ends all sessions and begins none: logging in still takes all that it takes.

        An e-mail that was never confirmed is now, and its API keys end: whoever made them may not have been its owner. Raises
        :class:`LinkInvalid`, ``PasswordRefused`` (the link stays good), ``TooManyAttempts``, ``TooManyLogins``.
        """
        await self._throttle(None, origin)
        sha256 = _sha256(request.token.get_secret_value())
        purposes = frozenset({Purpose.RESET})
        async with self._db.system_transaction() as tx:
            link = await recovery_repository.find_link(tx, sha256, purposes, self._world.now())
            if link is None:
                raise LinkInvalid
            name = (await users.get(tx, link.user_id)).name
        password = normalise(request.password.get_secret_value())
        policy.require_good(password, [link.email, name])
        verifier = await self._passwords.hash(password)
        now = self._world.now()
        async with self._db.system_transaction() as tx:
            link = await self._take(tx, sha256, purposes)
            account = await users.get(tx, link.user_id, lock=True)
            await recovery_repository.put_password(tx, link.user_id, verifier, now)
            if account.email_verified_at is None:
                await recovery_repository.revoke_keys(tx, link.user_id, now)
                await users.verified(tx, link.user_id, link.email, now)
            ended = await sessions.revoke_all(tx, link.user_id, now)
            await self._changed(tx, link.user_id, account.email)
            await audit.record(tx, user_id=link.user_id, action="password.reset", origin=origin, sessions=ended)

    async def change_password(self, caller: Caller, request: ChangePassword, origin: Origin) -> None:
        """Change the password; all other sessions end. Raises ``LoginRequired``, :class:`PasswordWrong`,
        :class:`PasswordMissing`, ``PasswordRefused``, ``TooManyAttempts``, ``TooManyLogins``.
        """
        stored = await self.require_password(caller, request.current_password.get_secret_value(), origin)
        async with self._db.system_transaction() as tx:
            account = await users.get(tx, caller.user_id)
        password = normalise(request.password.get_secret_value())
        policy.require_good(password, [account.email, account.name])
        verifier = await self._passwords.hash(password)
        now = self._world.now()
        async with self._db.system_transaction() as tx:
            await users.get(tx, caller.user_id, lock=True)
            if not await recovery_repository.swap_password(tx, caller.user_id, stored, verifier, now):
                raise PasswordWrong
            ended = await sessions.revoke_all(tx, caller.user_id, now, but=caller.credential_id)
            await self._changed(tx, caller.user_id, account.email)
            await audit.record(tx, user_id=caller.user_id, action="password.changed", origin=origin, sessions=ended)

    async def ask_change_of_email(self, caller: Caller, request: ChangeEmail, asking: Asking) -> None:
        """Mail a link to the new address; the old one hears of it. The answer does not tell whether the new one has an account.

        Raises ``EmailInvalid`` and, but for ``PasswordRefused``, what :meth:`change_password` raises.
        """
        email = normalised(request.email)
        await self.require_password(caller, request.current_password.get_secret_value(), asking.origin)
        await self._throttle(email, asking.origin)
        async with self._db.system_transaction() as tx:
            account = await users.get(tx, caller.user_id)
            if await users.find(tx, email) is None:
                await self._mail_link(tx, Link(caller.user_id, Purpose.CHANGE, email), asking)
            elif email != account.email:
                await self.tell_owner(tx, email, asking)
            await self._post.post(tx, account.email, letters.email_about_to_change(email), user_id=caller.user_id)
            await audit.record(tx, user_id=caller.user_id, action="email.change_asked", origin=asking.origin, after=email)

    async def require_password(self, caller: Caller, password: str, origin: Origin) -> str:
        """Make sure that whoever holds this session knows the password; returns the stored verifier.

        Raises ``LoginRequired`` for an API key, :class:`PasswordMissing`, :class:`PasswordWrong`, ``TooManyAttempts``,
        ``TooManyLogins``.
        """
        caller.require_login()
        now = self._world.now()
        async with self._db.system_transaction() as tx:
            await throttle.take(tx, [PASSWORD_PER_USER.of(str(caller.user_id))], now)
            stored = await repository.password_of(tx, caller.user_id)
        if stored is None:
            raise PasswordMissing
        verdict = await self._passwords.verify(stored, normalise(password))
        if not verdict.right:
            async with self._db.system_transaction() as tx:
                await audit.record(tx, user_id=caller.user_id, action="password.check", outcome="refused", origin=origin)
            raise PasswordWrong
        async with self._db.system_transaction() as tx:
            await throttle.forgive(tx, [PASSWORD_PER_USER.of(str(caller.user_id))])
        return stored

    async def end_logins(self, tx: SystemTx, user_id: UserId) -> int:
        """End everything a user is logged in with, at once; how many sessions of programs there were. May be repeated."""
        await recovery_repository.void_links(tx, user_id)
        await self._end_browsers(tx, user_id)
        return await sessions.revoke_all(tx, user_id, self._world.now())

    async def _changed(self, tx: SystemTx, user_id: UserId, email: str) -> None:
        await recovery_repository.void_links(tx, user_id)
        await self._end_browsers(tx, user_id)
        await self._post.post(tx, email, letters.password_changed(), user_id=user_id)

    async def _throttle(self, email: str | None, origin: Origin) -> None:
        gates = [LINK_PER_ADDRESS.of(origin.network)]
        if email is not None:
            gates.append(MAIL_PER_EMAIL.of(email))
        async with self._db.system_transaction() as tx:
            await throttle.take(tx, gates, self._world.now())

    async def _enabled(self, tx: SystemTx, email: str) -> UserId | None:
        user_id = await users.find(tx, email)
        # Asked for in vain too: the time it takes must not tell.
        works = await users.is_enabled(tx, user_id or UserId(self._world.new_id()))
        return user_id if works else None

    async def _take(self, tx: SystemTx, sha256: bytes, purposes: frozenset[Purpose]) -> Link:
        now = self._world.now()
        link = await recovery_repository.find_link(tx, sha256, purposes, now)
        if link is None or not await recovery_repository.use_link(tx, sha256, now):
            raise LinkInvalid
        await users.require_enabled(tx, link.user_id)
        return link

    async def _mail_or_pretend(
        self,
        tx: SystemTx,
        purpose: Purpose,
        user_id: UserId | None,
        email: str,
        asking: Asking,
        letter: Callable[[str], Letter] | None = None,
    ) -> None:
        if user_id is not None:
            await self._mail_link(tx, Link(user_id, purpose, email), asking, letter)
            return
        now, token = self._world.now(), secrets.token_urlsafe(_TOKEN_BYTES)
        nobody = Link(UserId(self._world.new_id()), purpose, email)
        await recovery_repository.sweep(tx, now)
        await recovery_repository.pretend_link(tx, _sha256(token), nobody, now)
        await self._post.pretend(tx, email, (letter or _LETTERS[purpose])(_url(asking, purpose, token)))

    async def _mail_link(self, tx: SystemTx, link: Link, asking: Asking, letter: Callable[[str], Letter] | None = None) -> None:
        now, token = self._world.now(), secrets.token_urlsafe(_TOKEN_BYTES)
        life = _LIVES[link.purpose]
        await recovery_repository.sweep(tx, now)
        await recovery_repository.add_link(tx, _sha256(token), link, now, now + life)
        written = (letter or _LETTERS[link.purpose])(_url(asking, link.purpose, token))
        await self._post.post(tx, link.email, written, user_id=link.user_id, life=life)


def _url(asking: Asking, purpose: Purpose, token: str) -> str:
    return f"{asking.base_url}/{_PAGES[purpose]}?token={quote(token)}"


def _sha256(token: str) -> bytes:
    return hashlib.sha256(token.encode("utf-8", "surrogatepass")).digest()
