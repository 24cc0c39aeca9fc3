"""The composition root: settings and the credentials file become the parts that the commands use."""

import time
from contextlib import ExitStack
from dataclasses import dataclass

from pydantic import SecretStr

from ff_core.world import SystemWorld, World
from ff_desktop.accounts import Accounts
from ff_desktop.address import Server
from ff_desktop.backend import Backend
from ff_desktop.cloud import CloudBackend
from ff_desktop.connection import Connection
from ff_desktop.credentials import CredentialStore
from ff_desktop.errors import NotLoggedIn
from ff_desktop.settings import DesktopSettings


@dataclass(frozen=True)
class Access:
    """Which server, and the key to it."""

    server: Server
    key: SecretStr
    from_environment: bool


class Desktop:
    """The parts of one run of ``ff``, made when first asked for."""

    def __init__(self, settings: DesktopSettings) -> None:
        self.settings = settings
        self.world: World = SystemWorld()
        self.store = CredentialStore(settings.credentials_path)
        self.accounts = Accounts(self.store, self.connect)
        self._open = ExitStack()

    def close(self) -> None:
        """Close every connection made here; may be repeated."""
        self._open.close()

    def sleep(self, seconds: float) -> None:
        """Wait; Ctrl-C ends it."""
        time.sleep(seconds)

    def access(self) -> Access:
        """Where the key comes from: the environment (``FF_SERVER`` and ``FF_API_KEY``), else the file of ``ff login``.

        Raises ``NotLoggedIn`` when there is neither, and for half of the environment's pair.
        """
        settings = self.settings
        if settings.server is not None and settings.api_key is not None:
            return Access(Server.parse(settings.server, insecure=settings.insecure), settings.api_key, from_environment=True)
        if settings.api_key is not None:
            raise NotLoggedIn("FF_API_KEY is set but FF_SERVER is not; set both or neither.")
        stored = self.store.load()
        if stored is None:
            raise NotLoggedIn
        return Access(Server.parse(stored.server, insecure=stored.insecure), stored.key, from_environment=False)

    def connect(self, server: Server, bearer: SecretStr | None) -> Connection:
        """A connection as whoever ``bearer`` belongs to; :meth:`close` ends it."""
        connection = Connection(server, bearer, sleep=self.sleep)
        self._open.callback(connection.close)
        return connection

    def connection(self) -> Connection:
        """A connection as the user who is logged in. Raises ``NotLoggedIn``."""
        access = self.access()
        return self.connect(access.server, access.key)

    def backend(self) -> Backend:
        """The server of the user who is logged in. Raises ``NotLoggedIn``."""
        return CloudBackend(self.connection(), world=self.world, sleep=self.sleep)
