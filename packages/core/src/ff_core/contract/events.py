"""The closed set of things that happen in a workspace.

Readers match on ``kind`` and end with ``assert_never``: a new kind fails type checking until everybody handles it.
A reader older than the writer sees an :class:`Unknown`. Texts are bounded by the writer (``TEXT_CHARS_MAX``).
"""

from datetime import datetime
from typing import Annotated, Any, Literal

from pydantic import BaseModel, Discriminator, Field, Tag, TypeAdapter

from ff_core.contract.base import LATER, Channel, ErrorView, Json, View
from ff_core.contract.checkpoint import LeftOut
from ff_core.contract.places import Direction, Location
from ff_core.contract.session import Activity, PermissionPreset, Question, SessionStatus
from ff_core.contract.workspace import WorkspaceStatus
from ff_core.ids import HandoffId, MessageId, RequestId, SessionId, WorkspaceId

TEXT_CHARS_MAX = 256_000
"""Longest text of one event; what is longer is cut and marked ``truncated``."""


class SessionStarted(View):
    """A conversation was opened in the workspace."""

    kind: Literal["session.started"] = "session.started"
    name: str
    model: str | None
    permissions: PermissionPreset


class SessionChanged(View):
    """The session's process or activity changed. ``error`` says why it failed and what to do."""

    kind: Literal["session.status"] = "session.status"
    status: SessionStatus
    activity: Activity
    resumed: bool = False
    error: ErrorView | None = None


class MessageQueued(View):
    """A prompt was accepted and is durable."""

    kind: Literal["message.queued"] = "message.queued"
    message_id: MessageId
    text: str


class MessageUser(View):
    """A prompt was given to the agent."""

    kind: Literal["message.user"] = "message.user"
    message_id: MessageId
    text: str


class MessageCancelled(View):
    """A queued prompt was dropped by a stop; its text is here so that it is not lost."""

    kind: Literal["message.cancelled"] = "message.cancelled"
    message_id: MessageId
    text: str


class MessageDelta(View):
    """A piece of what the agent is writing: a hint without ``seq``, not stored.

    ``reset``: what was hinted since the last stored event is void (the model's reply starts again).
    """

    kind: Literal["message.delta"] = "message.delta"
    text: str
    thinking: bool = False
    reset: bool = False


class MessageAssistant(View):
    """The agent said something."""

    kind: Literal["message.assistant"] = "message.assistant"
    text: str
    truncated: bool = False
    parent_tool_use_id: str | None = None
    """Set when a subagent said it."""


class Thinking(View):
    """The agent thought aloud."""

    kind: Literal["thinking"] = "thinking"
    text: str
    truncated: bool = False


class ToolStarted(View):
    """The agent called a tool. Long inputs are cut (``truncated``)."""

    kind: Literal["tool.started"] = "tool.started"
    tool_use_id: str
    name: str
    input: Json
    truncated: bool = False
    parent_tool_use_id: str | None = None


class ToolFinished(View):
    """A tool answered."""

    kind: Literal["tool.finished"] = "tool.finished"
    tool_use_id: str
    output: str
    is_error: bool
    truncated: bool = False


class PermissionRequested(View):
    """The agent wants to do something that needs the user's yes."""

    kind: Literal["permission.requested"] = "permission.requested"
    request_id: RequestId
    tool_name: str
    input: Json
    title: str = ""


class PermissionResolved(View):
    """The permission was given or refused, or is void (the turn ended, the agent died)."""

    kind: Literal["permission.resolved"] = "permission.resolved"
    request_id: RequestId
    decision: Literal["allow", "allow_always", "deny", "cancelled"]
    message: str | None = None


class QuestionAsked(View):
    """The agent asks the user."""

    kind: Literal["question.asked"] = "question.asked"
    request_id: RequestId
    questions: tuple[Question, ...]


class QuestionAnswered(View):
    """The user answered, or the question is void."""

    kind: Literal["question.answered"] = "question.answered"
    request_id: RequestId
    answers: dict[str, str]
    message: str | None = None
    cancelled: bool = False


class ModelRetrying(View):
    """The model API refused or failed and the agent tries again by itself."""

    kind: Literal["model.retrying"] = "model.retrying"
    attempt: int
    attempts_max: int
    delay_ms: int
    http_status: int | None
    message: str
    """A plain sentence for the user."""


class Usage(View):
    """Tokens of a turn."""

    input_tokens: int = 0
    output_tokens: int = 0
    cache_read_tokens: int = 0
    cache_write_tokens: int = 0


class TurnFinished(View):
    """The agent rests. ``message_ids`` are the prompts this turn answered (may be none: a background task's own turn)."""

    kind: Literal["turn.finished"] = "turn.finished"
    message_ids: tuple[MessageId, ...]
    outcome: Literal["done", "interrupted", "failed"]
    stop_reason: str | None = None
    cost_usd: float | None = None
    usage: Usage = Field(default_factory=Usage)
    duration_ms: int = 0
    error: ErrorView | None = None


