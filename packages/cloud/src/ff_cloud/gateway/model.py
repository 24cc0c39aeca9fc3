"""The model's API as VMs see it: the paths that agents ask, with their owner's key put in on the way out."""

import re
from collections.abc import Mapping

import httpx2
import structlog
from pydantic import SecretStr
from starlette.datastructures import Headers
from starlette.responses import JSONResponse, Response
from starlette.types import Receive, Scope, Send

from ff_cloud.credentials.errors import ModelKeyMissing
from ff_cloud.credentials.service import MODEL_KINDS, Opened
from ff_cloud.gateway.door import Door, Owner
from ff_cloud.gateway.errors import VmTokenRefused
from ff_cloud.gateway.metering import Meter
from ff_cloud.gateway.recorder import Recorder
from ff_cloud.gateway.relay import REQUEST_BYTES_MAX, passing_headers, relay
from ff_core.contract.credentials import CredentialKind
from ff_core.errors import FFError, TooLarge

log = structlog.get_logger(__name__)

PREFIX = "/anthropic"
PUBLIC_API_URL = "https://api.anthropic.com"
SESSION_HEADER = "x-claude-code-session-id"
_MESSAGES = "/v1/messages"
_PATHS = re.compile(r"POST /v1/messages|POST /v1/messages/count_tokens|GET /v1/models(?:/[A-Za-z0-9._:-]{1,200})?")
_REACHABLE = "/api/hello"
# Asked for unpacked: the usage is read as it passes.
_REPLACED = frozenset({"x-api-key", "authorization", "accept-encoding"})
_OAUTH_BETA = "oauth-2025-04-20"
_ERROR_TYPES = {
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    413: "request_too_large",
    504: "timeout_error",
}


class PathRefused(FFError):
    """The gateway passes on messages, token counts and lists of models, and nothing else."""

    code = "gateway_path_refused"
    status = 404


class ModelGateway:
    """An ASGI app for everything below :data:`PREFIX`. ``server_key``: for users who have set no key of their own."""

    def __init__(
        self,
        *,
        door: Door,
        http: httpx2.AsyncClient,
        recorder: Recorder,
        base_url: str | None,
        server_key: SecretStr | None,
    ) -> None:
        self._door = door
        self._http = http
        self._recorder = recorder
        self._base_url = (base_url or PUBLIC_API_URL).rstrip("/")
        self._server_key = server_key

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """See :class:`ModelGateway`."""
        path = scope["path"].removeprefix(scope.get("root_path", "")) or "/"
        if (scope["method"], path) == ("HEAD", _REACHABLE):
            await Response()(scope, receive, send)
            return
        try:
            await self._answer(scope, path, receive, send)
        except FFError as error:
            await refusal(error)(scope, receive, send)

    async def _answer(self, scope: Scope, path: str, receive: Receive, send: Send) -> None:
        headers = Headers(scope=scope)
        owner = await self._door.owner_of(_token(headers))
        if _PATHS.fullmatch(f"{scope['method']} {path}") is None:
            raise PathRefused
        declared = headers.get("content-length", "0")
        if not declared.isdecimal() or int(declared) > REQUEST_BYTES_MAX:
            raise TooLarge(f"The request is larger than the {REQUEST_BYTES_MAX} bytes that the gateway passes on.")
        key = await self._door.credential(owner, *MODEL_KINDS) or self._fallback()
        query = scope["query_string"].decode("latin-1")
        url = f"{self._base_url}{path}" + (f"?{query}" if query else "")
        meter = Meter()
        try:
            await relay(self._http, scope["method"], url, _outgoing(headers, key), receive, send, meter.reads)
        finally:
            if path == _MESSAGES:
                self._record(owner, headers, meter)

    def _fallback(self) -> Opened:
        if self._server_key is None:
            raise ModelKeyMissing
        return Opened(CredentialKind.ANTHROPIC_API_KEY, self._server_key)

    def _record(self, owner: Owner, headers: Headers, meter: Meter) -> None:
        if (spent := meter.spent()) is not None:
            self._recorder.note(owner, spent, agent_session=headers.get(SESSION_HEADER))


def refusal(error: FFError) -> Response:
    """An error in the shape the model's API has, so that agents understand it; they don't repeat what can't help."""
    kind = _ERROR_TYPES.get(error.status, "api_error" if error.status >= 500 else "authentication_error")
    body = {"type": "error", "error": {"type": kind, "message": error.detail}}
    final = isinstance(error, VmTokenRefused | ModelKeyMissing | PathRefused | TooLarge)
    status = 401 if isinstance(error, ModelKeyMissing) else error.status
    headers: Mapping[str, str] = {"x-should-retry": "false"} if final else {}
    log.info("gateway.refused", code=error.code, status=status)
    return JSONResponse(body, status, headers)


def _token(headers: Headers) -> str:
    shown = headers.get("x-api-key")
    scheme, _, bearer = headers.get("authorization", "").partition(" ")
    return shown or (bearer if scheme.lower() == "bearer" else "")


def _outgoing(headers: Headers, key: Opened) -> list[tuple[str, str]]:
    """What the agent sent, with the owner's key in place of the VM's token."""
    passing = passing_headers(headers, but=_REPLACED)
    passing.append(("accept-encoding", "identity"))
    value = key.value.get_secret_value()
    if key.kind is CredentialKind.ANTHROPIC_API_KEY:
        return [*passing, ("x-api-key", value)]
    # The API takes tokens of subscriptions together with this word only; the agent thinks it has a key, and leaves it out.
    betas = [value for name, value in passing if name == "anthropic-beta"]
    if not any(_OAUTH_BETA in beta for beta in betas):
        passing = [pair for pair in passing if pair[0] != "anthropic-beta"]
        passing.append(("anthropic-beta", ",".join([*betas, _OAUTH_BETA])))
    return [*passing, ("authorization", f"Bearer {value}")]
