"""HTTP for programs that log in: metadata, device logins, and the exchange of codes for tokens."""

from typing import Annotated, Any, cast

from fastapi import APIRouter, Depends, Request
from pydantic import BaseModel

from ff_cloud.authorization import policy
from ff_cloud.authorization.browser import Site
from ff_cloud.authorization.codes import Codes
from ff_cloud.authorization.devices import INTERVAL_S, LIFE, Devices
from ff_cloud.authorization.errors import ClientUnknown, GrantTypeUnsupported, RequestRefused
from ff_cloud.authorization.forms import FORM, form_of
from ff_cloud.kit.origin import TheOrigin
from ff_core.contract.account import TokenPairView
from ff_core.contract.authorization import CODE_GRANT, DEVICE_GRANT, METADATA_PATH, DeviceLogin, ServerMetadata

PARAMETER_CHARS_MAX = 500

router = APIRouter(tags=["authorization"])


class OAuthProblem(BaseModel):
    """An error as RFC 6749, section 5.2, wants it; the members of a problem document are there too."""

    error: str
    error_description: str
    code: str
    detail: str
    status: int


async def _codes(request: Request) -> Codes:
    return cast(Codes, request.app.state.codes)


async def _devices(request: Request) -> Devices:
    return cast(Devices, request.app.state.devices)


async def _issuer(request: Request) -> str:
    return cast(Site, request.app.state.site).url(request)


TheCodes = Annotated[Codes, Depends(_codes)]
TheDevices = Annotated[Devices, Depends(_devices)]
Issuer = Annotated[str, Depends(_issuer)]


def _takes(**fields: bool) -> dict[str, Any]:
    """The OpenAPI text of a form; each field and whether it is required."""
    properties = {name: {"type": "string", "maxLength": PARAMETER_CHARS_MAX} for name in fields}
    required = [name for name, needed in fields.items() if needed]
    schema = {"type": "object", "properties": properties, "required": required}
    return {"requestBody": {"required": True, "content": {FORM: {"schema": schema}}}}


_REFUSALS: dict[int | str, dict[str, Any]] = {
    400: {"model": OAuthProblem, "description": "Refused; `error` says why."},
    429: {"model": OAuthProblem, "description": "Too many."},
}


@router.get(METADATA_PATH)
async def metadata(issuer: Issuer) -> ServerMetadata:
    """Where to ask for what (RFC 8414)."""
    return ServerMetadata(
        issuer=issuer,
        authorization_endpoint=f"{issuer}/authorize",
        token_endpoint=f"{issuer}/v1/auth/token",
        device_authorization_endpoint=f"{issuer}/v1/auth/device",
        jwks_uri=f"{issuer}/.well-known/jwks.json",
    )


@router.post("/v1/auth/device", responses=_REFUSALS, openapi_extra=_takes(client_id=True, device=False, scope=False))
async def begin_device_login(request: Request, devices: TheDevices, issuer: Issuer, origin: TheOrigin) -> DeviceLogin:
    """Begin a device login. ``device`` is a name of the machine that its user will recognise."""
    begun = await devices.begin(policy.wish_of(await form_of(request)), origin)
    return DeviceLogin(
        device_code=begun.device_code,
        user_code=policy.shown_code(begun.user_code),
        verification_uri=f"{issuer}/device",
        expires_in=int(LIFE.total_seconds()),
        interval=INTERVAL_S,
    )


@router.post(
    "/v1/auth/device/token", responses=_REFUSALS, openapi_extra=_takes(client_id=True, device_code=True, grant_type=False)
)
async def poll_device_login(request: Request, devices: TheDevices, origin: TheOrigin) -> TokenPairView:
    """Ask whether the user has approved: tokens, or one of the errors of RFC 8628, section 3.5."""
    form = await form_of(request)
    if form.get("grant_type", DEVICE_GRANT) != DEVICE_GRANT:
        raise GrantTypeUnsupported
    return await _device_tokens(form, devices, origin)


@router.post(
    "/v1/auth/token",
    responses=_REFUSALS,
    openapi_extra=_takes(grant_type=True, client_id=True, code=False, redirect_uri=False, code_verifier=False, device_code=False),
)
async def exchange(request: Request, codes: TheCodes, devices: TheDevices, origin: TheOrigin) -> TokenPairView:
    """Exchange an authorization code, or the code of a device login, for tokens."""
    form = await form_of(request)
    match form.get("grant_type"):
        case None:
            raise RequestRefused("grant_type is missing.")
        case value if value == DEVICE_GRANT:
            return await _device_tokens(form, devices, origin)
        case value if value != CODE_GRANT:
            raise GrantTypeUnsupported
    return await codes.exchange(
        code=_needed(form, "code"),
        client_id=_client(form),
        redirect_uri=_needed(form, "redirect_uri"),
        verifier=_needed(form, "code_verifier"),
        origin=origin,
    )


async def _device_tokens(form: dict[str, str], devices: Devices, origin: TheOrigin) -> TokenPairView:
    return await devices.poll(device_code=_needed(form, "device_code"), client_id=_client(form), origin=origin)


def _client(form: dict[str, str]) -> str:
    if form.get("client_id") not in policy.CLIENTS:
        raise ClientUnknown
    return form["client_id"]


def _needed(form: dict[str, str], name: str) -> str:
    value = form.get(name, "")
    if not 1 <= len(value) <= PARAMETER_CHARS_MAX or not value.isascii():
        raise RequestRefused(f"{name} is missing or not of the right form.")
    return value
