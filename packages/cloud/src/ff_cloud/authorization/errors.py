"""What can go wrong between a program, a browser and an account.

Those that programs meet at the token endpoints have the RFCs' own codes and are sent as the RFCs ask: ``application/json`` with
``error`` and ``error_description`` beside the members of a problem document.
"""

from collections.abc import Mapping

from ff_cloud.errors import CloudError


class OAuthRefusal(CloudError):
    """The request for a token was refused."""

    code = "invalid_request"
    status = 400

    def __init__(self, detail: str | None = None) -> None:
        super().__init__(detail)
        self.extra |= {"error": self.code, "error_description": self.detail}

    def headers(self) -> Mapping[str, str]:
        """RFC 6749, section 5.2."""
        return {"Content-Type": "application/json", "Cache-Control": "no-store", "Pragma": "no-cache"}


class RequestRefused(OAuthRefusal):
    """A parameter is missing, repeated, or not of the form this server takes."""

    code = "invalid_request"


class ClientUnknown(OAuthRefusal):
    """No program of this client_id may ask here."""

    code = "invalid_client"


class GrantInvalid(OAuthRefusal):
    """This code is unknown, was used, has ended, or belongs to another request; begin the login again."""

    code = "invalid_grant"


class GrantTypeUnsupported(OAuthRefusal):
    """This server gives tokens for authorization codes and device codes only."""

    code = "unsupported_grant_type"


class ResponseTypeUnsupported(OAuthRefusal):
    """This server answers with codes only: response_type must be `code`."""

    code = "unsupported_response_type"


class ScopeInvalid(OAuthRefusal):
    """A scope that was asked for does not exist, or a login may not have it."""

    code = "invalid_scope"


class AuthorizationPending(OAuthRefusal):
    """The user has not decided yet; ask again after the interval."""

    code = "authorization_pending"


class SlowDown(OAuthRefusal):
    """That was too soon; wait five seconds longer between questions from now on."""

    code = "slow_down"


class AccessDenied(OAuthRefusal):
    """The user said no."""

    code = "access_denied"


class DeviceCodeExpired(OAuthRefusal):
    """Nobody approved this login in time; begin it again."""

    code = "expired_token"


class TooManyDeviceLogins(OAuthRefusal):
    """Too many device logins were begun from this address; wait a minute."""

    code = "temporarily_unavailable"
    status = 429


class FormRefused(CloudError):
    """This form did not come from a page of this server that is still open; go back, load the page again and repeat."""

    code = "form_refused"
    status = 403


class UserCodeUnknown(CloudError):
    """No login waits under this code. Check it; codes end after ten minutes, and each is good once."""

    code = "user_code_unknown"
    status = 404


class RedirectRefused(CloudError):
    """The program that opened this page asks to be answered at an address that is not on this machine; close the page."""

    code = "redirect_refused"
    status = 400
