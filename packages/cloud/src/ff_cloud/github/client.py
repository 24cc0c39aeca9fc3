"""What GitHub is asked: a code for a token, the token for a person. Then the token is forgotten.

Answers are bounded in time and size, redirects are not followed, and what GitHub says is translated here.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import urlencode

import httpx2
from pydantic import BaseModel, SecretStr, TypeAdapter, ValidationError

from ff_cloud.github.errors import GitHubRefused, GitHubUnavailable

TIMEOUT_S = 10.0
CONNECT_TIMEOUT_S = 5.0
ANSWER_BYTES_MAX = 1024 * 1024
SCOPE = "user:email"


@dataclass(frozen=True, slots=True)
class Person:
    """Somebody at GitHub. ``email`` is the primary address if GitHub has verified it."""

    subject: str
    login: str
    name: str | None
    email: str | None


class _Token(BaseModel):
    access_token: SecretStr | None = None


class _User(BaseModel):
    id: int
    login: str
    name: str | None = None


class _Email(BaseModel):
    email: str
    primary: bool
    verified: bool


_TOKEN, _USER, _EMAILS = TypeAdapter(_Token), TypeAdapter(_User), TypeAdapter(list[_Email])


class GitHub:
    """One OAuth app at one GitHub. ``redirect_uri`` is where all its logins come back, exactly."""

    def __init__(self, *, client_id: str, client_secret: SecretStr, url: str, api_url: str, redirect_uri: str) -> None:
        self.url = url.rstrip("/")
        self._api_url = api_url.rstrip("/")
        self._client_id = client_id
        self._client_secret = client_secret
        self._redirect_uri = redirect_uri

    def authorize_url(self, *, state: str, code_challenge: str) -> str:
        """Where the browser goes to ask the person."""
        query = {
            "client_id": self._client_id,
            "redirect_uri": self._redirect_uri,
            "scope": SCOPE,
            "state": state,
            "code_challenge": code_challenge,
            "code_challenge_method": "S256",
        }
        return f"{self.url}/login/oauth/authorize?{urlencode(query)}"

    async def person(self, *, code: str, code_verifier: str) -> Person:
        """Who agreed. A code is good once. Raises :class:`GitHubRefused`, :class:`GitHubUnavailable`; may take a few timeouts."""
        timeout = httpx2.Timeout(TIMEOUT_S, connect=CONNECT_TIMEOUT_S)
        try:
            async with httpx2.AsyncClient(timeout=timeout, follow_redirects=False) as http:
                token = await self._token(http, code, code_verifier)
                headers = {"Authorization": f"Bearer {token}", "Accept": "application/vnd.github+json"}
                user = _USER.validate_json(await _answer(http, "GET", f"{self._api_url}/user", headers))
                emails = _EMAILS.validate_json(await _answer(http, "GET", f"{self._api_url}/user/emails", headers))
        except httpx2.HTTPError as error:
            raise GitHubUnavailable from error
        except ValidationError:
            raise GitHubUnavailable("GitHub answered something that this server can't read.") from None
        email = next((one.email for one in emails if one.primary and one.verified), None)
        return Person(str(user.id), user.login[:100], user.name, email)

    async def _token(self, http: httpx2.AsyncClient, code: str, code_verifier: str) -> str:
        form = {
            "client_id": self._client_id,
            "client_secret": self._client_secret.get_secret_value(),
            "code": code,
            "redirect_uri": self._redirect_uri,
            "code_verifier": code_verifier,
        }
        url = f"{self.url}/login/oauth/access_token"
        answer = _TOKEN.validate_json(await _answer(http, "POST", url, {"Accept": "application/json"}, form))
        if answer.access_token is None:  # GitHub tells errors with status 200
            raise GitHubRefused
        return answer.access_token.get_secret_value()


async def _answer(
    http: httpx2.AsyncClient, method: str, url: str, headers: Mapping[str, str], form: Mapping[str, str] | None = None
) -> bytes:
    content = bytearray()
    async with http.stream(method, url, headers=dict(headers), data=form) as response:
        if response.status_code in {400, 401, 403, 404}:
            raise GitHubRefused
        if response.status_code != 200:
            raise GitHubUnavailable
        async for piece in response.aiter_bytes():
            content += piece
            if len(content) > ANSWER_BYTES_MAX:
                raise GitHubUnavailable("GitHub answered more than this server reads.")
    return bytes(content)
