"""The pages over HTTP: logging in and out in a browser, letting a program in, typing a device's code, the account."""

from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass
from typing import Annotated, Any, cast
from urllib.parse import urlencode

from fastapi import APIRouter, Depends, Request, Response
from fastapi.responses import RedirectResponse
from fastapi.routing import APIRoute
from pydantic import JsonValue, SecretStr, ValidationError

from ff_cloud.audit import service as audit
from ff_cloud.auth.errors import BadCredentials
from ff_cloud.auth.service import Auth
from ff_cloud.authorization import pages, policy
from ff_cloud.authorization.browser import Browsers, Visitor
from ff_cloud.authorization.codes import Codes
from ff_cloud.authorization.devices import Devices
from ff_cloud.authorization.errors import AccessDenied, ClientUnknown, OAuthRefusal, UserCodeUnknown
from ff_cloud.authorization.forms import form_of, query_of
from ff_cloud.authorization.policy import CodeWish
from ff_cloud.authorization.repository import StoredSession
from ff_cloud.errors import TooManyRequests
from ff_cloud.github import service as identities
from ff_cloud.github.service import GitHubLogins
from ff_cloud.kit.db import Database
from ff_cloud.kit.origin import Origin, TheOrigin
from ff_cloud.users import service as users
from ff_core.contract.account import LogIn
from ff_core.errors import FFError
from ff_core.ids import UserId

_TITLE = "That did not work"


class PageRoute(APIRoute):
    """A route whose errors are pages too."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """See :class:`PageRoute`."""
        handle = super().get_route_handler()

        async def handle_as_page(request: Request) -> Response:
            try:
                return await handle(request)
            except FFError as error:
                answer = pages.message(_TITLE, error.detail, status=error.status)
                if isinstance(error, TooManyRequests):
                    answer.headers.update(error.headers())
                return answer

        return handle_as_page


router = APIRouter(route_class=PageRoute, include_in_schema=False)


@dataclass(frozen=True, slots=True)
class Desk:
    """What the pages need of the server."""

    db: Database
    auth: Auth
    browsers: Browsers
    codes: Codes
    devices: Devices
    github: GitHubLogins

    async def email_of(self, user_id: UserId) -> str:
        """The account's address, for its owner to recognise. Raises ``AccountDisabled``."""
        async with self.db.system_transaction() as tx:
            await users.require_enabled(tx, user_id)
            return (await users.get(tx, user_id)).email

    async def note(self, user_id: UserId, action: str, origin: Origin, **facts: JsonValue) -> None:
        """Write to the account's audit log."""
        async with self.db.system_transaction() as tx:
            await audit.record(tx, user_id=user_id, action=action, outcome="ok", origin=origin, **facts)


async def _desk(request: Request) -> Desk:
    return cast(Desk, request.app.state.desk)


TheDesk = Annotated[Desk, Depends(_desk)]


@router.get("/login")
async def login_page(request: Request, desk: TheDesk) -> Response:
    """The form to log in."""
    visitor = desk.browsers.visitor(request)
    return _login(request, desk, visitor, policy.safe_next(query_of(request).get("next", "")))


@router.post("/login")
async def log_in(request: Request, desk: TheDesk, origin: TheOrigin) -> Response:
    """Log in with e-mail and password."""
    visitor, form = desk.browsers.visitor(request), await form_of(request)
    desk.browsers.require_own_form(request, visitor, form)
    following, email = policy.safe_next(form.get("next", "")), form.get("email", "")
    try:
        proof = LogIn(email=email, password=SecretStr(form.get("password", "")))
        user_id = await desk.auth.prove(proof, origin)
    except (ValidationError, BadCredentials):
        return _login(request, desk, visitor, following, problem="E-mail or password is wrong.", email=email[:254], status=401)
    except TooManyRequests as error:
        answer = _login(request, desk, visitor, following, problem=error.detail, email=email[:254], status=429)
        answer.headers.update(error.headers())
        return answer
    now_known = await desk.browsers.log_in(visitor, user_id)
    return desk.browsers.remember(request, now_known, _go(desk, request, following))


