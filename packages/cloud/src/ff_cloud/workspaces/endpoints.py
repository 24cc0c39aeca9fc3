"""Workspaces over HTTP, and running commands in them."""

from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack, aclosing
from typing import Annotated, cast
from uuid import UUID

from fastapi import APIRouter, Depends, Query, Request, Response
from fastapi.responses import StreamingResponse

from ff_cloud.kit.caller import Caller, caller
from ff_cloud.kit.http import Db
from ff_cloud.kit.idempotency import Answer, IdempotencyKey, fingerprint_of, once
from ff_cloud.kit.streaming import Stream
from ff_cloud.operations.endpoints import view_of
from ff_cloud.operations.repository import OperationRepository
from ff_cloud.vms.access import Target
from ff_cloud.workspaces.awake import Awake
from ff_cloud.workspaces.claims import Claims
from ff_cloud.workspaces.errors import CursorInvalid
from ff_cloud.workspaces.orders import Orders
from ff_cloud.workspaces.service import Found, WorkspaceService
from ff_core.contract.account import Scope
from ff_core.contract.base import dump
from ff_core.contract.daemon import Repository
from ff_core.contract.execution import MEDIA_TYPE, ExecError, ExecFrame, ExecNotice, ExecRequest
from ff_core.contract.operation import OperationView
from ff_core.contract.page import PAGE_ITEMS_DEFAULT, PAGE_ITEMS_MAX, Page
from ff_core.contract.problem import code_of
from ff_core.contract.workspace import NewWorkspace, WorkspaceView
from ff_core.errors import FFError, NotFound
from ff_core.ids import UserId, WorkspaceId

router = APIRouter(prefix="/v1/workspaces", tags=["workspaces"])

Reader = Annotated[Caller, Depends(caller(Scope.WORKSPACES_READ))]
Writer = Annotated[Caller, Depends(caller(Scope.WORKSPACES_WRITE))]


async def _service(request: Request) -> WorkspaceService:
    return cast(WorkspaceService, request.app.state.workspaces)


async def _claims(request: Request) -> Claims:
    return cast(Claims, request.app.state.claims)


async def _awake(request: Request) -> Awake:
    return cast(Awake, request.app.state.awake)


async def _orders(request: Request) -> Orders:
    return cast(Orders, request.app.state.orders)


Workspaces = Annotated[WorkspaceService, Depends(_service)]
TheClaims = Annotated[Claims, Depends(_claims)]
TheAwake = Annotated[Awake, Depends(_awake)]
TheOrders = Annotated[Orders, Depends(_orders)]


@router.post("", status_code=201)
async def create(
    wanted: NewWorkspace,
    request: Request,
    response: Response,
    who: Writer,
    db: Db,
    workspaces: Workspaces,
    claims: TheClaims,
    key: IdempotencyKey,
) -> WorkspaceView:
    """Order a workspace. It answers at once with PROVISIONING; follow the operation or the events to READY or FAILED.

    Commands can be run in it from now on, in the home folder until its repository is there.
    """
    ordered: Found | None = None

    async def make() -> Answer:
        nonlocal ordered
        ordered = await workspaces.order(tx, wanted)
        return Answer(201, dump(ordered.view()))

    fingerprint = await fingerprint_of(request, request.app.state.secrets.fingerprint_key) if key is not None else ""
    async with db.transaction(who.user_id) as tx:
        answer = await once(tx, key, fingerprint, make)
    if ordered is None:  # a repeated request: it was settled when it was new
        view = WorkspaceView.model_validate(answer.body)
    else:
        view = ordered.view(await claims.settle(who.user_id, ordered))
    response.headers["Location"] = f"/v1/workspaces/{view.id}"
    return view


@router.get("")
async def page(
    who: Reader,
    db: Db,
    workspaces: Workspaces,
    cursor: Annotated[str | None, Query(max_length=100)] = None,
    limit: Annotated[int, Query(ge=1, le=PAGE_ITEMS_MAX)] = PAGE_ITEMS_DEFAULT,
    name: Annotated[str | None, Query(max_length=100)] = None,
) -> Page[WorkspaceView]:
    """Your workspaces, newest first; ``name`` finds the one of exactly that name."""
    async with db.transaction(who.user_id) as tx:
        items = await workspaces.page(tx, before=_before(cursor), name=name, items_max=limit + 1)
    more = len(items) > limit
    return Page(items=tuple(items[:limit]), next_cursor=str(items[limit - 1].id) if more else None)


