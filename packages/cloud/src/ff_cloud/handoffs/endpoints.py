"""Handoffs over HTTP; :mod:`ff_core.contract.handoff` has the addresses."""

import re
from collections.abc import AsyncGenerator
from typing import Annotated, cast
from uuid import UUID

from fastapi import APIRouter, Depends, Query, Request
from fastapi.responses import StreamingResponse
from starlette.requests import ClientDisconnect

from ff_cloud.handoffs.desk import Desk
from ff_cloud.handoffs.errors import PieceUnfit
from ff_cloud.kit.caller import Caller, caller
from ff_cloud.kit.http import Db
from ff_cloud.kit.http_middleware import LargeBody
from ff_cloud.kit.origin import TheOrigin
from ff_cloud.kit.streaming import Stream
from ff_cloud.workspaces.errors import CursorInvalid
from ff_cloud.workspaces.service import WorkspaceService
from ff_core.contract.account import Scope
from ff_core.contract.handoff import (
    BUNDLE_BYTES_MAX,
    MEDIA_TYPE,
    PIECE_BYTES_MAX,
    Announced,
    CommitHandoff,
    HandoffView,
    NewHandoff,
    Takeover,
)
from ff_core.contract.page import PAGE_ITEMS_DEFAULT, PAGE_ITEMS_MAX, Page
from ff_core.contract.workspace import WorkspaceView
from ff_core.ids import HandoffId, WorkspaceId

router = APIRouter(prefix="/v1", tags=["handoffs"])

Reader = Annotated[Caller, Depends(caller(Scope.WORKSPACES_READ))]
Writer = Annotated[Caller, Depends(caller(Scope.WORKSPACES_WRITE))]
Offset = Annotated[int, Query(ge=0, le=BUNDLE_BYTES_MAX, description="Where in the bundle, in bytes.")]
LARGE = (
    LargeBody("PUT", re.compile(r"/v1/handoffs/[0-9a-fA-F-]{32,36}/bundle"), PIECE_BYTES_MAX),
    LargeBody("POST", re.compile(r"/v1/handoffs(/[0-9a-fA-F-]{32,36}/bundle)?"), 4 << 20),
)
"""The requests with large bodies: a piece of a bundle, and what is told of all that stays behind."""
_BYTES = {"schema": {"type": "string", "format": "binary"}}
_BUNDLE = {"content": {MEDIA_TYPE: _BYTES}}
_PIECE = {"content": {MEDIA_TYPE: _BYTES, "application/octet-stream": _BYTES}, "required": True}


async def _desk(request: Request) -> Desk:
    return cast(Desk, request.app.state.handoff_desk)


async def _workspaces(request: Request) -> WorkspaceService:
    return cast(WorkspaceService, request.app.state.workspaces)


TheDesk = Annotated[Desk, Depends(_desk)]
Workspaces = Annotated[WorkspaceService, Depends(_workspaces)]


@router.post("/handoffs", status_code=201)
async def begin(new: NewHandoff, who: Writer, desk: TheDesk, origin: TheOrigin) -> HandoffView:
    """Begin to move a workspace to this server, and upload its bundle then, or to a desktop. May be repeated with its id."""
    return (await desk.begin(who.user_id, new, origin)).view()


@router.get("/handoffs")
async def page(
    who: Reader,
    desk: TheDesk,
    cursor: Annotated[str | None, Query(max_length=100)] = None,
    limit: Annotated[int, Query(ge=1, le=PAGE_ITEMS_MAX)] = PAGE_ITEMS_DEFAULT,
    workspace_id: WorkspaceId | None = None,
    only_open: Annotated[bool, Query(alias="open")] = False,
) -> Page[HandoffView]:
    """Your handoffs, newest first; ``open``: those only that may still become something."""
    found = await desk.page(
        who.user_id, before=_before(cursor), workspace_id=workspace_id, only_open=only_open, items_max=limit + 1
    )
    more = len(found) > limit
    return Page(items=tuple(each.view() for each in found[:limit]), next_cursor=str(found[limit - 1].id) if more else None)


@router.get("/handoffs/{handoff_id}")
async def get(handoff_id: HandoffId, who: Reader, desk: TheDesk) -> HandoffView:
    """One of your handoffs as it stands."""
    return (await desk.get(who.user_id, handoff_id)).view()


@router.post("/handoffs/{handoff_id}/bundle")
async def announce(handoff_id: HandoffId, wanted: Announced, who: Writer, desk: TheDesk) -> HandoffView:
    """Say what you will upload, when you have packed it. May be repeated; what was uploaded of another bundle is forgotten."""
    return (await desk.announce(who.user_id, handoff_id, wanted)).view()


@router.put("/handoffs/{handoff_id}/bundle", openapi_extra={"requestBody": _PIECE})
async def upload(handoff_id: HandoffId, offset: Offset, request: Request, who: Writer, desk: TheDesk) -> HandoffView:
    """The next piece of the bundle, at most 16 MiB, as it is. What arrived before is not taken twice."""
    try:
        return (await desk.take(who.user_id, handoff_id, offset, request.stream())).view()
    except ClientDisconnect as error:
        raise PieceUnfit("The connection broke before the piece was there; send it again.") from error


@router.get("/handoffs/{handoff_id}/bundle", response_class=StreamingResponse, responses={200: cast(dict[str, object], _BUNDLE)})
async def download(handoff_id: HandoffId, who: Writer, desk: TheDesk, offset: Offset = 0) -> Stream:
    """The bundle from ``offset`` to its end. It is whole when it has the size and the hash that the handoff says."""
    content: AsyncGenerator[bytes, None] = desk.content(who.user_id, handoff_id, offset)
    return Stream(content, MEDIA_TYPE)


@router.post("/handoffs/{handoff_id}/commit")
async def commit(handoff_id: HandoffId, wanted: CommitHandoff, who: Writer, desk: TheDesk, origin: TheOrigin) -> HandoffView:
    """Move the workspace now. It lives there from this answer on; ask again if you did not get one."""
    return (await desk.commit(who.user_id, handoff_id, wanted.arrived, origin)).view()


@router.post("/handoffs/{handoff_id}/abort")
async def abort(handoff_id: HandoffId, who: Writer, desk: TheDesk, origin: TheOrigin) -> HandoffView:
    """Leave the workspace where it is. Possible until the handoff is committed; may be repeated."""
    return (await desk.abort(who.user_id, handoff_id, origin)).view()


@router.post("/workspaces/{workspace_id}/takeover", tags=["workspaces"])
async def take_over(
    workspace_id: WorkspaceId, wanted: Takeover, who: Writer, db: Db, desk: TheDesk, workspaces: Workspaces, origin: TheOrigin
) -> WorkspaceView:
    """Say that a desktop took its copy of the workspace back by force. What is here of it is stopped, and kept for a week."""
    await desk.take_over(who.user_id, workspace_id, wanted, origin)
    async with db.transaction(who.user_id) as tx:
        return await workspaces.get(tx, workspace_id)


def _before(cursor: str | None) -> HandoffId | None:
    if cursor is None:
        return None
    try:
        return HandoffId(UUID(cursor))
    except ValueError as error:
        raise CursorInvalid from error