@router.post("/logout")
async def log_out(request: Request, desk: TheDesk) -> Response:
    """End the browser's session."""
    visitor = desk.browsers.visitor(request)
    desk.browsers.require_own_form(request, visitor, await form_of(request))
    await desk.browsers.log_out(visitor)
    return pages.message("Logged out", "You are logged out in this browser.")


@router.get("/authorize")
async def authorize_page(request: Request, desk: TheDesk) -> Response:
    """Ask whether a program on this machine may act for the user."""

    async def ask(wish: CodeWish) -> Response:
        visitor = desk.browsers.visitor(request)
        session = await desk.browsers.session(visitor)
        if session is None:
            return _to_login(desk, request, f"/authorize?{request.url.query}")
        answer = pages.consent(
            csrf=visitor.csrf,
            action=f"?{request.url.query}",
            client=policy.CLIENTS[wish.client_id],
            device=wish.device,
            email=await desk.email_of(session.user_id),
            scopes=wish.scopes,
            target=wish.redirect_uri,
        )
        return desk.browsers.remember(request, visitor, answer)

    return await _wished(request, desk, ask)


@router.post("/authorize")
async def authorize(request: Request, desk: TheDesk, origin: TheOrigin) -> Response:
    """The user has decided about a program."""

    async def decide(wish: CodeWish) -> Response:
        visitor, form = desk.browsers.visitor(request), await form_of(request)
        desk.browsers.require_own_form(request, visitor, form)
        session = await desk.browsers.session(visitor)
        if session is None:
            return _to_login(desk, request, f"/authorize?{request.url.query}")
        await desk.email_of(session.user_id)
        allowed = form.get("decision") == "allow"
        action = "program.allowed" if allowed else "program.denied"
        await desk.note(session.user_id, action, origin, client=wish.client_id, device=wish.device)
        if not allowed:
            raise AccessDenied
        return _answer(desk, request, wish.redirect_uri, state=wish.state, code=await desk.codes.give(wish, session.user_id))

    return await _wished(request, desk, decide)


@router.get("/device")
async def device_page(request: Request, desk: TheDesk) -> Response:
    """The form for the code of a device login; a code in the address is not looked at."""
    visitor = desk.browsers.visitor(request)
    if await desk.browsers.session(visitor, fresh=True) is None:
        return _to_login(desk, request, "/device")
    return desk.browsers.remember(request, visitor, pages.device_code(csrf=visitor.csrf))


@router.post("/device")
async def device(request: Request, desk: TheDesk, origin: TheOrigin) -> Response:
    """A code was typed, or a device login decided."""
    visitor, form = desk.browsers.visitor(request), await form_of(request)
    desk.browsers.require_own_form(request, visitor, form)
    session = await desk.browsers.session(visitor, fresh=True)
    if session is None:
        return _to_login(desk, request, "/device")
    user_code = form.get("user_code", "")
    try:
        return await _device_step(desk, visitor, session, user_code, form.get("decision"), origin)
    except UserCodeUnknown as error:
        return pages.device_code(csrf=visitor.csrf, problem=error.detail, status=error.status)


@router.get("/account")
async def account_page(request: Request, desk: TheDesk) -> Response:
    """Who is logged in, and with what."""
    visitor = desk.browsers.visitor(request)
    session = await desk.browsers.session(visitor)
    if session is None:
        return _to_login(desk, request, "/account")
    email = await desk.email_of(session.user_id)
    async with desk.db.transaction(session.user_id) as tx:
        linked = await identities.list_own(tx)
    answer = pages.account(csrf=visitor.csrf, email=email, identities=linked, github=desk.github.url)
    return desk.browsers.remember(request, visitor, answer)


