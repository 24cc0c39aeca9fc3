"""Who we are on this machine: one file, readable by its user only, replaced as a whole, changed by one process at a time.

The tokens of a login lie in the system's keyring when there is a usable one, else in the file itself. An API key, which earlier
versions stored, stays in the file and goes on working.
"""

import contextlib
import fcntl
import os
import secrets
import stat
import time
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

from pydantic import BaseModel, SecretStr, ValidationError, model_validator
from pydantic_core import to_json

from ff_core.contract.base import View
from ff_core.ids import ApiKeyId
from ff_desktop.errors import CredentialsBusy, CredentialsExposed, CredentialsUnreadable
from ff_desktop.vault import Vault

FILE_BYTES_MAX = 65_536
LOCK_WAIT_S_MAX = 10.0
LOCK_POLL_S = 0.05
MODE = 0o600


class Tokens(View):
    """What a login gave us. The refresh token is good once."""

    access: SecretStr
    access_until: datetime
    refresh: SecretStr


class Credentials(View):
    """Who we are to which server: the tokens of a login, or (from earlier versions) an API key."""

    server: str
    insecure: bool = False
    email: str
    key_id: ApiKeyId | None = None
    key: SecretStr | None = None
    tokens: Tokens | None = None
    in_keyring: bool = False
    """The tokens are in the system's keyring and not in the file."""

    @model_validator(mode="after")
    def _is_somebody(self) -> "Credentials":
        if self.key is None and self.tokens is None and not self.in_keyring:
            msg = "holds neither a login nor a key"
            raise ValueError(msg)
        return self


class CredentialStore:
    """Credentials in a file of mode 0600. Readers need no lock: they see the old file or the new one, never a half.

    ``vault`` is where tokens go; None: into the file.
    """

    def __init__(self, path: Path, *, vault: Vault | None = None, lock_wait_s: float = LOCK_WAIT_S_MAX) -> None:
        self.path = path
        self._vault = vault
        self._lock_wait_s = lock_wait_s

    def load(self) -> Credentials | None:
        """What is stored, or None. Raises ``CredentialsExposed`` when others may read it, ``CredentialsUnreadable``,
        ``KeyringUnusable``.
        """
        try:
            with self.path.open("rb") as file:
                mode = stat.S_IMODE(os.fstat(file.fileno()).st_mode)
                content = file.read(FILE_BYTES_MAX + 1)
        except FileNotFoundError:
            return None
        except OSError as error:
            raise CredentialsUnreadable(f"{self.path} can't be read: {error.strerror}.") from error
        if mode & 0o077:
            raise CredentialsExposed(
                f"{self.path} has mode {mode:04o}, so others on this machine may have read your login. "
                f"Run: chmod 600 '{self.path}', then log in again to get a new one."
            )
        try:
            found = Credentials.model_validate_json(content)
            return found.model_copy(update={"tokens": self._from_vault()}) if found.in_keyring else found
        except ValidationError:
            # Without its cause: pydantic's message quotes the input, which holds the key.
            raise CredentialsUnreadable(f"{self.path} is damaged; delete it and log in again.") from None

    def save(self, credentials: Credentials) -> Credentials:
        """Replace what is stored in one step; after a crash there is the old or the new. Hold :meth:`locked`.

        Returns it as it is stored: ``in_keyring`` says where. When the keyring refuses, the file takes the tokens.
        """
        in_keyring = False
        if credentials.tokens is not None and self._vault is not None:
            in_keyring = self._vault.put(self._name, to_json(_plain(credentials.tokens)).decode())
        stored = credentials.model_copy(update={"in_keyring": in_keyring})
        self._write(to_json(_plain(stored.model_copy(update={"tokens": None}) if in_keyring else stored), indent=2))
        return stored

    def remove(self) -> None:
        """Forget everything; may be repeated. Hold :meth:`locked`."""
        self.path.unlink(missing_ok=True)
        if self._vault is not None:
            self._vault.remove(self._name)

    @contextlib.contextmanager
    def locked(self, wait_s: float | None = None) -> Iterator[None]:
        """Keep other runs of ``ff`` from changing what is stored. Raises ``CredentialsBusy`` after the time limit."""
        try:
            self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            lock = os.open(self.path.with_suffix(".lock"), os.O_RDWR | os.O_CREAT, MODE)
        except OSError as error:
            raise CredentialsUnreadable(f"{self.path.parent} can't be written: {error.strerror}.") from error
        try:
            _acquire(lock, self._lock_wait_s if wait_s is None else wait_s)
            yield
        finally:
            os.close(lock)

    @property
    def _name(self) -> str:
        return str(self.path)

    def _from_vault(self) -> Tokens:
        content = None if self._vault is None else self._vault.get(self._name)
        if content is None:
            raise CredentialsUnreadable("The system's keyring does not hold the login any more; log in again.")
        return Tokens.model_validate_json(content)

    def _write(self, content: bytes) -> None:
        side = self.path.with_name(f".{self.path.name}.{secrets.token_hex(8)}")
        try:
            descriptor = os.open(side, os.O_WRONLY | os.O_CREAT | os.O_EXCL, MODE)
            with open(descriptor, "wb") as file:  # noqa: PTH123  (a descriptor, so that the mode is right from the start)
                os.fchmod(descriptor, MODE)
                file.write(content + b"\n")
                file.flush()
                os.fsync(descriptor)
            side.replace(self.path)
            _sync_directory(self.path.parent)
        except OSError as error:
            raise CredentialsUnreadable(f"{self.path} can't be written: {error.strerror}.") from error
        finally:
            side.unlink(missing_ok=True)


def _plain(model: BaseModel) -> dict[str, Any]:
    """The fields to store. Secrets print as stars everywhere but here."""
    shown: dict[str, Any] = {}
    for name in type(model).model_fields:
        value = getattr(model, name)
        if isinstance(value, SecretStr):
            shown[name] = value.get_secret_value()
        elif isinstance(value, BaseModel):
            shown[name] = _plain(value)
        elif value is not None:
            shown[name] = value
    return shown


def _acquire(lock: int, wait_s: float) -> None:
    deadline = time.monotonic() + wait_s
    while True:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() >= deadline:
                raise CredentialsBusy from None
            time.sleep(LOCK_POLL_S)
        else:
            return


def _sync_directory(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
