"""Logging a program in by a browser (RFC 6749 with PKCE, RFC 8252) or from another device (RFC 8628), and identities elsewhere.

These endpoints speak the RFCs' own words: forms in, and errors that carry ``error`` beside our ``code``, with the same value.
"""

from datetime import datetime

from ff_core.contract.base import View

CODE_GRANT = "authorization_code"
DEVICE_GRANT = "urn:ietf:params:oauth:grant-type:device_code"
METADATA_PATH = "/.well-known/oauth-authorization-server"
AUTHORIZATION_PENDING = "authorization_pending"
SLOW_DOWN = "slow_down"
SLOW_DOWN_S = 5
"""How much longer a program waits between two questions, each time it is told to slow down (RFC 8628, section 3.5)."""
DEVICE_NAME_CHARS_MAX = 100


class ServerMetadata(View):
    """Where to ask for what (RFC 8414). ``issuer`` must be what ``iss`` of an authorization response says (RFC 9207)."""

    issuer: str
    authorization_endpoint: str
    token_endpoint: str
    device_authorization_endpoint: str
    jwks_uri: str
    response_types_supported: tuple[str, ...] = ("code",)
    grant_types_supported: tuple[str, ...] = (CODE_GRANT, DEVICE_GRANT)
    code_challenge_methods_supported: tuple[str, ...] = ("S256",)
    token_endpoint_auth_methods_supported: tuple[str, ...] = ("none",)
    authorization_response_iss_parameter_supported: bool = True


class DeviceLogin(View):
    """A device login that waits: the user types ``user_code`` at ``verification_uri``, the program asks every ``interval`` s."""

    device_code: str
    user_code: str
    verification_uri: str
    expires_in: int
    interval: int


class IdentityView(View):
    """An account elsewhere that logs in to this one. ``login`` is its name there when it was last used, for people only."""

    provider: str
    subject: str
    login: str
    created_at: datetime
    last_used_at: datetime
