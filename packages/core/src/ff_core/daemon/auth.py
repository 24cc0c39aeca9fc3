"""Who may call: the one who knows the token, and only if he means this life of the VM."""

import hmac
from hashlib import sha256

from ff_core.contract.plain import GENERATION_HEADER
from ff_core.daemon.errors import StaleGeneration, Unauthorized
from ff_core.daemon.http import Request
from ff_core.daemon.settings import DaemonSettings
from ff_core.errors import InvalidInput

HEALTH = "/v1/health"
_GENERATION = GENERATION_HEADER.lower()


class Auth:
    """Stands before everything, also before what does not exist."""

    def __init__(self, settings: DaemonSettings) -> None:
        self._token_sha256 = settings.token_sha256.encode()
        self._generation = settings.generation

    def require(self, request: Request) -> None:
        """Let the call pass, or raise ``Unauthorized``, ``InvalidInput`` or ``StaleGeneration``."""
        scheme, _, token = request.headers.get("authorization", "").partition(" ")
        known = hmac.compare_digest(sha256(token.strip().encode("latin-1")).hexdigest().encode(), self._token_sha256)
        if scheme.lower() != "bearer" or not known:
            raise Unauthorized
        if request.path == HEALTH:
            return
        generation = request.headers.get(_GENERATION, "")
        if not (generation.isascii() and generation.isdigit()) or len(generation) > 19:
            errors = [{"field": GENERATION_HEADER, "message": "must be the generation of the VM, a whole number"}]
            raise InvalidInput(f"The header {GENERATION_HEADER} must be the generation of the VM.", errors=errors)
        if int(generation) < self._generation:
            raise StaleGeneration(generation=self._generation)