@router.post("/account")
async def link_github(request: Request, desk: TheDesk) -> Response:
    """Begin to link a GitHub account to the one that is logged in."""
    visitor = desk.browsers.visitor(request)
    desk.browsers.require_own_form(request, visitor, await form_of(request))
    session = await desk.browsers.session(visitor, fresh=True)
    if session is None:
        return _to_login(desk, request, "/account")
    return RedirectResponse(await desk.github.begin(visitor.sha256, "/account", session.user_id), 303)


@router.get("/v1/auth/github/start")
async def github_start(request: Request, desk: TheDesk) -> Response:
    """Go to GitHub to log in."""
    visitor = desk.browsers.visitor(request)
    following = policy.safe_next(query_of(request).get("next", ""))
    answer = RedirectResponse(await desk.github.begin(visitor.sha256, following), 303)
    return desk.browsers.remember(request, visitor, answer)


@router.get("/v1/auth/github/callback")
async def github_callback(request: Request, desk: TheDesk, origin: TheOrigin) -> Response:
    """Come back from GitHub."""
    visitor, query = desk.browsers.visitor(request), query_of(request)
    arrival = await desk.github.finish(visitor.sha256, state=query.get("state", ""), code=query.get("code"))
    action = {"login": "login", "signup": "account.opened", "link": "identity.linked"}[arrival.how]
    await desk.note(arrival.user_id, action, origin, method="github")
    now_known = await desk.browsers.log_in(visitor, arrival.user_id)
    return desk.browsers.remember(request, now_known, _go(desk, request, arrival.next))


async def _device_step(
    desk: Desk, visitor: Visitor, session: StoredSession, user_code: str, decision: str | None, origin: Origin
) -> Response:
    found = await desk.devices.look(user_code, session.user_id, origin)
    if decision not in {"approve", "deny"}:
        return pages.device_approval(
            csrf=visitor.csrf,
            user_code=user_code,
            client=policy.CLIENTS[found.wish.client_id],
            device=found.wish.device,
            place=found.place,
            age_s=int((desk.browsers.now() - found.created_at).total_seconds()),
            email=await desk.email_of(session.user_id),
            scopes=found.wish.scopes,
        )
    approved = decision == "approve"
    await desk.email_of(session.user_id)
    await desk.devices.decide(user_code, session.user_id, origin, approve=approved)
    if approved:
        return pages.message("Approved", "The other machine is logged in. You can close this page.")
    return pages.message("Denied", "Nobody was let in. If somebody sent you that code, do not trust them with the next one.")


async def _wished(request: Request, desk: Desk, act: Callable[[CodeWish], Awaitable[Response]]) -> Response:
    """Read an authorization request and act on it; what is wrong with it is told to the program once its address is known."""
    query = query_of(request)
    redirect_uri = policy.redirect_of(query)
    try:
        return await act(policy.code_wish_of(query))
    except ClientUnknown:
        raise
    except OAuthRefusal as error:
        state = query.get("state", "")[: policy.STATE_CHARS_MAX]
        return _answer(desk, request, redirect_uri, state=state, error=error.code, error_description=error.detail)


def _answer(desk: Desk, request: Request, redirect_uri: str, **parameters: str) -> Response:
    # `iss` lets a program that knows several servers notice an answer of the wrong one (RFC 9207).
    query = urlencode({**{name: value for name, value in parameters.items() if value}, "iss": desk.browsers.site.url(request)})
    return RedirectResponse(f"{redirect_uri}?{query}", 303)


def _login(
    request: Request, desk: Desk, visitor: Visitor, following: str, *, problem: str = "", email: str = "", status: int = 200
) -> Response:
    offered = desk.github.url is not None
    answer = pages.login(csrf=visitor.csrf, following=following, problem=problem, email=email, github=offered, status=status)
    return desk.browsers.remember(request, visitor, answer)


def _to_login(desk: Desk, request: Request, following: str) -> Response:
    return _go(desk, request, f"/login?{urlencode({'next': following})}")


def _go(desk: Desk, request: Request, path: str) -> Response:
    return RedirectResponse(f"{desk.browsers.site.url(request)}{path}", 303)
