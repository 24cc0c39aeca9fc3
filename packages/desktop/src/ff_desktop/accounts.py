"""Logging in and out: a password buys an API key of this machine's own, which is stored and later revoked."""

from collections.abc import Callable
from contextlib import suppress

from pydantic import SecretStr

from ff_core.contract.account import LogIn, NewApiKey, NewApiKeyView, SignUp, TokenView, UserView
from ff_core.errors import FFError
from ff_desktop.address import Server
from ff_desktop.connection import Connection
from ff_desktop.credentials import Credentials, CredentialStore
from ff_desktop.errors import NotLoggedIn

NAME_CHARS_MAX = 100

Connect = Callable[[Server, SecretStr | None], Connection]
"""Makes a connection that its maker closes."""


class Accounts:
    """The account's half of ``ff``; the key never leaves the store but in the header of a request."""

    def __init__(self, store: CredentialStore, connect: Connect) -> None:
        self._store = store
        self._connect = connect

    def log_in(self, server: Server, proof: LogIn | SignUp, *, host: str) -> tuple[UserView, Credentials]:
        """Open a session (or, with ``SignUp``, an account), make a key named after ``host``, store it.

        The session ends at once and the key stored before is revoked. When storing fails the new key is revoked too.
        """
        path = "/v1/auth/signup" if isinstance(proof, SignUp) else "/v1/auth/login"
        token = self._connect(server, None).ask("POST", path, TokenView, body=proof).access_token
        member = self._connect(server, SecretStr(token))
        user = member.ask("GET", "/v1/me", UserView)
        made = member.ask("POST", "/v1/api-keys", NewApiKeyView, body=NewApiKey(name=key_name(host)))
        mine = Credentials(server=server.url, insecure=server.insecure, email=user.email, key_id=made.id, key=SecretStr(made.key))
        try:
            before = self._remember(mine)
        except BaseException:
            with suppress(FFError):
                member.call("DELETE", f"/v1/api-keys/{made.id}")
            raise
        with suppress(FFError):
            member.call("POST", "/v1/auth/logout")
        if before is not None:
            self._revoke(before)
        return user, mine

    def log_out(self) -> bool:
        """Revoke the key and forget it; it is forgotten even if the server can't be asked. Whether it was revoked.

        Raises ``NotLoggedIn`` when there is none.
        """
        with self._store.locked():
            credentials = self._store.load()
            if credentials is None:
                raise NotLoggedIn
            self._store.remove()
        return self._revoke(credentials)

    def _remember(self, credentials: Credentials) -> Credentials | None:
        with self._store.locked():
            try:
                before = self._store.load()
            except FFError:
                before = None  # it can't be read or was open to others: replaced all the same
            self._store.save(credentials)
        return before

    def _revoke(self, credentials: Credentials) -> bool:
        try:
            server = Server.parse(credentials.server, insecure=credentials.insecure)
            self._connect(server, credentials.key).call("DELETE", f"/v1/api-keys/{credentials.key_id}")
        except FFError:
            return False
        return True


def key_name(host: str) -> str:
    """The key's name for people: a label of the machine, whatever its host name holds."""
    plain = "".join(c for c in host if c.isprintable() and c not in "/\\")
    return f"ff on {plain or 'a machine'}"[:NAME_CHARS_MAX].strip()
