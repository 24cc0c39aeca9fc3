"""The key of this machine: one file, readable by its user only, replaced as a whole, changed by one process at a time."""

import contextlib
import fcntl
import os
import secrets
import stat
import time
from collections.abc import Iterator
from pathlib import Path

from pydantic import SecretStr, ValidationError
from pydantic_core import to_json

from ff_core.contract.base import View
from ff_core.ids import ApiKeyId
from ff_desktop.errors import CredentialsBusy, CredentialsExposed, CredentialsUnreadable

FILE_BYTES_MAX = 65_536
LOCK_WAIT_S_MAX = 10.0
LOCK_POLL_S = 0.05
MODE = 0o600


class Credentials(View):
    """Who we are to which server."""

    server: str
    insecure: bool = False
    email: str
    key_id: ApiKeyId
    key: SecretStr


class CredentialStore:
    """Credentials in a file of mode 0600. Readers need no lock: they see the old file or the new one, never a half."""

    def __init__(self, path: Path, *, lock_wait_s: float = LOCK_WAIT_S_MAX) -> None:
        self.path = path
        self._lock_wait_s = lock_wait_s

    def load(self) -> Credentials | None:
        """What is stored, or None. Raises ``CredentialsExposed`` when others may read it, ``CredentialsUnreadable``."""
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
                f"{self.path} has mode {mode:04o}, so others on this machine may have read your key. "
                f"Run: chmod 600 '{self.path}', then log in again to get a new key."
            )
        try:
            return Credentials.model_validate_json(content)
        except ValidationError:
            # Without its cause: pydantic's message quotes the input, which holds the key.
            raise CredentialsUnreadable(f"{self.path} is damaged; delete it and log in again.") from None

    def save(self, credentials: Credentials) -> None:
        """Replace the file in one step; after a crash there is the old one or the new one. Hold :meth:`locked`."""
        content = to_json({**credentials.model_dump(), "key": credentials.key.get_secret_value()}, indent=2)
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

    def remove(self) -> None:
        """Forget the key; may be repeated. Hold :meth:`locked`."""
        self.path.unlink(missing_ok=True)

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Keep other runs of ``ff`` from changing the file. Raises ``CredentialsBusy`` after the time limit."""
        try:
            self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            lock = os.open(self.path.with_suffix(".lock"), os.O_RDWR | os.O_CREAT, MODE)
        except OSError as error:
            raise CredentialsUnreadable(f"{self.path.parent} can't be written: {error.strerror}.") from error
        try:
            self._acquire(lock)
            yield
        finally:
            os.close(lock)

    def _acquire(self, lock: int) -> None:
        deadline = time.monotonic() + self._lock_wait_s
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
