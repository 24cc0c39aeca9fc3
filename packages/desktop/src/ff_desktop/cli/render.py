"""Events as lines for people. Pure; every text from elsewhere passes through ``plain``."""

import json
from collections.abc import Iterable
from typing import assert_never

from ff_core.contract.base import ErrorView, Json
from ff_core.contract.events import (
    EventBody,
    HandoffAborted,
    HandoffArrived,
    HandoffStarted,
    MessageAssistant,
    MessageCancelled,
    MessageDelta,
    MessageQueued,
    MessageUser,
    ModelRetrying,
    Notice,
    PermissionRequested,
    PermissionResolved,
    ProcessOutput,
    QuestionAnswered,
    QuestionAsked,
    SessionChanged,
    SessionStarted,
    Thinking,
    ToolFinished,
    ToolStarted,
    TurnFinished,
    Unknown,
    WorkspaceChanged,
    WorkspaceRestored,
)
from ff_core.contract.session import PendingRequest, Question
from ff_core.ids import RequestId
from ff_desktop.cli.plain import one_line, plain
from ff_desktop.cli.screen import Line

TOOL_LINES_MAX = 20
LINE_CHARS_MAX = 500
DIM, GOOD, BAD, ASK, TOOL, YOU = "dim", "green", "red", "bold yellow", "cyan", "bold"
_TELLING_INPUTS = ("command", "file_path", "notebook_path", "pattern", "path", "url", "query", "description", "prompt")
"""Members of a tool's input that say by themselves what it will do, best first."""


def lines(body: EventBody) -> list[Line]:  # noqa: C901, PLR0911, PLR0912  (one arm per kind, each one line)
    """What a person reads of an event; nothing for hints, which are typed live instead."""
    match body:
        case SessionStarted(name=name, model=model, permissions=permissions):
            return [Line(f"session {one_line(name)}: {one_line(model or 'default model')}, {permissions}", DIM)]
        case SessionChanged(status=status, activity=activity, resumed=resumed, error=error):
            resumption = ", resumed" if resumed else ""
            return [Line(f"session is {status}, {activity}{resumption}", DIM), *_failure(error)]
        case MessageQueued(text=text):
            return [Line(f"queued: {one_line(text)}", DIM)]
        case MessageUser(text=text):
            return _block("> ", text, YOU)
        case MessageCancelled(text=text):
            return [Line(f"not sent, dropped by a stop: {one_line(text)}", BAD)]
        case MessageDelta():
            return []
        case MessageAssistant(text=text, truncated=cut, parent_tool_use_id=parent):
            return _cut(_block("  | " if parent else "", text), truncated=cut)
        case Thinking(text=text, truncated=cut):
            return _cut(_block("~ ", text, DIM), truncated=cut)
        case ToolStarted(name=name, input=given, parent_tool_use_id=parent):
            return [Line(f"{'  | ' if parent else ''}* {one_line(name)}: {tool_input(given)}", TOOL)]
        case ToolFinished(output=output, is_error=is_error, truncated=cut):
            return _cut(_output(output, BAD if is_error else DIM), truncated=cut)
        case PermissionRequested(request_id=request, tool_name=tool, input=given, title=title):
            return _permission(request, tool, given, title)
        case PermissionResolved(decision=decision, message=message):
            reason = f": {one_line(message)}" if message else ""
            return [Line(f"permission: {decision.replace('_', ' ')}{reason}", BAD if decision == "deny" else DIM)]
        case QuestionAsked(request_id=request, questions=questions):
            return _questions(request, questions)
        case QuestionAnswered(answers=answers, message=message, cancelled=cancelled):
            return _answers(answers, message, cancelled=cancelled)
        case ModelRetrying(attempt=attempt, attempts_max=most, delay_ms=delay_ms, message=message):
            return [Line(f"model: {one_line(message)} Try {attempt} of {most} in {delay_ms / 1000:.1f} s.", BAD)]
        case TurnFinished():
            return _turn(body)
        case WorkspaceChanged(status=status, error=error):
            return [Line(f"workspace is {status}", DIM), *_failure(error)]
        case WorkspaceRestored():
            return _restored(body)
        case HandoffStarted(direction=direction):
            return [Line(f"on the move to the {direction.destination.lower()}: nothing new runs until it is there", DIM)]
        case HandoffAborted(reason=reason):
            return [Line(f"it stays here: {one_line(reason, LINE_CHARS_MAX)}", BAD)]
        case HandoffArrived(location=location, place=place):
            return [Line(f"lives on the {location.lower()} now: {one_line(place)}", GOOD)]
        case ProcessOutput(process=process, text=text):
            return _block(f"{one_line(process, 40)}: ", text.rstrip("\n"), DIM)
        case Notice(name=name, message=message):
            return [Line(f"notice {one_line(name)}: {one_line(message, LINE_CHARS_MAX)}", DIM)]
        case Unknown(kind=kind):
            return [Line(f"{one_line(kind)} (this ff is too old to show it)", DIM)]
        case _:
            assert_never(body)


