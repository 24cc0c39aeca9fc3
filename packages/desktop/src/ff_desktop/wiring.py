"""The composition root: settings and the credentials file become the parts that the commands use."""

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial

from pydantic import SecretStr

from ff_core.world import SystemWorld, World
from ff_desktop.accounts import Accounts
from ff_desktop.address import Server
from ff_desktop.background import Background
from ff_desktop.bearer import Bearer, FixedBearer
from ff_desktop.cloud import CloudBackend
from ff_desktop.connection import HERE, Connection
from ff_desktop.credentials import Credentials, CredentialStore
from ff_desktop.errors import NotLoggedIn
from ff_desktop.local import LocalBackend
from ff_desktop.moves import Moves
from ff_desktop.places import Places
from ff_desktop.settings import DesktopSettings
from ff_desktop.shared_login import SharedLogin
from ff_desktop.vault import Keyring


@dataclass(frozen=True)
class Access:
    """Which server, and who calls."""

    server: Server
    bearer: Bearer
    from_environment: bool


class Desktop:
    """The parts of one run of ``ff``, made when first asked for."""

    def __init__(self, settings: DesktopSettings) -> None:
        self.settings = settings
        self.world: World = SystemWorld()
        self.store = CredentialStore(settings.credentials_path, vault=Keyring() if settings.keyring else None)
        self.accounts = Accounts(self.store, self.connect, self.world)
        self._open = ExitStack()
        self._note: Callable[[str], None] = lambda _: None

    def tell(self, note: Callable[[str], None]) -> None:
        """Have remarks for the user said by ``note``."""
        self._note = note

    def close(self) -> None:
        """Close every connection made here; may be repeated."""
        self._open.close()

    def sleep(self, seconds: float) -> None:
        """Wait; Ctrl-C ends it."""
        time.sleep(seconds)

    def access(self) -> Access:
        """Who calls: the environment's key (``FF_SERVER`` and ``FF_API_KEY``), else the login that ``ff login`` stored.

        Raises ``NotLoggedIn`` when there is neither, and for half of the environment's pair.
        """
        settings = self.settings
        if settings.server is not None and settings.api_key is not None:
            server = Server.parse(settings.server, insecure=settings.insecure)
            return Access(server, FixedBearer(settings.api_key), from_environment=True)
        if settings.api_key is not None:
            raise NotLoggedIn("FF_API_KEY is set but FF_SERVER is not; set both or neither.")
        stored = self.store.load()
        if stored is None:
            raise NotLoggedIn
        return Access(Server.parse(stored.server, insecure=stored.insecure), self._bearer(stored), from_environment=False)

    def _bearer(self, stored: Credentials) -> Bearer:
        if stored.tokens is not None:
            return SharedLogin(self.store, stored.tokens, self.connect, self.world)
        if stored.key is None:
            raise NotLoggedIn
        return FixedBearer(stored.key)

    def connect(self, server: Server, bearer: Bearer | SecretStr | None, *, patient: bool = True) -> Connection:
        """A connection as whoever ``bearer`` belongs to; :meth:`close` ends it."""
        connection = Connection(server, bearer, sleep=self.sleep, patient=patient)
        self._open.callback(connection.close)
        return connection

    def connection(self) -> Connection:
        """A connection as the user who is logged in. Raises ``NotLoggedIn``."""
        access = self.access()
        return self.connect(access.server, access.bearer)

    def cloud(self, *, patient: bool = True) -> CloudBackend:
        """The server of the user who is logged in. Raises ``NotLoggedIn``."""
        access = self.access()
        connection = self.connect(access.server, access.bearer, patient=patient)
        return CloudBackend(connection, world=self.world, sleep=self.sleep)

    def background(self) -> Background:
        """``ff serve`` of this machine, whether it runs or not."""
        connect = partial(self._connect_here, patient=False)
        return Background(self.settings, connect=connect, sleep=self.sleep, note=self._note)

    def local(self) -> LocalBackend:
        """This machine; ``ff serve`` is started when it does not run. Raises ``ServeFailed``."""
        background = self.background()
        background.ensure()
        return LocalBackend(self._connect_here(patient=True), world=self.world, sleep=self.sleep, revive=background.ensure)

    def moves(self) -> Moves:
        """The handoffs of this machine. Raises what :meth:`local` does."""
        return Moves(self.local().connection)

    def places(self) -> Places:
        """Both."""
        return Places(
            lambda: self.local() if self.settings.has_local_state else None,
            lambda patient: self.cloud(patient=patient),
        )

    def _connect_here(self, *, patient: bool) -> Connection:
        connection = Connection(HERE, None, sleep=self.sleep, socket_path=self.settings.socket_path, patient=patient)
        self._open.callback(connection.close)
        return connection


@contextmanager
def as_user(settings: DesktopSettings) -> Iterator[Connection]:
    """A connection to the server of whoever is logged in now, for a process that lives longer than a login.

    Raises ``NotLoggedIn``.
    """
    desktop = Desktop(settings)
    try:
        yield desktop.connection()
    finally:
        desktop.close()