@router.get("/{workspace_id}")
async def get(workspace_id: WorkspaceId, who: Reader, db: Db, workspaces: Workspaces) -> WorkspaceView:
    """One of your workspaces."""
    async with db.transaction(who.user_id) as tx:
        return await workspaces.get(tx, workspace_id)


@router.delete("/{workspace_id}", status_code=202)
async def delete(workspace_id: WorkspaceId, who: Writer, db: Db, workspaces: Workspaces) -> OperationView:
    """Delete a workspace in whatever state it is, with its container, volume and history. It is gone when it answers 404.

    Something else that is being done with it is undone first, and is what this names then: repeat it for the deletion itself.
    """
    async with db.transaction(who.user_id) as tx:
        operation = await OperationRepository(tx).get(await workspaces.delete(tx, workspace_id))
    if operation is None:
        raise NotFound
    return view_of(operation)


@router.get("/{workspace_id}/repository")
async def repository(workspace_id: WorkspaceId, who: Reader, awake: TheAwake) -> Repository:
    """Branch, head and counts of changes of the checkout, as they are now."""
    return await awake.call(who.user_id, workspace_id, lambda daemon: daemon.repository())


@router.post("/{workspace_id}/suspend", status_code=202)
async def suspend(
    workspace_id: WorkspaceId,
    who: Writer,
    db: Db,
    workspaces: Workspaces,
    orders: TheOrders,
    force: Annotated[bool, Query(description="Interrupt what goes on in it.")] = False,
) -> OperationView:
    """Put the workspace to sleep now, if nothing goes on in it. Any command or prompt wakes it. May be repeated."""
    async with db.transaction(who.user_id) as tx:
        await workspaces.look_ready(tx, workspace_id)
        operation_id = await orders.suspend(tx, workspace_id, who.user_id, idle_s=0.0, force=force)
        operation = await OperationRepository(tx).get(operation_id)
    if operation is None:
        raise NotFound
    return view_of(operation)


@router.post("/{workspace_id}/exec", response_class=StreamingResponse, responses={200: {"content": {MEDIA_TYPE: {}}}})
async def execute(workspace_id: WorkspaceId, wanted: ExecRequest, who: Writer, awake: TheAwake) -> Stream:
    """Run a command in the workspace and stream what it writes as JSON lines; the last says how it ended.

    A workspace that sleeps wakes up for it, and one that is on its way is waited for; lines of the kind ``notice`` say so
    meanwhile. Going away ends the command.
    """
    found = await awake.look(who.user_id, workspace_id, ready=False)
    target = found.target
    if target is None:
        return Stream(_awaited(awake, who.user_id, workspace_id, wanted), MEDIA_TYPE)
    return Stream(_output(awake, who.user_id, target, wanted), MEDIA_TYPE)


async def _awaited(awake: Awake, user_id: UserId, workspace_id: WorkspaceId, wanted: ExecRequest) -> AsyncGenerator[bytes, None]:
    """What is waited for, and then the command. The answer has begun, so an error is its last line."""
    yield b""
    try:
        async with aclosing(awake.waiting(user_id, workspace_id)) as steps:
            async for step in steps:
                if isinstance(step, str):
                    yield _line(ExecNotice(message=step))
                    continue
                async with aclosing(_output(awake, user_id, step, wanted)) as output:
                    async for piece in output:
                        yield piece
    except FFError as error:
        yield _line(ExecError(code=code_of(error), message=error.detail))


async def _output(awake: Awake, user_id: UserId, target: Target, wanted: ExecRequest) -> AsyncGenerator[bytes, None]:
    """One frame a line. The first piece is empty: the command runs, and no refusal will come any more."""
    async with AsyncExitStack() as running:
        frames = await awake.ask(user_id, target, lambda daemon: running.enter_async_context(daemon.execute(wanted)))
        yield b""
        try:
            async for frame in frames:
                yield _line(frame)
        except FFError as error:
            yield _line(ExecError(code=code_of(error), message=error.detail))


def _line(frame: ExecFrame) -> bytes:
    return frame.model_dump_json().encode() + b"\n"


def _before(cursor: str | None) -> WorkspaceId | None:
    if cursor is None:
        return None
    try:
        return WorkspaceId(UUID(cursor))
    except ValueError as error:
        raise CursorInvalid from error
