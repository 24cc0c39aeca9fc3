"""Who calls: what a connection sends as its credential, and whether there is another one when that is refused."""

from typing import Protocol

from pydantic import SecretStr


class Bearer(Protocol):
    """The credential of requests."""

    def current(self) -> SecretStr:
        """What to send now. May ask the server for a new one. Raises ``NotLoggedIn`` when there is none any more."""
        ...

    def renewed(self, refused: SecretStr) -> bool:
        """After the server refused ``refused``: whether :meth:`current` now gives another one, worth one more try."""
        ...


class FixedBearer:
    """An API key, or a token used for a moment: there is no other one."""

    def __init__(self, secret: SecretStr) -> None:
        self._secret = secret

    def current(self) -> SecretStr:
        """See :class:`Bearer`."""
        return self._secret

    def renewed(self, refused: SecretStr) -> bool:  # noqa: ARG002
        """See :class:`Bearer`."""
        return False
