"""From the CLI's words to our facts. Pure: a message and what the turn has shown so far go in, facts come out."""

from dataclasses import dataclass, field
from typing import Any, Literal
from uuid import UUID

from claude_agent_sdk import (
    AssistantMessage,
    ConversationResetMessage,
    HookEventMessage,
    Message,
    RateLimitEvent,
    ResultMessage,
    ServerToolResultBlock,
    ServerToolUseBlock,
    StreamEvent,
    SystemMessage,
    TaskNotificationMessage,
    TextBlock,
    ThinkingBlock,
    ToolResultBlock,
    ToolUseBlock,
    UserMessage,
)

from ff_core.claude.errors import api_error, retrying
from ff_core.contract.events import (
    EventBody,
    MessageAssistant,
    ModelRetrying,
    Notice,
    Thinking,
    ToolFinished,
    ToolStarted,
    TurnFinished,
    Usage,
)
from ff_core.ids import MessageId
from ff_core.sessions.backend import (
    BackgroundChanged,
    ConversationMoved,
    Fact,
    Hinted,
    HintsVoid,
    Noted,
    PromptSettled,
    StateChanged,
    TurnEnded,
)
from ff_core.sessions.texts import NOTICE_CHARS_MAX, clean, cut, cut_json

QUIET = frozenset(
    {
        "status",  # "requesting": the state events say more
        "thinking_tokens",  # an estimate while it thinks
        "task_started",  # the tool call that began it says so
        "task_progress",
        "task_updated",  # task_notification says how it ended
        "hook_started",
    }
)
"""What the CLI reports besides, in so many words, without news for the user."""


@dataclass
class Turn:
    """What was seen before that matters now."""

    provider_session_id: str
    prompts: set[MessageId] = field(default_factory=set)
    """Given and not settled."""
    interrupting: bool = False
    """We asked the CLI to stop."""
    aborted: bool = False
    """A turn was aborted though we did not ask: a signal does that, and the CLI may end with success after it."""
    cost_usd: float | None = None
    """Of this CLI process so far; results carry a running total."""


def translate(message: Message, turn: Turn) -> list[Fact]:  # noqa: PLR0911  (one per kind)
    """The facts in a message. What has no kind of its own becomes a notice; nothing is dropped but :data:`QUIET`."""
    match message:
        case StreamEvent():
            return _stream(message)
        case AssistantMessage():
            return _assistant(message)
        case UserMessage():
            return _user(message, turn)
        case ResultMessage():
            return [*_moved(message.session_id, turn), TurnEnded(_result(message, turn))]
        case HookEventMessage():
            return [] if message.subtype in QUIET else [_notice(message.subtype, message.hook_event_name)]
        case TaskNotificationMessage():
            return [_notice("task_notification", f"{message.status}: {message.summary}")]
        case SystemMessage():
            return _system(message.subtype, message.data, turn)
        case RateLimitEvent():
            return [_notice("rate_limit", message.rate_limit_info.status)]
        case ConversationResetMessage():
            return [_notice("conversation_reset", "The conversation was cleared; the agent starts afresh.")]


def _stream(message: StreamEvent) -> list[Fact]:
    if message.parent_tool_use_id is not None:
        return []  # a hint can't say that a subagent writes; its finished texts come all the same
    match message.event:
        case {"type": "message_start"}:
            return [HintsVoid()]
        case {"type": "content_block_delta", "delta": {"type": "text_delta", "text": str(text)}}:
            return [Hinted(text)]
        case {"type": "content_block_delta", "delta": {"type": "thinking_delta", "thinking": str(text)}}:
            return [Hinted(text, thinking=True)]
        case _:
            return []


def _assistant(message: AssistantMessage) -> list[Fact]:
    if message.error is not None:
        return []  # the text of an API error; the result has it too, with its status
    return [Noted(body) for block in message.content if (body := _block(block, message.parent_tool_use_id)) is not None]


def _block(block: Any, parent: str | None) -> EventBody | None:
    match block:
        case TextBlock():
            text, truncated = cut(block.text)
            said = MessageAssistant(text=text, truncated=truncated, parent_tool_use_id=parent)
            return said if text else None
        case ThinkingBlock():
            text, truncated = cut(block.thinking)
            return Thinking(text=text, truncated=truncated) if text else None
        case ToolUseBlock() | ServerToolUseBlock():
            given, truncated = cut_json(block.input)
            return ToolStarted(
                tool_use_id=block.id, name=clean(block.name), input=given, truncated=truncated, parent_tool_use_id=parent
            )
        case ToolResultBlock() | ServerToolResultBlock():
            return _tool_result(block)
        case _:
            return Notice(name=type(block).__name__, message=cut(str(block), NOTICE_CHARS_MAX)[0])


