"""HTTP of verification, forgotten passwords, and changes of password and e-mail."""

from typing import Annotated, cast

from fastapi import APIRouter, Depends, Request

from ff_cloud.auth.recovery import Asking, Recovery
from ff_cloud.kit.caller import Caller, caller
from ff_cloud.kit.origin import TheOrigin
from ff_core.contract.recovery import AcceptedView, AskByMail, ChangeEmail, ChangePassword, ConfirmMail, EmailView, ResetPassword

router = APIRouter(prefix="/v1", tags=["accounts"])

_IF_ANY = "If this e-mail has an account, a letter is on its way to it."


async def _recovery(request: Request) -> Recovery:
    return cast(Recovery, request.app.state.recovery)


async def _asking(request: Request, origin: TheOrigin) -> Asking:
    return Asking(origin, base_url_of(request))


TheRecovery = Annotated[Recovery, Depends(_recovery)]
TheAsking = Annotated[Asking, Depends(_asking)]
AnyCaller = Annotated[Caller, Depends(caller())]


def base_url_of(request: Request) -> str:
    """Where links in mails lead: ``FF_PUBLIC_URL``, else the socket the request came to.

    Never what the request says of itself: a stranger could have links mailed that lead to a host of his.
    """
    public: str | None = request.app.state.public_url
    if public is not None:
        return public.rstrip("/")
    host, port = request.scope.get("server") or ("127.0.0.1", None)
    return f"{request.scope['scheme']}://{f'[{host}]' if ':' in host else host}{f':{port}' if port else ''}"


@router.post("/auth/verify/request", status_code=202)
async def ask_verification(body: AskByMail, recovery: TheRecovery, asking: TheAsking) -> AcceptedView:
    """Have the link that confirms an e-mail mailed once more. The answer does not tell whether there is such an account."""
    await recovery.ask_verification(body.email, asking)
    return AcceptedView(message=_IF_ANY)


@router.post("/auth/verify")
async def confirm(body: ConfirmMail, recovery: TheRecovery, origin: TheOrigin) -> EmailView:
    """Confirm an e-mail with the token of a mailed link, after a sign-up or a change of e-mail."""
    return EmailView(email=await recovery.confirm(body.token.get_secret_value(), origin))


@router.post("/auth/forgot", status_code=202)
async def forgot(body: AskByMail, recovery: TheRecovery, asking: TheAsking) -> AcceptedView:
    """Have a link mailed that sets a new password, good for 15 minutes. The answer is the same without an account."""
    await recovery.forgot(body.email, asking)
    return AcceptedView(message=_IF_ANY)


@router.post("/auth/reset", status_code=204)
async def reset(body: ResetPassword, recovery: TheRecovery, origin: TheOrigin) -> None:
    """Set a new password with the token of a mailed link. It ends all sessions; log in afterwards."""
    await recovery.reset(body, origin)


@router.post("/me/password", status_code=204)
async def change_password(body: ChangePassword, recovery: TheRecovery, who: AnyCaller, origin: TheOrigin) -> None:
    """Change your password. All other sessions end."""
    await recovery.change_password(who, body, origin)


@router.post("/me/email", status_code=202)
async def change_email(body: ChangeEmail, recovery: TheRecovery, who: AnyCaller, asking: TheAsking) -> AcceptedView:
    """Change your e-mail. It counts when the link that is mailed to the new one was opened."""
    await recovery.ask_change_of_email(who, body, asking)
    return AcceptedView(message="Open the link in the letter to the new address; until then the old one counts.")