def _restored(event: WorkspaceRestored) -> list[Line]:
    """What was lost with a machine, and what was not."""
    when = f"{event.saved_at:%Y-%m-%d %H:%M:%S} UTC"
    lines = [Line(f"the machine was lost; restored from checkpoint {event.checkpoint}, saved at {when}", BAD)]
    if event.lost_events:
        lines.append(Line(f"what {event.lost_events} later events tell of files is gone", BAD))
    if event.left_out_count:
        names = ", ".join(one_line(each.path, 60) for each in event.left_out)
        lines.append(Line(f"{event.left_out_count} entries were not saved: {names}", DIM))
    return lines


def pending(request: PendingRequest) -> list[Line]:
    """A request that waits, as its event was shown."""
    if request.kind == "question":
        return _questions(request.id, request.questions)
    return _permission(request.id, request.tool_name, request.input, "")


def tool_input(given: Json) -> str:
    """What a tool was asked, on one line."""
    for name in _TELLING_INPUTS:
        value = given.get(name)
        if isinstance(value, str) and value.strip():
            return one_line(value, LINE_CHARS_MAX)
    return one_line(json.dumps(given, ensure_ascii=False), LINE_CHARS_MAX)


def _block(mark: str, text: str, style: str = "") -> list[Line]:
    return [Line(f"{mark}{line}", style) for line in plain(text).split("\n")]


def _output(text: str, style: str) -> list[Line]:
    found = plain(text).rstrip().split("\n")
    shown = [Line(f"  {line[:LINE_CHARS_MAX]}{'…' if len(line) > LINE_CHARS_MAX else ''}", style) for line in found]
    more = len(shown) - TOOL_LINES_MAX
    return shown if more <= 0 else [*shown[:TOOL_LINES_MAX], Line(f"  … {more} more lines", style)]


def _cut(shown: list[Line], *, truncated: bool) -> list[Line]:
    return [*shown, Line("  … cut: too long", DIM)] if truncated else shown


def _failure(error: ErrorView | None) -> list[Line]:
    return [] if error is None else [Line(f"  {one_line(error.message, LINE_CHARS_MAX)} ({one_line(error.code)})", BAD)]


def _permission(request: RequestId, tool: str, given: Json, title: str) -> list[Line]:
    # The whole input, not a summary: nobody should allow what he could not read.
    text = json.dumps(given, ensure_ascii=False, indent=2) if len(given) != 1 else _sole(given)
    heading = f": {one_line(title)}" if title else ""
    return [
        Line(f"? {one_line(tool)} asks for permission{heading}", ASK),
        *_block("  ", text),
        Line(f"  answer: ff answer NAME --allow | --always | --deny   (request {request})", DIM),
    ]


def _sole(given: Json) -> str:
    ((name, value),) = given.items()
    return f"{name}: {value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)}"


def _questions(request: RequestId, questions: Iterable[Question]) -> list[Line]:
    shown: list[Line] = []
    for question in questions:
        several = " (several may be chosen)" if question.multi_select else ""
        shown.append(Line(f"? {one_line(question.question, LINE_CHARS_MAX)}{several}", ASK))
        for option in question.options:
            description = f": {one_line(option.description)}" if option.description else ""
            shown.append(Line(f"  - {one_line(option.label)}{description}"))
    return [*shown, Line(f"  answer: ff answer NAME --choose LABEL | --text TEXT   (request {request})", DIM)]


def _answers(answers: dict[str, str], message: str | None, *, cancelled: bool) -> list[Line]:
    if cancelled:
        return [Line("the question is void", DIM)]
    shown = [Line(f"answered {one_line(question, 80)}: {one_line(answer)}", DIM) for question, answer in answers.items()]
    return [*shown, Line(f"answered: {one_line(message)}", DIM)] if message else shown


def _turn(turn: TurnFinished) -> list[Line]:
    cost = "" if turn.cost_usd is None else f", ${turn.cost_usd:.4f}"
    tokens = turn.usage.input_tokens + turn.usage.cache_read_tokens + turn.usage.cache_write_tokens
    counts = f"{turn.duration_ms / 1000:.1f} s, {tokens} tokens in, {turn.usage.output_tokens} out{cost}"
    style = GOOD if turn.outcome == "done" else BAD
    return [Line(f"turn {turn.outcome} ({counts})", style), *_failure(turn.error)]
