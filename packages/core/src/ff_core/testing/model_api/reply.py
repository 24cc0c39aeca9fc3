"""From a plan to a reply: what the model says and how the connection misbehaves. Pure but for fresh ids."""

import itertools
import json
import re
import secrets
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal

from ff_core.testing.model_api.script import Directive, Json, Plan, ScriptError, options, texts_of

_ids = itertools.count(1)
# Ids must be unique over the life of a conversation, which outlives this process.
_BOOT = secrets.token_hex(4)

ERROR_TYPES = {
    400: "invalid_request_error",
    401: "authentication_error",
    402: "billing_error",
    403: "permission_error",
    404: "not_found_error",
    413: "request_too_large",
    429: "rate_limit_error",
    500: "api_error",
    504: "timeout_error",
    529: "overloaded_error",
}
ERROR_TEXTS = {
    401: "invalid x-api-key",
    403: "Your API key does not have permission",
    404: "model not found",
    413: "Request exceeds the maximum size",
    429: "This request would exceed your account's rate limit.",
    500: "Internal server error",
    529: "Overloaded",
}


@dataclass(frozen=True)
class Text:
    """A text block of these deltas, ``rate`` of them per second (0 = flat out)."""

    parts: tuple[str, ...]
    rate: float = 0.0


@dataclass(frozen=True)
class Thinking:
    """A thinking block."""

    text: str


@dataclass(frozen=True)
class ToolUse:
    """A tool_use block."""

    block: Json


@dataclass(frozen=True)
class Wait:
    """Silence for this long, in an open stream."""

    seconds: float


@dataclass(frozen=True)
class StreamError:
    """An ``error`` event, after which the stream ends in order."""

    kind: str


Part = Text | Thinking | ToolUse | Wait | StreamError


@dataclass(frozen=True)
class Cut:
    """The connection ends after this many deltas: with a FIN (``eof``) or a reset (``rst``)."""

    after_deltas: int
    how: Literal["eof", "rst"]


@dataclass(frozen=True)
class Stall:
    """Silence before the delta of this number."""

    seconds: float
    after_deltas: int


@dataclass(frozen=True)
class Reply:
    """What the model says, and how the connection misbehaves meanwhile."""

    parts: tuple[Part, ...] = ()
    stop_reason: str | None = None
    cut: Cut | None = None
    stall: Stall | None = None


@dataclass(frozen=True)
class Failure:
    """An error response instead of a reply."""

    status: int
    kind: str
    message: str
    headers: dict[str, str] = field(default_factory=dict)


StillFails = Callable[[int, int], bool]
"""``(number of the directive in the plan, times)``: does this failure happen once more? Counts."""


def new_id(prefix: str) -> str:
    """A fresh id, unique across restarts."""
    return f"{prefix}_{_BOOT}{next(_ids):010d}"


def lag_s(plan: Plan) -> float:
    """How long to wait before the response's headers."""
    return sum(_number(d.argument) for d in plan if d.verb == "lag")


def failure(plan: Plan, still_fails: StillFails) -> Failure | None:
    """The error response this plan asks for, if it still does."""
    for number, directive in enumerate(plan):
        if directive.verb != "error":
            continue
        words, named = options(directive.argument)
        status = int(_number(words[0] if words else ""))
        if still_fails(number, int(named.get("times", "0"))):
            headers = {"retry-after": named.get("retry-after"), "x-should-retry": named.get("should-retry")}
            return Failure(
                status,
                named.get("type", ERROR_TYPES.get(status, "api_error")),
                named.get("msg", ERROR_TEXTS.get(status, "scripted failure")).replace("_", " "),
                {name: value for name, value in headers.items() if value is not None},
            )
    return None


def build(plan: Plan, body: Json, still_fails: StillFails) -> Reply:
    """Turn a plan into a reply to ``body``. Raises :class:`ScriptError`."""
    parts: list[Part] = []
    stop_reason, cut, stall = None, None, None
    for number, directive in enumerate(plan):
        words, named = options(directive.argument)
        match directive.verb:
            case "stop":
                stop_reason = directive.argument
            case "sse-error":
                if still_fails(number, int(named.get("times", "0"))):
                    parts.append(StreamError(words[0] if words else "overloaded_error"))
            case "drop":
                if still_fails(number, int(named.get("times", "1"))):
                    how: Literal["eof", "rst"] = "rst" if named.get("how") == "rst" else "eof"
                    cut = Cut(int(named.get("after", "0")), how)
            case "stall":
                stall = Stall(_number(words[0] if words else ""), int(named.get("after", "0")))
            case _:
                parts.extend(_parts(directive, body))
    return Reply(tuple(parts), stop_reason, cut, stall)


