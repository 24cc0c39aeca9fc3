"""Who may call: the one who knows the token, and only if he means this life of the VM."""

import hmac
from hashlib import sha256

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from ff_core.contract.daemon import GENERATION_HEADER
from ff_core.daemon.errors import StaleGeneration, Unauthorized
from ff_core.daemon.problems import problem
from ff_core.daemon.settings import DaemonSettings
from ff_core.errors import FFError, InvalidInput

HEALTH = "/v1/health"


class Auth:
    """ASGI middleware in front of everything, also of what does not exist."""

    def __init__(self, app: ASGIApp, settings: DaemonSettings) -> None:
        self._app = app
        self._token_sha256 = settings.token_sha256.encode()
        self._generation = settings.generation

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the call on, or refuse it."""
        if scope["type"] != "http":
            return
        refusal = self._refusal(Headers(scope=scope), scope["path"])
        if refusal is None:
            await self._app(scope, receive, send)
        else:
            headers = {"WWW-Authenticate": "Bearer"} if isinstance(refusal, Unauthorized) else None
            await problem(refusal, headers=headers)(scope, receive, send)

    def _refusal(self, headers: Headers, path: str) -> FFError | None:
        scheme, _, token = headers.get("authorization", "").partition(" ")
        known = hmac.compare_digest(sha256(token.strip().encode("latin-1")).hexdigest().encode(), self._token_sha256)
        if scheme.lower() != "bearer" or not known:
            return Unauthorized()
        if path == HEALTH:
            return None
        generation = headers.get(GENERATION_HEADER, "")
        if not (generation.isascii() and generation.isdigit()) or len(generation) > 19:
            errors = [{"field": GENERATION_HEADER, "message": "must be the generation of the VM, a whole number"}]
            return InvalidInput(f"The header {GENERATION_HEADER} must be the generation of the VM.", errors=errors)
        if int(generation) < self._generation:
            return StaleGeneration(generation=self._generation)
        return None