class WorkspaceChanged(View):
    """The workspace moved to another state."""

    kind: Literal["workspace.status"] = "workspace.status"
    status: WorkspaceStatus
    error: ErrorView | None = None


class WorkspaceRestored(View):
    """The machine was lost with its disk, and the workspace put back as it was when it was last saved."""

    kind: Literal["workspace.restored"] = "workspace.restored"
    checkpoint: int
    saved_at: datetime
    saved_seq: int
    """The newest event of that time."""
    lost_events: int
    """Events after ``saved_seq`` and before this one: what they tell of files is gone."""
    left_out: tuple[LeftOut, ...] = ()
    """What was in the workspace and is not saved; the first of ``left_out_count``."""
    left_out_count: int = 0


class HandoffStarted(View):
    """The workspace is about to move: it is frozen, reading works, nothing new runs."""

    kind: Literal["handoff.started"] = "handoff.started"
    handoff_id: HandoffId
    direction: Direction


class HandoffAborted(View):
    """It stays where it was, and work goes on."""

    kind: Literal["handoff.aborted"] = "handoff.aborted"
    handoff_id: HandoffId
    direction: Direction
    reason: str


class HandoffArrived(View):
    """The workspace lives here now; the first event after a move."""

    kind: Literal["handoff.arrived"] = "handoff.arrived"
    handoff_id: HandoffId
    direction: Direction
    location: Location
    epoch: int
    place: str
    """Where that is, for people: the folder, or the server's word for itself."""


class ProcessOutput(View):
    """Output of a program run for the workspace itself (clone, set-up script), in pieces."""

    kind: Literal["process.output"] = "process.output"
    process: str
    channel: Channel
    text: str


class Notice(View):
    """Something the agent reported that has no kind of its own (compaction, model fallback); kept, never dropped in silence."""

    kind: Literal["notice"] = "notice"
    name: str
    message: str


class Unknown(BaseModel):
    """An event of a kind this reader does not know yet."""

    model_config = {"frozen": True, "extra": "allow", "defer_build": True}
    kind: str


def _tag(value: Any) -> str:
    kind = value.get("kind") if isinstance(value, dict) else getattr(value, "kind", None)
    return kind if kind in KINDS else "unknown"


EventBody = Annotated[
    Annotated[SessionStarted, Tag("session.started")]
    | Annotated[SessionChanged, Tag("session.status")]
    | Annotated[MessageQueued, Tag("message.queued")]
    | Annotated[MessageUser, Tag("message.user")]
    | Annotated[MessageCancelled, Tag("message.cancelled")]
    | Annotated[MessageDelta, Tag("message.delta")]
    | Annotated[MessageAssistant, Tag("message.assistant")]
    | Annotated[Thinking, Tag("thinking")]
    | Annotated[ToolStarted, Tag("tool.started")]
    | Annotated[ToolFinished, Tag("tool.finished")]
    | Annotated[PermissionRequested, Tag("permission.requested")]
    | Annotated[PermissionResolved, Tag("permission.resolved")]
    | Annotated[QuestionAsked, Tag("question.asked")]
    | Annotated[QuestionAnswered, Tag("question.answered")]
    | Annotated[ModelRetrying, Tag("model.retrying")]
    | Annotated[TurnFinished, Tag("turn.finished")]
    | Annotated[WorkspaceChanged, Tag("workspace.status")]
    | Annotated[WorkspaceRestored, Tag("workspace.restored")]
    | Annotated[HandoffStarted, Tag("handoff.started")]
    | Annotated[HandoffAborted, Tag("handoff.aborted")]
    | Annotated[HandoffArrived, Tag("handoff.arrived")]
    | Annotated[ProcessOutput, Tag("process.output")]
    | Annotated[Notice, Tag("notice")]
    | Annotated[Unknown, Tag("unknown")],
    Discriminator(_tag),
]

KINDS = frozenset(
    {
        "session.started",
        "session.status",
        "message.queued",
        "message.user",
        "message.cancelled",
        "message.delta",
        "message.assistant",
        "thinking",
        "tool.started",
        "tool.finished",
        "permission.requested",
        "permission.resolved",
        "question.asked",
        "question.answered",
        "model.retrying",
        "turn.finished",
        "workspace.status",
        "workspace.restored",
        "handoff.started",
        "handoff.aborted",
        "handoff.arrived",
        "process.output",
        "notice",
    }
)


class Event(View):
    """One thing that happened. ``seq`` counts 1, 2, 3… without gap per workspace; null marks a hint that is not stored."""

    workspace_id: WorkspaceId
    seq: Annotated[int, Field(ge=1)] | None
    at: datetime
    session_id: SessionId | None = None
    body: EventBody


EVENT_BODY: TypeAdapter[EventBody] = TypeAdapter(EventBody, config=LATER)


def sse_frame(event: Event) -> bytes:
    """The event as one server-sent event. Hints carry no ``id``, so a client's cursor never points at one."""
    data = event.model_dump_json()
    head = f"id: {event.seq}\n" if event.seq is not None else ""
    return f"{head}event: {event.body.kind}\ndata: {data}\n\n".encode()
