"""Errors that any room of the server may raise. A room's own ones are in its ``errors`` module."""

from collections.abc import Mapping
from typing import Any, ClassVar

from ff_core.contract.account import Scope
from ff_core.errors import Conflict, FFError, InvalidInput


class CloudError(FFError):
    """The server could not do that; its log has the details under the request id."""

    def headers(self) -> Mapping[str, str]:
        """Headers that HTTP wants beside the problem document."""
        return {}


class SettingsInvalid(FFError):
    """A setting has a value that can't be used; the message names the setting and says what it takes."""

    code = "settings_invalid"


class NotLoggedIn(CloudError):
    """This needs a login: send `Authorization: Bearer`, followed by an access token or an API key that is still good."""

    code = "not_logged_in"
    status = 401

    def headers(self) -> Mapping[str, str]:
        """RFC 9110 asks every 401 to say what it wants."""
        return {"WWW-Authenticate": 'Bearer realm="ff-cloud"'}


class ScopeMissing(FFError):
    """The API key lacks the scope this needs; make a key that has it."""

    code = "scope_missing"
    status = 403

    def __init__(self, scope: Scope) -> None:
        super().__init__(
            f"This needs the scope `{scope}`, which your credential lacks; make an API key that has it.", scope=scope
        )


class LoginRequired(FFError):
    """An API key can't do this; log in with e-mail and password."""

    code = "login_required"
    status = 403


class TooManyRequests(CloudError):
    """That was too often; try again later."""

    code = "too_many_requests"
    status = 429
    retry_after_s_default: ClassVar[float] = 1.0

    def __init__(self, detail: str | None = None, *, retry_after_s: float | None = None, **extra: Any) -> None:
        super().__init__(detail, **extra)
        self.retry_after_s = self.retry_after_s_default if retry_after_s is None else retry_after_s

    def headers(self) -> Mapping[str, str]:
        """In how many seconds it may work, rounded up."""
        return {"Retry-After": str(max(1, -int(-self.retry_after_s // 1)))}


class MethodNotAllowed(FFError):
    """This address exists but does not take this method; the Allow header lists those it takes."""

    code = "method_not_allowed"
    status = 405


class IdempotencyKeyInvalid(InvalidInput):
    """The Idempotency-Key header must be 1 to 200 printable ASCII characters without spaces."""

    code = "idempotency_key_invalid"


class IdempotencyMismatch(Conflict):
    """This Idempotency-Key was used for a different request; take a new key for a new request."""

    code = "idempotency_mismatch"


class IdempotencyReplay(Conflict):
    """This request was carried out before, and what it answered is shown only once; undo it, or use another Idempotency-Key."""

    code = "idempotency_replay"


class SealBroken(FFError):
    """Something encrypted can't be opened: it was damaged, or FF_SECRET_KEY is not the one it was made with."""

    code = "seal_broken"


class SecretKeyUnusable(FFError):
    """The file with the server's secret key can't be used; the message says why."""

    code = "secret_key_unusable"