def _parts(directive: Directive, body: Json) -> list[Part]:
    verb, argument = directive.verb, directive.argument
    if verb in _TOOLS:
        return [ToolUse(_tool(name, given)) for name, given in _TOOLS[verb](argument, body)]
    if verb == "sleep":
        return [Wait(_number(argument))]
    if verb == "think":
        return [Thinking(argument)]
    if verb in _NO_PART:
        return []
    return [_text(verb, argument, body)]


def _text(verb: str, argument: str, body: Json) -> Text:
    match verb:
        case "say":
            return _said(argument.replace("\\n", "\n"))
        case "stream":
            count, rate, word = [*argument.split(), "", "", ""][:3]
            parts = tuple(f"{word or 'tok'}{n} " for n in range(int(_number(count))))
            return Text(parts, _number(rate or "0"))
        case "history":
            messages = body.get("messages") or []
            seen = [f"{m['role']}:{' '.join(texts_of(m.get('content')))[:60]!r}" for m in messages]
            return _said(f"I can see {len(messages)} messages: " + " | ".join(seen))
        case unknown:
            raise ScriptError(f"there is no directive %{unknown}")


Calls = list[tuple[str, Json]]


def _bash(argument: str, _body: Json) -> Calls:
    return [("Bash", {"command": argument, "description": "Scripted command"})]


def _background(argument: str, _body: Json) -> Calls:
    given = {"command": argument, "description": "Scripted background command", "run_in_background": True}
    return [("Bash", given)]


def _write(argument: str, _body: Json) -> Calls:
    path, _, text = argument.partition(" ")
    return [("Write", {"file_path": path, "content": text.replace("\\n", "\n") + "\n"})]


def _edit(argument: str, _body: Json) -> Calls:
    path, _, change = argument.partition(" ")
    old, _, new = change.partition(" => ")
    return [("Edit", {"file_path": path, "old_string": old, "new_string": new})]


def _ask(argument: str, _body: Json) -> Calls:
    return [("AskUserQuestion", _json(argument) if argument.startswith("{") else _question(argument))]


def _task(argument: str, body: Json) -> Calls:
    asked = {"description": "Scripted subagent", "prompt": argument.replace("|", "\n")}
    return [(_offered(body, "Agent", "Task"), {**asked, "subagent_type": "general-purpose"})]


def _todo(argument: str, body: Json) -> Calls:
    items = [item.strip() for item in argument.split(";") if item.strip()]
    if _offered(body, "TodoWrite", "TaskCreate") == "TodoWrite":
        todos = [{"content": item, "status": "pending", "activeForm": item} for item in items]
        return [("TodoWrite", {"todos": todos})]
    return [("TaskCreate", {"subject": item, "description": item}) for item in items]


def _any_tool(argument: str, _body: Json) -> Calls:
    name, _, given = argument.partition(" ")
    return [(name, _json(given or "{}"))]


def _several(argument: str, _body: Json) -> Calls:
    return [(call["name"], call.get("input", {})) for call in _json(argument)]


_TOOLS: dict[str, Callable[[str, Json], Calls]] = {
    "bash": _bash,
    "bg": _background,
    "write": _write,
    "edit": _edit,
    "read": lambda argument, _body: [("Read", {"file_path": argument})],
    "ask": _ask,
    "task": _task,
    "todo": _todo,
    "tool": _any_tool,
    "tools": _several,
}
_NO_PART = frozenset(("end", "lag", "error"))


def _said(text: str) -> Text:
    return Text(tuple(re.findall(r"\S+\s*|\s+", text)) or ("",))


def _question(text: str) -> Json:
    choices = [{"label": "Yes", "description": "Go on"}, {"label": "No", "description": "Stop"}]
    asked = {"question": text or "Which one?", "header": "Choice", "multiSelect": False, "options": choices}
    return {"questions": [asked]}


def _offered(body: Json, *names: str) -> str:
    """The first of these tools that the request offers: their names differ between CLI versions."""
    offered = {tool.get("name") for tool in body.get("tools") or []}
    return next((name for name in names if name in offered), names[0])


def _tool(name: str, given: Json) -> Json:
    return {"type": "tool_use", "id": new_id("toolu"), "name": name, "input": given}


def _json(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError as error:
        raise ScriptError(f"not JSON: {text[:200]}") from error


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError as error:
        raise ScriptError(f"not a number: {text[:40]!r}") from error
