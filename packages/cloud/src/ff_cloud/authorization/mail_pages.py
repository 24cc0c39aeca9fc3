"""Where links in mails lead. Opening a page changes nothing, since programs that look into mail open links too; its button does.

No cookie counts here: the token in the form, which only the letter had, is the whole proof, so there is nothing to forge.
"""

from html import escape

from fastapi import APIRouter, Request
from fastapi.responses import HTMLResponse
from pydantic import SecretStr, ValidationError

from ff_cloud.auth.recovery_endpoints import TheRecovery
from ff_cloud.authorization.forms import form_of, query_of
from ff_cloud.authorization.pages import message, page
from ff_cloud.kit.origin import TheOrigin
from ff_core.contract.account import PASSWORD_CHARS_MIN
from ff_core.contract.recovery import ConfirmMail, ResetPassword
from ff_core.errors import FFError

router = APIRouter(include_in_schema=False)

_TOO_SHORT = f"A password needs at least {PASSWORD_CHARS_MIN} characters, and at most 1024."


@router.get("/verify")
async def verify_page(request: Request) -> HTMLResponse:
    """A button that confirms the e-mail."""
    form = f'<form method="post" action="verify">{_hidden(query_of(request).get("token", ""))}'
    return page("Confirm your e-mail", f'{form}<button class="main">Confirm</button></form>')


@router.post("/verify")
async def verify(request: Request, recovery: TheRecovery, origin: TheOrigin) -> HTMLResponse:
    """Confirm it."""
    form = await form_of(request)
    try:
        email = await recovery.confirm(ConfirmMail(token=SecretStr(form.get("token", ""))).token.get_secret_value(), origin)
    except ValidationError:
        return message("That did not work", "This link is not whole; copy it again.", status=422)
    except FFError as error:
        return message("That did not work", error.detail, status=error.status)
    return message("Your e-mail is confirmed", f"{email} is confirmed. You can close this page.")


@router.get("/reset")
async def reset_page(request: Request) -> HTMLResponse:
    """A form for a new password."""
    return _reset_form(query_of(request).get("token", ""))


@router.post("/reset")
async def reset(request: Request, recovery: TheRecovery, origin: TheOrigin) -> HTMLResponse:
    """Set it."""
    form = await form_of(request)
    token = form.get("token", "")
    try:
        await recovery.reset(ResetPassword(token=SecretStr(token), password=SecretStr(form.get("password", ""))), origin)
    except ValidationError:
        return _reset_form(token, _TOO_SHORT, status=422)
    except FFError as error:
        return _reset_form(token, error.detail, status=error.status)
    return message("Your password is changed", "All sessions were ended. Log in with the new password.")


def _reset_form(token: str, problem: str = "", *, status: int = 200) -> HTMLResponse:
    alert = f'<p class="problem" role="alert">{escape(problem)}</p>' if problem else ""
    body = (
        f'{alert}<form method="post" action="reset">{_hidden(token)}'
        '<label for="password">New password</label>'
        '<input id="password" name="password" type="password" autocomplete="new-password" required '
        f'minlength="{PASSWORD_CHARS_MIN}">'
        f"<p>At least {PASSWORD_CHARS_MIN} characters; several words are best.</p>"
        '<button class="main">Set password</button></form>'
    )
    return page("Set a new password", body, status=status)


def _hidden(token: str) -> str:
    return f'<input type="hidden" name="token" value="{escape(token)}">'
