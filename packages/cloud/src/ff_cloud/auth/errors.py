"""What can go wrong on the way in."""

from ff_cloud.errors import CloudError, NotLoggedIn, TooManyRequests
from ff_core.errors import Conflict, InvalidInput


class BadCredentials(NotLoggedIn):
    """E-mail or password is wrong."""

    code = "bad_credentials"


class RefreshRefused(NotLoggedIn):
    """This refresh token is unknown, has ended, or belongs to another program; log in again."""

    code = "refresh_refused"


class RefreshReused(NotLoggedIn):
    """This refresh token was used before, so somebody may have copied it; its session has been ended. Log in again."""

    code = "refresh_reused"


class SignUpClosed(CloudError):
    """This server takes no new accounts; ask whoever runs it."""

    code = "signup_closed"
    status = 403


class PasswordRefused(InvalidInput):
    """This password is too easy to guess; take a longer one that is made of more than common words and your own name."""

    code = "password_refused"

    def __init__(self, detail: str | None = None) -> None:
        super().__init__(detail)
        self.extra["errors"] = [{"field": "password", "message": self.detail}]


class TooManyLogins(TooManyRequests):
    """The server checks as many passwords as it can right now; try again in a second."""

    code = "too_many_logins"


class TooManyAttempts(TooManyRequests):
    """Too many attempts for this e-mail or from this address; wait before the next one."""

    code = "too_many_attempts"


class TooManyApiKeys(Conflict):
    """You have as many API keys as an account may have; delete some first."""

    code = "too_many_api_keys"
