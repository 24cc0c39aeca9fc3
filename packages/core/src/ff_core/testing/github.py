"""A scripted GitHub on loopback: OAuth for web apps, ``/user`` and ``/user/emails``, with real redirects.

``python -m ff_core.testing.github --port 8398`` prints its URL as the first line and serves until stopped: GitHub's and its API's
address are the same. Whoever comes to its login page agrees at once, as the person ``agrees_as``.
"""

import argparse
import asyncio
import contextlib
import hmac
import secrets
from base64 import urlsafe_b64encode
from dataclasses import dataclass, field
from hashlib import sha256
from types import TracebackType
from urllib.parse import parse_qs, urlencode

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, RedirectResponse, Response
from starlette.routing import Route

from ff_core.testing.serve import serving, until_signal

CLIENT_ID = "scripted-app"
CLIENT_SECRET = "scripted-secret"  # noqa: S105  (of an app that exists only here)


@dataclass
class Person:
    """A GitHub account. ``emails``: address, whether it is the primary one, whether it is verified."""

    id: int
    login: str
    name: str | None = None
    emails: list[tuple[str, bool, bool]] = field(default_factory=list)


@dataclass(frozen=True)
class _Grant:
    person: Person
    redirect_uri: str
    challenge: str


class GitHub:
    """``async with GitHub() as github``. Tests set ``agrees_as`` (None: no consent) and ``out_of_order``, and read ``seen``."""

    url: str = ""
    """GitHub's and its API's address, once entered."""

    def __init__(self, *, host: str = "127.0.0.1", port: int = 0) -> None:
        self.agrees_as: Person | None = Person(1001, "octocat", "Octo Cat", [("octocat@example.com", True, True)])
        self.out_of_order = False
        self.seen: list[tuple[str, dict[str, str]]] = []
        """Path and parameters of each request; only those of OAuth have any."""
        self._host, self._port = host, port
        self._codes: dict[str, _Grant] = {}
        self._tokens: dict[str, Person] = {}
        self._exit = contextlib.AsyncExitStack()

    async def __aenter__(self) -> "GitHub":
        routes = [
            Route("/login/oauth/authorize", self._authorize),
            Route("/login/oauth/access_token", self._access_token, methods=["POST"]),
            Route("/user", self._user),
            Route("/user/emails", self._emails),
        ]
        self.url = await self._exit.enter_async_context(serving(Starlette(routes=routes), host=self._host, port=self._port))
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self._exit.aclose()

    async def _authorize(self, request: Request) -> Response:
        query = dict(request.query_params)
        self.seen.append((request.url.path, query))
        if query.get("client_id") != CLIENT_ID or query.get("code_challenge_method") != "S256":
            return PlainTextResponse("The app or its request is not good.", 404)
        answer = {"state": query["state"]}
        if self.agrees_as is None:
            answer |= {"error": "access_denied", "error_description": "The user has denied your application access."}
        else:
            answer["code"] = secrets.token_hex(10)
            self._codes[answer["code"]] = _Grant(self.agrees_as, query["redirect_uri"], query["code_challenge"])
        return RedirectResponse(f"{query['redirect_uri']}?{urlencode(answer)}", 302)

    async def _access_token(self, request: Request) -> Response:
        form = {name: values[0] for name, values in parse_qs((await request.body()).decode()).items()}
        self.seen.append((request.url.path, form))
        if self.out_of_order:
            return PlainTextResponse("Unicorn!", 502)
        grant = self._codes.pop(form.get("code", ""), None)
        challenge = urlsafe_b64encode(sha256(form.get("code_verifier", "").encode()).digest()).rstrip(b"=").decode()
        good = (
            grant is not None
            and hmac.compare_digest(form.get("client_secret", ""), CLIENT_SECRET)
            and (form.get("client_id"), form.get("redirect_uri"), challenge) == (CLIENT_ID, grant.redirect_uri, grant.challenge)
        )
        if not good or grant is None:
            return JSONResponse({"error": "bad_verification_code"})  # GitHub says so with status 200
        token = f"gho_{secrets.token_hex(18)}"
        self._tokens[token] = grant.person
        return JSONResponse({"access_token": token, "token_type": "bearer", "scope": "user:email"})

    async def _user(self, request: Request) -> Response:
        person = self._person(request)
        if person is None:
            return JSONResponse({"message": "Bad credentials"}, 401)
        return JSONResponse({"id": person.id, "login": person.login, "name": person.name})

    async def _emails(self, request: Request) -> Response:
        person = self._person(request)
        if person is None:
            return JSONResponse({"message": "Bad credentials"}, 401)
        return JSONResponse([{"email": e, "primary": p, "verified": v, "visibility": None} for e, p, v in person.emails])

    def _person(self, request: Request) -> Person | None:
        self.seen.append((request.url.path, {}))
        return self._tokens.get(request.headers.get("authorization", "").removeprefix("Bearer "))


async def _main(host: str, port: int) -> None:
    async with GitHub(host=host, port=port) as github:
        print(github.url, flush=True)  # noqa: T201  (whoever started us reads it)
        await until_signal()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m ff_core.testing.github")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=0, help="0: any free port")
    chosen = parser.parse_args()
    asyncio.run(_main(chosen.host, chosen.port))
