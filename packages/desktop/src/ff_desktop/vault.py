"""The system's keyring (Secret Service, KWallet, Keychain), if there is one that keeps secrets and answers."""

import threading
from collections.abc import Callable
from typing import Any, Protocol, TypeVar

from ff_desktop.errors import KeyringUnusable

SERVICE = "factory-factory"
ANSWER_S_MAX = 60.0
"""A keyring may ask its user for a password first."""
_KEEPS_NOTHING_SECRET = ("keyring.backends.fail", "keyring.backends.null", "keyring.backends.chainer", "keyrings.alt")

T = TypeVar("T")


class Vault(Protocol):
    """Keeps one text per name for the user who is logged in to this machine."""

    def put(self, name: str, secret: str) -> bool:
        """Store, replacing what was there. False when it can't be stored here."""
        ...

    def get(self, name: str) -> str | None:
        """What is stored; None for nothing. Raises ``KeyringUnusable``."""
        ...

    def remove(self, name: str) -> None:
        """Forget; may be repeated, and does not fail."""
        ...


class Keyring:
    """See :class:`Vault`. The backend is looked for when first needed: that takes a while, and most runs of ``ff`` with an API
    key need none.
    """

    def __init__(self, find: "Callable[[], Any | None] | None" = None) -> None:
        self._find = find or usable_backend
        self._backend: Any | None = None
        self._looked = False

    def put(self, name: str, secret: str) -> bool:
        """See :class:`Vault`."""
        backend = self._found()
        if backend is None:
            return False
        try:
            _within(lambda: backend.set_password(SERVICE, name, secret))
            return bool(_within(lambda: backend.get_password(SERVICE, name)) == secret)
        except KeyringUnusable:
            return False

    def get(self, name: str) -> str | None:
        """See :class:`Vault`."""
        backend = self._found()
        if backend is None:
            raise KeyringUnusable
        found = _within(lambda: backend.get_password(SERVICE, name))
        return None if found is None else str(found)

    def remove(self, name: str) -> None:
        """See :class:`Vault`."""
        backend = self._found()
        if backend is not None:
            try:
                _within(lambda: backend.delete_password(SERVICE, name))
            except KeyringUnusable:
                return

    def _found(self) -> Any | None:
        if not self._looked:
            self._backend, self._looked = self._find(), True
        return self._backend


def usable_backend() -> Any | None:
    """The backend of this system, or None when there is none that keeps secrets: no desktop session, or one in plain text."""
    try:
        import keyring  # noqa: PLC0415  (takes a tenth of a second, and most runs don't need it)

        backend = keyring.get_keyring()
    except Exception:  # noqa: BLE001  (backends are plug-ins; whatever they raise, the file will do)
        return None
    candidates = getattr(backend, "backends", None) or [backend]
    return next((one for one in candidates if _keeps_secrets(one)), None)


def _keeps_secrets(backend: Any) -> bool:
    module = type(backend).__module__
    return not module.startswith(_KEEPS_NOTHING_SECRET) and "plaintext" not in type(backend).__name__.lower()


def _within(work: Callable[[], T], limit_s: float = ANSWER_S_MAX) -> T:
    """The result, or ``KeyringUnusable``. A backend that hangs is left behind in its thread."""
    results: list[T] = []

    def run() -> None:
        try:
            results.append(work())
        except Exception:  # noqa: BLE001  (see above; its text may quote the secret)
            return

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    thread.join(limit_s)
    if not results:
        raise KeyringUnusable
    return results[0]