def _tool_result(block: ToolResultBlock | ServerToolResultBlock) -> ToolFinished:
    output, truncated = cut(_flat(block.content))
    failed = isinstance(block, ToolResultBlock) and bool(block.is_error)
    return ToolFinished(tool_use_id=block.tool_use_id, output=output, is_error=failed, truncated=truncated)


def _flat(content: Any) -> str:
    if isinstance(content, str):
        return content
    parts = content if isinstance(content, list) else [content] if content else []
    return "\n".join(
        str(part.get("text", f"[{part.get('type', 'content')}]")) if isinstance(part, dict) else str(part) for part in parts
    )


def _user(message: UserMessage, turn: Turn) -> list[Fact]:
    if _message_id(message.uuid) in turn.prompts:
        return []  # our own prompt, taken
    if isinstance(message.content, str):
        return [_notice("user", message.content)]
    facts: list[Fact] = []
    for block in message.content:
        if isinstance(block, TextBlock) and block.text.startswith("[Request interrupted"):
            continue  # the turn's end says so
        body = _notice("user", block.text).body if isinstance(block, TextBlock) else _block(block, message.parent_tool_use_id)
        if body is not None:
            facts.append(Noted(body))
    return facts


def _system(subtype: str, data: dict[str, Any], turn: Turn) -> list[Fact]:  # noqa: PLR0911  (one per kind)
    match subtype:
        case "session_state_changed":
            return [StateChanged(running=data.get("state") != "idle")]
        case "background_tasks_changed":
            return [BackgroundChanged(len(data.get("tasks") or []))]
        case "init":
            return _moved(data.get("session_id"), turn)
        case "unknown:command_lifecycle":
            return _lifecycle(data.get("message") or {}, turn)
        case "api_retry":
            status, delay_ms = data.get("error_status"), int(data.get("retry_delay_ms") or 0)
            return [
                Noted(
                    ModelRetrying(
                        attempt=int(data.get("attempt") or 0),
                        attempts_max=int(data.get("max_retries") or 0),
                        delay_ms=delay_ms,
                        http_status=status,
                        message=retrying(status, delay_ms),
                    )
                )
            ]
        case "compact_boundary":
            return [_notice(subtype, "The conversation was summarised to make room.")]
        case _ if subtype in QUIET:
            return []
        case _:
            told = {key: value for key, value in data.items() if key not in {"type", "subtype", "uuid", "session_id"}}
            return [_notice(subtype, str(told))]


def _lifecycle(data: dict[str, Any], turn: Turn) -> list[Fact]:
    prompt, state = _message_id(data.get("command_uuid")), data.get("state")
    if prompt not in turn.prompts or state not in {"completed", "cancelled"}:
        return []
    turn.prompts.discard(prompt)
    return [PromptSettled(prompt, cancelled=state == "cancelled")]


def _moved(provider_session_id: Any, turn: Turn) -> list[Fact]:
    if not isinstance(provider_session_id, str) or provider_session_id == turn.provider_session_id:
        return []
    turn.provider_session_id = provider_session_id
    return [ConversationMoved(provider_session_id)]


def _result(result: ResultMessage, turn: Turn) -> TurnFinished:
    outcome = _outcome(result, turn)
    turn.interrupting = False
    prompts = [prompt for uuid in result.user_message_uuids or () if (prompt := _message_id(uuid)) in turn.prompts]
    if not prompts and result.is_error and result.origin is None:
        prompts = sorted(turn.prompts)  # an error that names no prompt is about those the agent has
    turn.prompts.difference_update(prompts)
    usage = result.usage or {}
    total, before = result.total_cost_usd, turn.cost_usd or 0.0
    turn.cost_usd = total
    text = result.result or "; ".join(result.errors or ())
    return TurnFinished(
        message_ids=tuple(prompts),
        outcome=outcome,
        stop_reason=result.stop_reason or result.terminal_reason,
        cost_usd=None if total is None else round(total - before if total >= before else total, 6),
        usage=Usage(
            input_tokens=usage.get("input_tokens") or 0,
            output_tokens=usage.get("output_tokens") or 0,
            cache_read_tokens=usage.get("cache_read_input_tokens") or 0,
            cache_write_tokens=usage.get("cache_creation_input_tokens") or 0,
        ),
        duration_ms=result.duration_ms,
        error=api_error(result.api_error_status, clean(text)) if outcome == "failed" else None,
    )


def _outcome(result: ResultMessage, turn: Turn) -> Literal["done", "interrupted", "failed"]:
    turn.aborted = (result.terminal_reason or "").startswith("aborted") and not turn.interrupting
    if result.is_error:
        return "interrupted" if turn.interrupting else "failed"
    return "done"


def _notice(name: str, message: str) -> Noted:
    return Noted(Notice(name=name, message=cut(message, NOTICE_CHARS_MAX)[0]))


def _message_id(uuid: Any) -> MessageId | None:
    try:
        return MessageId(UUID(uuid)) if isinstance(uuid, str) else None
    except ValueError:
        return None
