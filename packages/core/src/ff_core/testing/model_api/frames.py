"""From a reply to what goes over the wire: server-sent events, waits and cuts, or one JSON object. Pure."""

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass

from ff_core.testing.model_api.reply import Cut, Reply, StreamError, Text, Thinking, ToolUse, Wait, new_id
from ff_core.testing.model_api.script import Json

_SIGNATURE = "c2NyaXB0ZWQ="
_TOOL_JSON_CHARS = 24  # of one input_json_delta


@dataclass(frozen=True)
class Frame:
    """One server-sent event."""

    name: str
    data: Json

    @property
    def counts(self) -> bool:
        """Is this one of the deltas that cuts and stalls are counted by?"""
        return self.name == "content_block_delta" and self.data["delta"]["type"] != "signature_delta"

    def encode(self) -> bytes:
        """The event's bytes."""
        return f"event: {self.name}\ndata: {json.dumps({'type': self.name, **self.data})}\n\n".encode()


@dataclass(frozen=True)
class Pace:
    """Wait until this many seconds after the present block began."""

    since_block_s: float


Output = Frame | Pace | Wait | Cut


def message(reply: Reply, body: Json) -> Json:
    """The whole reply as one JSON object, for a request without ``stream``."""
    content: list[Json] = []
    for part in reply.parts:
        match part:
            case Text():
                content.append({"type": "text", "text": "".join(part.parts)})
            case Thinking():
                content.append({"type": "thinking", "thinking": part.text, "signature": _SIGNATURE})
            case ToolUse():
                content.append(part.block)
            case Wait() | StreamError():
                pass
    tokens_out = max(1, len(json.dumps(content)) // 4)
    content = content or [{"type": "text", "text": "ok"}]
    return _envelope(body, content, _stop_reason(reply), usage(body, tokens_out))


def frames(reply: Reply, body: Json) -> Iterator[Output]:
    """The reply as a stream: what to send and where to wait. A :class:`Cut` is the last output."""
    cut, stall = reply.cut, reply.stall
    deltas = 0
    for output in _undisturbed(reply, body):
        if isinstance(output, Frame) and output.counts:
            if cut and deltas >= cut.after_deltas:
                break
            if stall and deltas == stall.after_deltas:
                yield Wait(stall.seconds)
            deltas += 1
        if cut and isinstance(output, Frame) and output.name == "message_delta":
            break
        yield output
    else:
        return
    yield cut


def _undisturbed(reply: Reply, body: Json) -> Iterator[Frame | Pace | Wait]:
    yield Frame("message_start", {"message": _envelope(body, [], None, usage(body, 1))})
    yield Frame("ping", {})
    parts = reply.parts
    if all(isinstance(part, Wait) for part in parts):
        parts = (*parts, Text(("ok",)))  # the CLI takes a reply without content for a fault
    index, tokens_out = 0, 0
    for part in parts:
        match part:
            case Wait():
                yield part
            case StreamError():
                yield Frame("error", {"error": {"type": part.kind, "message": "Overloaded"}})
                return
            case _:
                deltas = _deltas(part)
                yield from _block(index, part, deltas)
                index, tokens_out = index + 1, tokens_out + len(deltas)
    end = {"stop_reason": _stop_reason(reply), "stop_sequence": None}
    yield Frame("message_delta", {"delta": end, "usage": usage(body, max(1, tokens_out))})
    yield Frame("message_stop", {})


def _block(index: int, part: Text | Thinking | ToolUse, deltas: list[Json]) -> Iterator[Frame | Pace]:
    yield Frame("content_block_start", {"index": index, "content_block": _empty_block(part)})
    for sent, delta in enumerate(deltas, 1):
        yield Frame("content_block_delta", {"index": index, "delta": delta})
        if isinstance(part, Text) and part.rate:
            yield Pace(sent / part.rate)
    if isinstance(part, Thinking):
        signed = {"type": "signature_delta", "signature": _SIGNATURE}
        yield Frame("content_block_delta", {"index": index, "delta": signed})
    yield Frame("content_block_stop", {"index": index})


def count_tokens(body: Json) -> int:
    """A rough size of a request."""
    return max(1, len(json.dumps([body.get("system"), body.get("messages"), body.get("tools")])) // 4)


def usage(body: Json, tokens_out: int) -> Json:
    """The usage record; the CLI computes cost and context percentage from it."""
    tokens_in = count_tokens(body)
    return {
        "input_tokens": min(tokens_in, 12),
        "cache_creation_input_tokens": 0,
        "cache_read_input_tokens": max(0, tokens_in - 12),
        "output_tokens": tokens_out,
        "cache_creation": {"ephemeral_5m_input_tokens": 0, "ephemeral_1h_input_tokens": 0},
        "service_tier": "standard",
    }


def _empty_block(part: Text | Thinking | ToolUse) -> Json:
    match part:
        case Text():
            return {"type": "text", "text": ""}
        case Thinking():
            return {"type": "thinking", "thinking": "", "signature": ""}
        case ToolUse():
            return {**part.block, "input": {}}


def _deltas(part: Text | Thinking | ToolUse) -> list[Json]:
    match part:
        case Text():
            return [{"type": "text_delta", "text": text} for text in part.parts]
        case Thinking():
            words = re.findall(r"\S+\s*", part.text)
            return [{"type": "thinking_delta", "thinking": word} for word in words]
        case ToolUse():
            given = json.dumps(part.block["input"])
            pieces = [given[at : at + _TOOL_JSON_CHARS] for at in range(0, len(given), _TOOL_JSON_CHARS)]
            return [{"type": "input_json_delta", "partial_json": piece} for piece in ("", *pieces)]


def _stop_reason(reply: Reply) -> str:
    uses_tools = any(isinstance(part, ToolUse) for part in reply.parts)
    return reply.stop_reason or ("tool_use" if uses_tools else "end_turn")


def _envelope(body: Json, content: list[Json], stop_reason: str | None, used: Json) -> Json:
    head = {"id": new_id("msg"), "type": "message", "role": "assistant", "model": body.get("model")}
    return {**head, "content": content, "stop_reason": stop_reason, "stop_sequence": None, "usage": used}
