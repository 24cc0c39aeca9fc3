"""Secrets of third parties that a user gives us: written once, never shown again."""

from datetime import datetime
from enum import StrEnum
from typing import Annotated

from pydantic import AfterValidator, SecretStr

from ff_core.contract.base import Request, View

VALUE_CHARS_MIN = 8
VALUE_CHARS_MAX = 4096
HINT_CHARS = 4
HINT_FROM_CHARS = 20
"""Shorter values are shown no part of."""


class CredentialKind(StrEnum):
    """What a secret is for."""

    ANTHROPIC_API_KEY = "anthropic_api_key"
    ANTHROPIC_OAUTH_TOKEN = "anthropic_oauth_token"  # noqa: S105  (a name)
    GITHUB_TOKEN = "github_token"  # noqa: S105  (a name)


def _fits_a_header(value: SecretStr) -> SecretStr:
    text = value.get_secret_value()
    if not VALUE_CHARS_MIN <= len(text) <= VALUE_CHARS_MAX:
        msg = f"must have {VALUE_CHARS_MIN} to {VALUE_CHARS_MAX} characters"
        raise ValueError(msg)
    if not all("!" <= char <= "~" for char in text):
        msg = "must be printable ASCII without spaces or line breaks"
        raise ValueError(msg)
    return value


class SetCredential(Request):
    """Store a secret in place of the one of the same kind, if there is one."""

    value: Annotated[SecretStr, AfterValidator(_fits_a_header)]


class CredentialView(View):
    """A secret that is stored. ``hint`` is its last four characters, empty for a short one; the rest never leaves the server.

    ``last_used_at`` is exact to a minute, null until the gateway used it.
    """

    kind: CredentialKind
    hint: str
    set_at: datetime
    last_used_at: datetime | None
