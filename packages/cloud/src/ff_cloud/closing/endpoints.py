"""HTTP of the end of an account."""

from typing import Annotated, cast

from fastapi import APIRouter, Depends, Request

from ff_cloud.closing.service import Closing
from ff_cloud.kit.caller import Caller, caller
from ff_cloud.kit.origin import TheOrigin
from ff_core.contract.recovery import AcceptedView, CloseAccount

router = APIRouter(prefix="/v1", tags=["accounts"])


@router.delete("/me", status_code=202)
async def close(
    body: CloseAccount, request: Request, who: Annotated[Caller, Depends(caller())], origin: TheOrigin
) -> AcceptedView:
    """Delete your account with everything that belongs to it. It can't be undone; all your credentials are refused at once."""
    await cast(Closing, request.app.state.closing).order(who, body, origin)
    return AcceptedView(message="The account is being deleted with its workspaces and data; then its e-mail is free again.")
