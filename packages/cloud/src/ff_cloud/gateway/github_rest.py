"""GitHub's REST API for VMs, to read: pull requests and what belongs to them, with the owner's token put in on the way out."""

import re
from urllib.parse import urljoin

import httpx2
import structlog
from starlette.requests import ClientDisconnect, Request
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from ff_cloud.gateway.git_caller import Callers
from ff_cloud.gateway.git_errors import GitHubPathRefused, GitMoved
from ff_cloud.gateway.git_relay import asking, pass_back

log = structlog.get_logger(__name__)

PREFIX = "/github-api"
_NAME = r"(?!\.{1,2}(?:/|$))[A-Za-z0-9._-]{1,100}"
_PATH = re.compile(
    rf"/repos/{_NAME}/{_NAME}"
    r"(?:/(?:pulls|issues|commits|compare|branches|check-runs|check-suites|statuses)(?:/(?!\.{1,2}(?:/|$))[A-Za-z0-9._:~-]{1,255}){0,6})?"
)
_QUERY = re.compile(r"(?:[a-z_]{1,30}=[A-Za-z0-9._:~%+,/-]{0,255}(?:&(?=.)|$)){0,12}")
_LINK = re.compile(r"<([^<>]{1,2048})>")


class GitHubGateway:
    """The door ``/github-api/…``: an ASGI app over the API at ``api_url``."""

    def __init__(self, *, api_url: str, callers: Callers, http: httpx2.AsyncClient) -> None:
        self._api_url = api_url.rstrip("/")
        self._callers = callers
        self._http = http

    def routes(self) -> list[Route]:
        """Where it is found. Without a list of methods, so that others are refused in our words."""
        return [Route(PREFIX + "/{rest:path}", self)]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request. Raises the gateway's errors before the answer began; later it cuts the connection."""
        request = Request(scope, receive)
        owner = await self._callers.caller(request)
        asked = allowed(request.method, scope["raw_path"].decode("latin-1"), scope["query_string"].decode("latin-1"))
        token = await self._callers.github_token(owner)
        authorization = None if token is None else f"Bearer {token.get_secret_value()}"
        try:
            with self._callers.transfer(owner):
                async with asking(self._http, request, self._api_url + asked, authorization) as response:
                    await pass_back(response, scope, receive, send, self._addresses(response, asked))
        except ClientDisconnect:
            return
        log.info("gateway.github", vm_id=str(owner.vm_id), status=response.status_code)

    def _addresses(self, response: httpx2.Response, asked: str) -> dict[str, str]:
        """The headers that name other addresses of the API, as addresses of the gateway. Raises ``GitMoved``."""
        headers = {}
        if response.is_redirect:
            headers["location"] = self._here(urljoin(self._api_url + asked, response.headers.get("location", "")))
        if "link" in response.headers:
            headers["link"] = _LINK.sub(lambda link: f"<{link[1].replace(self._api_url, PREFIX, 1)}>", response.headers["link"])
        return headers

    def _here(self, target: str) -> str:
        path, _, query = target.removeprefix(self._api_url).partition("?")
        try:
            return PREFIX + allowed("GET", PREFIX + path, query)
        except GitHubPathRefused as error:
            raise GitMoved("GitHub sends this to another place, where the gateway does not go; use the new name.") from error


def allowed(method: str, path: str, query: str) -> str:
    """Path and query at GitHub, letter for letter as asked. ``path`` is the undecoded one. Raises ``GitHubPathRefused``. Pure."""
    wanted = path.removeprefix(PREFIX)
    if method != "GET" or not _PATH.fullmatch(wanted) or not _QUERY.fullmatch(query):
        raise GitHubPathRefused
    return f"{wanted}?{query}" if query else wanted
