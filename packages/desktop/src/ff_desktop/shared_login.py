"""A login that all programs of one desktop share.

A refresh token is good once, and a second use ends the login. So it is presented under the lock of the credentials' file only,
by whoever finds there that nobody else has done it; its successor is stored before the lock is given back.
"""

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta

from pydantic import SecretStr

from ff_core.contract.account import Client, Refresh, TokenPairView
from ff_core.contract.problem import RemoteProblem
from ff_core.world import World
from ff_desktop.address import Server
from ff_desktop.bearer import Bearer
from ff_desktop.connection import Connection
from ff_desktop.credentials import Credentials, CredentialStore, Tokens
from ff_desktop.errors import NotLoggedIn

MARGIN = timedelta(seconds=30)
"""A token that ends so soon is replaced before it is used: it has to live until the request arrives."""
REFRESH_WAIT_S_MAX = 45.0
"""How long to wait for another program's refresh: as long as its request may take, and to store what came."""

Connect = Callable[[Server, Bearer | SecretStr | None], Connection]
"""Makes a connection that its maker closes."""


def tokens_of(pair: TokenPairView, world: World) -> Tokens:
    """What to store of an answer of the server."""
    until = world.now() + timedelta(seconds=pair.expires_in)
    return Tokens(access=SecretStr(pair.access_token), access_until=until, refresh=SecretStr(pair.refresh_token))


class SharedLogin:
    """See :class:`ff_desktop.bearer.Bearer`."""

    def __init__(self, store: CredentialStore, tokens: Tokens, connect: Connect, world: World) -> None:
        self._store = store
        self._tokens = tokens
        self._connect = connect
        self._world = world

    def current(self) -> SecretStr:
        """See :class:`ff_desktop.bearer.Bearer`."""
        if self._ends_soon(self._tokens):
            self._renew(self._ends_soon)
        return self._tokens.access

    def renewed(self, refused: SecretStr) -> bool:
        """See :class:`ff_desktop.bearer.Bearer`."""
        self._renew(lambda tokens: tokens.access == refused or self._ends_soon(tokens))
        return True

    def _renew(self, useless: Callable[[Tokens], bool]) -> None:
        with self._store.locked(REFRESH_WAIT_S_MAX):
            stored = self._store.load()
            if stored is None or stored.tokens is None:
                raise NotLoggedIn
            if useless(stored.tokens):
                stored = self._refreshed(stored, stored.tokens)
            assert stored.tokens is not None  # noqa: S101  (for the type checker)
            self._tokens = stored.tokens

    def _refreshed(self, stored: Credentials, tokens: Tokens) -> Credentials:
        server = Server.parse(stored.server, insecure=stored.insecure)
        wanted = Refresh(refresh_token=tokens.refresh, client_id=Client.FF)
        with _uninterrupted():
            try:
                pair = self._connect(server, None).ask("POST", "/v1/auth/refresh", TokenPairView, body=wanted)
            except RemoteProblem as error:
                if error.problem.status == NotLoggedIn.status:
                    raise NotLoggedIn(f"{error.detail} Run: ff login --server {stored.server}") from error
                raise
            return self._store.save(stored.model_copy(update={"tokens": tokens_of(pair, self._world)}))

    def _ends_soon(self, tokens: Tokens) -> bool:
        return tokens.access_until <= self._world.now() + MARGIN


@contextmanager
def _uninterrupted() -> Iterator[None]:
    """Let Ctrl-C wait: between the server's answer and the file it would cost the login."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGTERM, signal.SIGHUP})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
