"""Sessions over HTTP."""

from typing import Annotated, cast
from uuid import NAMESPACE_OID, UUID, uuid5

from fastapi import APIRouter, Depends, Request

from ff_cloud.kit.caller import Caller, caller
from ff_cloud.kit.idempotency import IdempotencyKey
from ff_cloud.sessions.service import SessionService
from ff_core.contract.account import Scope
from ff_core.contract.page import Page
from ff_core.contract.session import Answer, Interrupt, Interrupted, MessageView, NewMessage, NewSession, SessionView
from ff_core.ids import MessageId, RequestId, SessionId, UserId, WorkspaceId

router = APIRouter(prefix="/v1", tags=["sessions"])

Reader = Annotated[Caller, Depends(caller(Scope.WORKSPACES_READ))]
Writer = Annotated[Caller, Depends(caller(Scope.SESSIONS_WRITE))]


async def _service(request: Request) -> SessionService:
    return cast(SessionService, request.app.state.sessions)


Sessions = Annotated[SessionService, Depends(_service)]


@router.post("/workspaces/{workspace_id}/sessions", status_code=201)
async def create(
    workspace_id: WorkspaceId, wanted: NewSession, who: Writer, sessions: Sessions, key: IdempotencyKey
) -> SessionView:
    """Open a conversation with an agent in a READY workspace."""
    if wanted.id is None and key is not None:
        wanted = wanted.model_copy(update={"id": SessionId(_named_by(who.user_id, key))})
    return await sessions.create(who.user_id, workspace_id, wanted)


@router.get("/workspaces/{workspace_id}/sessions")
async def page(workspace_id: WorkspaceId, who: Reader, sessions: Sessions) -> Page[SessionView]:
    """All sessions of a workspace; there are few, so they come on one page."""
    return Page(items=tuple(await sessions.of_workspace(who.user_id, workspace_id)))


@router.get("/sessions/{session_id}")
async def get(session_id: SessionId, who: Reader, sessions: Sessions) -> SessionView:
    """One session as it stands now, with what it waits for."""
    return await sessions.get(who.user_id, session_id)


@router.post("/sessions/{session_id}/messages", status_code=202)
async def send(session_id: SessionId, message: NewMessage, who: Writer, sessions: Sessions, key: IdempotencyKey) -> MessageView:
    """Give the agent a prompt. It is durable when this answers; while a turn runs it waits in the queue."""
    if message.id is None and key is not None:
        message = message.model_copy(update={"id": MessageId(_named_by(who.user_id, key))})
    return await sessions.send(who.user_id, session_id, message)


@router.post("/sessions/{session_id}/interrupt")
async def interrupt(session_id: SessionId, wanted: Interrupt, who: Writer, sessions: Sessions) -> Interrupted:
    """Stop the running turn; harmless when there is none."""
    return await sessions.ask(who.user_id, session_id, lambda daemon: daemon.interrupt(session_id, wanted))


@router.post("/sessions/{session_id}/permissions/{request_id}")
async def answer(session_id: SessionId, request_id: RequestId, answer: Answer, who: Writer, sessions: Sessions) -> SessionView:
    """Answer a permission request or a question of the agent."""
    return await sessions.ask(who.user_id, session_id, lambda daemon: daemon.answer(session_id, request_id, answer))


def _named_by(user_id: UserId, key: str) -> UUID:
    """The id a repeated request with the same Idempotency-Key gets again; the daemon then takes it once."""
    return uuid5(uuid5(NAMESPACE_OID, str(user_id)), key)
