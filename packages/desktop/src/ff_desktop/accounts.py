"""Logging in and out: however the user proves who he is, the tokens of the login are stored, and ended by a logout."""

from contextlib import suppress

from pydantic import RootModel, SecretStr

from ff_core.contract.account import LogIn, SignUp, TokenPairView, UserView
from ff_core.contract.recovery import AcceptedView
from ff_core.errors import FFError
from ff_core.world import World
from ff_desktop.address import Server
from ff_desktop.connection import Connection
from ff_desktop.credentials import Credentials, CredentialStore
from ff_desktop.errors import NotLoggedIn, VerifyFirst
from ff_desktop.shared_login import Connect, SharedLogin, tokens_of


class Answer(RootModel[TokenPairView | AcceptedView]):
    """What a login or a sign-up may be answered."""


class Accounts:
    """The account's half of ``ff``; tokens never leave the store but in the header of a request."""

    def __init__(self, store: CredentialStore, connect: Connect, world: World) -> None:
        self._store = store
        self._connect = connect
        self._world = world

    def prove(self, server: Server, proof: LogIn | SignUp) -> TokenPairView:
        """Log in with a password, or with ``SignUp`` open an account; not stored yet.

        Raises ``VerifyFirst`` after a sign-up at a server that lets people in once they have read its letter.
        """
        path = "/v1/auth/signup" if isinstance(proof, SignUp) else "/v1/auth/login"
        answer = self.anonymous(server).ask("POST", path, Answer, body=proof).root
        if isinstance(answer, AcceptedView):
            raise VerifyFirst
        return answer

    def anonymous(self, server: Server) -> Connection:
        """A connection of nobody, for logins that prove who it is in another way."""
        return self._connect(server, None)

    def remember(self, server: Server, pair: TokenPairView) -> tuple[UserView, Credentials]:
        """Store a login in place of the one before, which is ended. When storing fails the new one is ended too."""
        member = self._connect(server, SecretStr(pair.access_token))
        try:
            user = member.ask("GET", "/v1/me", UserView)
            tokens = tokens_of(pair, self._world)
            mine = Credentials(server=server.url, insecure=server.insecure, email=user.email, tokens=tokens)
            with self._store.locked():
                before = self._before()
                stored = self._store.save(mine)
        except BaseException:
            with suppress(FFError):
                member.call("POST", "/v1/auth/logout")
            raise
        if before is not None:
            self._end(before)
        return user, stored

    def log_out(self) -> bool:
        """End the login and forget it; it is forgotten even if the server can't be asked. Whether it was ended there.

        Raises ``NotLoggedIn`` when there is none.
        """
        with suppress(FFError):
            self._renew()
        with self._store.locked():
            try:
                credentials = self._store.load()
            finally:
                self._store.remove()
        if credentials is None:
            raise NotLoggedIn
        return self._end(credentials)

    def _renew(self) -> None:
        """Have an access token that is good for the logout itself."""
        credentials = self._store.load()
        if credentials is not None and credentials.tokens is not None:
            SharedLogin(self._store, credentials.tokens, self._connect, self._world).current()

    def _before(self) -> Credentials | None:
        try:
            return self._store.load()
        except FFError:
            return None  # it can't be read or was open to others: replaced all the same

    def _end(self, credentials: Credentials) -> bool:
        try:
            server = Server.parse(credentials.server, insecure=credentials.insecure)
            if credentials.key is not None:
                self._connect(server, credentials.key).call("DELETE", f"/v1/api-keys/{credentials.key_id}")
            if credentials.tokens is not None:
                self._connect(server, credentials.tokens.access).call("POST", "/v1/auth/logout")
        except FFError:
            return False
        return True
