"""Git over HTTPS for VMs: the smart protocol of allowed servers, with the owner's credential put in on the way out.

A VM shows its own token. What comes back is the server's answer as it is, but refusals, which are told in words that say
what to do: git shows the text of a refusal to whoever typed the command.
"""

from base64 import b64encode

import httpx2
import structlog
from pydantic import SecretStr
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from ff_cloud.gateway.errors import VmTokenRefused
from ff_cloud.gateway.git_caller import Callers
from ff_cloud.gateway.git_errors import GitCredentialRefused, GitLfsUnsupported
from ff_cloud.gateway.git_hosts import PREFIX, GitRequest, follow, read_request
from ff_cloud.gateway.git_relay import asking, beginning, pass_back
from ff_core.errors import FFError

log = structlog.get_logger(__name__)

USERNAME = "x-access-token"
"""What GitHub wants beside a token."""
LFS_MEDIA_TYPE = "application/vnd.git-lfs+json"
SAID_BYTES_MAX = 500
_SET = "`ff credential set github_token`"


class GitGateway:
    """The door ``/git/…``: an ASGI app. ``github`` is the one server whose requests get the owner's ``github_token``."""

    def __init__(self, *, hosts: tuple[str, ...], github: str, callers: Callers, http: httpx2.AsyncClient) -> None:
        self._hosts = hosts
        self._github = github
        self._callers = callers
        self._http = http

    def routes(self) -> list[Route]:
        """Where it is found."""
        return [Route(PREFIX + "/{rest:path}", self)]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request. Raises only when an answer breaks off after it began, so that the connection is cut."""
        try:
            await self._serve(Request(scope, receive), scope, receive, send)
        except ClientDisconnect:
            log.info("gateway.git_caller_gone")
        except FFError as error:
            log.info("gateway.git_refused", code=error.code, status=error.status, cause=repr(error.__cause__))
            await refusal(error)(scope, receive, send)

    async def _serve(self, request: Request, scope: Scope, receive: Receive, send: Send) -> None:
        owner = await self._callers.caller(request)
        path, query = scope["raw_path"].decode("latin-1"), scope["query_string"].decode("latin-1")
        asked = read_request(request.method, path, query, self._hosts)
        credential = await self._callers.github_token(owner) if asked.origin == self._github else None
        authorization = None if credential is None else basic(credential)
        with self._callers.transfer(owner):
            async with asking(self._http, request, asked.upstream, authorization) as response:
                headers = await answer_headers(response, asked, known=credential is not None)
                sent = await pass_back(response, scope, receive, send, headers)
        log.info("gateway.git", vm_id=str(owner.vm_id), service=asked.service, status=response.status_code, sent_bytes=sent)


async def answer_headers(response: httpx2.Response, asked: GitRequest, *, known: bool) -> dict[str, str]:
    """What to add to an answer that may pass: the new address, when it is a redirect within the server.

    Raises ``GitMoved`` for another redirect and ``GitCredentialRefused`` for a refusal; ``known``: with a credential.
    A 401 must not pass: git would ask the person for a user name, and would show that to the gateway.
    """
    if response.is_redirect:
        return {"location": follow(asked, response.headers.get("location", "")).address}
    if response.status_code not in (401, 403):
        return {}
    host = asked.origin.partition("://")[2]
    said = await beginning(response, SAID_BYTES_MAX)
    match response.status_code, known:
        case 401, False:
            told = f"{host} asks for a credential for {asked.repository}, or has no such repository. Set one: {_SET}."
        case 401, True:
            told = f"{host} does not accept your github_token for {asked.repository}. Set one that is valid: {_SET}."
        case _:
            told = f"{host} does not allow this in {asked.repository}. If you should be allowed to, set another token: {_SET}."
    raise GitCredentialRefused(f"{told} It said: {said}" if said else told)


def basic(credential: SecretStr) -> str:
    """The header's value that shows a token to a git server."""
    return "Basic " + b64encode(f"{USERNAME}:{credential.get_secret_value()}".encode()).decode()


def refusal(error: FFError) -> Response:
    """An error as git, or git-lfs, shows it to a person: it prints plain text after ``remote:``."""
    if isinstance(error, GitLfsUnsupported):
        return JSONResponse({"message": error.detail}, error.status, media_type=LFS_MEDIA_TYPE)
    challenge = {"www-authenticate": 'Bearer realm="ff-gateway"'} if isinstance(error, VmTokenRefused) else None
    return PlainTextResponse(f"{error.detail}\n", error.status, challenge)
