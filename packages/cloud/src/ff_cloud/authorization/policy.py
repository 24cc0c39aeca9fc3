"""What may be asked of the authorization server. Pure."""

import hmac
import re
import secrets
from base64 import urlsafe_b64encode
from dataclasses import dataclass
from hashlib import sha256
from urllib.parse import urlsplit

from ff_cloud.authorization.errors import ClientUnknown, RedirectRefused, RequestRefused, ResponseTypeUnsupported, ScopeInvalid
from ff_core.contract.account import Client, Scope
from ff_core.contract.authorization import DEVICE_NAME_CHARS_MAX

CLIENTS = {Client.FF.value: "ff"}
"""Programs that may ask, and what the pages call them. All are public clients: their proof is PKCE, not a secret."""
STATE_CHARS_MAX = 200
NEXT_CHARS_MAX = 4096
USER_CODE_ALPHABET = "BCDFGHJKLMNPQRSTVWXZ"
"""No vowels, so that no word comes out, and nothing that looks like a digit (RFC 8628, section 6.1)."""
USER_CODE_CHARS = 8

_REDIRECT = re.compile(r"http://(?:127\.0\.0\.1|\[::1\]):([1-9][0-9]{0,4})/cb")
_CHALLENGE = re.compile(r"[A-Za-z0-9_-]{43}")
_VERIFIER = re.compile(r"[A-Za-z0-9._~-]{43,128}")
_NEXT_PATHS = frozenset({"/authorize", "/device", "/account"})
_LOGIN_SCOPES = frozenset(Scope) - {Scope.ADMIN}


@dataclass(frozen=True, slots=True)
class Wish:
    """What a program asks the user for: to act as him, under ``device``, a name it gave itself."""

    client_id: str
    device: str
    scopes: frozenset[Scope] | None


@dataclass(frozen=True, slots=True)
class CodeWish(Wish):
    """A wish that is answered with a code, at an address of this machine's loopback interface."""

    redirect_uri: str
    code_challenge: str
    state: str


def wish_of(form: dict[str, str]) -> Wish:
    """Who asks for what. Raises ``ClientUnknown``, ``ScopeInvalid``."""
    client_id = form.get("client_id", "")
    if client_id not in CLIENTS:
        raise ClientUnknown
    return Wish(client_id, _device(form.get("device", "")), _scopes(form.get("scope", "")))


def redirect_of(form: dict[str, str]) -> str:
    """Where the answer goes; until it and the client are known to be good, nothing is sent anywhere.

    Raises ``RedirectRefused``, ``ClientUnknown``.
    """
    redirect_uri = form.get("redirect_uri", "")
    found = _REDIRECT.fullmatch(redirect_uri)
    if found is None or int(found[1]) > 65535:
        raise RedirectRefused
    if form.get("client_id", "") not in CLIENTS:
        raise ClientUnknown
    return redirect_uri


def code_wish_of(form: dict[str, str]) -> CodeWish:
    """A whole authorization request. Raises like :func:`redirect_of`, and errors that go to the redirect address."""
    redirect_uri = redirect_of(form)
    if form.get("response_type") != "code":
        raise ResponseTypeUnsupported
    if form.get("code_challenge_method") != "S256" or not _CHALLENGE.fullmatch(form.get("code_challenge", "")):
        raise RequestRefused("PKCE with S256 is required: code_challenge (43 characters) and code_challenge_method=S256.")
    state = form.get("state", "")
    if not 1 <= len(state) <= STATE_CHARS_MAX:
        raise RequestRefused(f"state must have 1 to {STATE_CHARS_MAX} characters.")
    wish = wish_of(form)
    return CodeWish(wish.client_id, wish.device, wish.scopes, redirect_uri, form["code_challenge"], state)


def verifies(challenge: str, verifier: str) -> bool:
    """Whether ``verifier`` is what ``challenge`` was made of (S256)."""
    return bool(_VERIFIER.fullmatch(verifier)) and hmac.compare_digest(challenge_of(verifier), challenge)


def challenge_of(verifier: str) -> str:
    """The S256 challenge of RFC 7636, section 4.2."""
    return urlsafe_b64encode(sha256(verifier.encode()).digest()).rstrip(b"=").decode()


def new_user_code() -> str:
    """Eight consonants, 34.5 bits."""
    return "".join(secrets.choice(USER_CODE_ALPHABET) for _ in range(USER_CODE_CHARS))


def typed_code(text: str) -> str | None:
    """What somebody typed, without what people add; None when it can't be a code."""
    code = re.sub(r"[\s\-\u2010-\u2015.]+", "", text[:100]).upper()
    return code if len(code) == USER_CODE_CHARS and set(code) <= set(USER_CODE_ALPHABET) else None


def shown_code(code: str) -> str:
    """``ABCD-EFGH``."""
    return f"{code[:4]}-{code[4:]}"


def safe_next(text: str) -> str:
    """Where to go after a login: one of our own pages, else the account's page. Never an address elsewhere."""
    if len(text) > NEXT_CHARS_MAX or not text.isascii() or not text.isprintable() or "\\" in text or not text.startswith("/"):
        return "/account"
    try:
        parts = urlsplit(text)
    except ValueError:
        return "/account"
    if parts.scheme or parts.netloc or parts.fragment or parts.path not in _NEXT_PATHS:
        return "/account"
    return text


def _device(text: str) -> str:
    plain = "".join(char for char in text if char.isprintable()).strip()
    return plain[:DEVICE_NAME_CHARS_MAX] or "an unnamed machine"


def _scopes(text: str) -> frozenset[Scope] | None:
    if not text:
        return None
    try:
        scopes = frozenset(Scope(word) for word in text.split(" "))
    except ValueError as error:
        raise ScopeInvalid from error
    if not scopes <= _LOGIN_SCOPES:
        raise ScopeInvalid
    return scopes
