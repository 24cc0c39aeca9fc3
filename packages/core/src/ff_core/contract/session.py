"""Sessions: one conversation with an agent in a workspace. Names are those of DOMAIN.md."""

from datetime import datetime
from enum import StrEnum
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from ff_core.contract.base import ErrorView, Json, Label, Request, View
from ff_core.ids import MessageId, RequestId, SessionId, WorkspaceId

PROMPT_CHARS_MAX = 200_000
SESSIONS_MAX = 5
"""IDLE and RUNNING sessions of one workspace (DOMAIN.md, section 2)."""
QUEUED_MAX = 100
"""Prompts that may wait in one session (DOMAIN.md, section 4)."""

WORKFLOW = "followup"
WORKFLOW_PATTERN = r"^[a-z][a-z0-9-]{0,49}$"


class SessionStatus(StrEnum):
    """IDLE: no agent process. RUNNING: the agent process lives. COMPLETED / FAILED: it ended by itself; resumable."""

    IDLE = "IDLE"
    RUNNING = "RUNNING"
    COMPLETED = "COMPLETED"
    FAILED = "FAILED"


class Activity(StrEnum):
    """What the agent does now. WAITING: for the user, on a permission or a question."""

    WORKING = "WORKING"
    WAITING = "WAITING"
    IDLE = "IDLE"


class PermissionPreset(StrEnum):
    """STRICT asks the user, RELAXED also allows edits in the workspace by itself, YOLO allows everything.

    Questions to the user and plan approval are never answered automatically (DOMAIN.md, section 4).
    """

    STRICT = "STRICT"
    RELAXED = "RELAXED"
    YOLO = "YOLO"


class NewSession(Request):
    """Ask for a conversation. With an ``id`` the request may be repeated."""

    id: SessionId | None = None
    name: Label | None = None
    model: Annotated[str, Field(min_length=1, max_length=100, pattern=r"^[A-Za-z0-9][A-Za-z0-9._:\[\]@-]*$")] | None = None
    """Name or alias of the model, as the agent knows it; its default when absent."""
    permissions: PermissionPreset = PermissionPreset.STRICT
    workflow: Annotated[str, Field(pattern=WORKFLOW_PATTERN)] = WORKFLOW
    """What the conversation is for (DOMAIN.md, section 1); ``ratchet`` is a fixer's."""


class Option(View):
    """One answer the agent offers."""

    label: str
    description: str = ""


class Question(View):
    """One thing the agent asks the user."""

    question: str
    header: str = ""
    multi_select: bool = False
    options: tuple[Option, ...] = ()


class PendingRequest(View):
    """A permission or a question that waits for the user."""

    id: RequestId
    kind: Literal["permission", "question"]
    tool_name: str
    input: Json
    questions: tuple[Question, ...] = ()
    asked_at: datetime


class SessionView(View):
    """A session as it stands."""

    id: SessionId
    workspace_id: WorkspaceId
    name: str
    model: str | None
    permissions: PermissionPreset
    workflow: str = WORKFLOW
    status: SessionStatus
    activity: Activity
    provider_session_id: str | None
    """Claude's own id of the conversation; null until the agent first started."""
    queued: int
    """Prompts accepted and not yet given to the agent."""
    pending: tuple[PendingRequest, ...]
    error: ErrorView | None
    created_at: datetime
    updated_at: datetime


class NewMessage(Request):
    """A prompt. With an ``id`` the request may be repeated: the prompt is taken once."""

    id: MessageId | None = None
    text: Annotated[str, Field(min_length=1, max_length=PROMPT_CHARS_MAX)]

    @model_validator(mode="after")
    def _not_blank(self) -> Self:
        if not self.text.strip():
            msg = "a prompt needs at least one visible character"
            raise ValueError(msg)
        return self


class MessageState(StrEnum):
    """QUEUED: durable, waits for the agent. SENT: the agent has it. DONE: its turn ended. CANCELLED: dropped by a stop."""

    QUEUED = "QUEUED"
    SENT = "SENT"
    DONE = "DONE"
    CANCELLED = "CANCELLED"


class MessageView(View):
    """A prompt as it stands."""

    id: MessageId
    session_id: SessionId
    text: str
    state: MessageState
    created_at: datetime


class Interrupt(Request):
    """Stop the running turn. Queued prompts are cancelled too, unless they are to be kept."""

    keep_queued: bool = False


class Interrupted(View):
    """What an interrupt did. ``was_working`` is false when there was no turn to stop."""

    was_working: bool
    cancelled: int


class Answer(Request):
    """The user's answer to a permission request (``decision``) or a question (``answers``, or free text in ``message``)."""

    decision: Literal["allow", "allow_always", "deny"] | None = None
    """``allow_always``: this and like calls for the rest of the session."""
    answers: Annotated[dict[str, Annotated[str, Field(max_length=10_000)]], Field(max_length=20)] | None = None
    """Question text to chosen label (several labels joined by ", ")."""
    message: Annotated[str, Field(max_length=10_000)] | None = None
    """With ``deny``: the reason the agent is told. For a question: an answer in the user's own words."""

    @model_validator(mode="after")
    def _something(self) -> Self:
        if self.decision is None and not self.answers and not self.message:
            msg = "say a decision (allow, allow_always, deny), answers, or a message"
            raise ValueError(msg)
        return self
