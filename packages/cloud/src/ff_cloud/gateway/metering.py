"""Reading what a request cost out of the answer that passes by. Pure: nothing is changed or held up, and nothing is kept."""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import httpx2

LINE_BYTES_MAX = 1024 * 1024
JSON_BYTES_MAX = 4 * 1024 * 1024
MODEL_CHARS_MAX = 200
TOKENS_MAX = 1_000_000_000_000
_FIELDS = ("input_tokens", "output_tokens", "cache_read_input_tokens", "cache_creation_input_tokens")
_LONG = "ephemeral_1h_input_tokens"


@dataclass(frozen=True, slots=True)
class Spent:
    """The tokens of one request. ``cache_write_long_tokens``: those of ``cache_write_tokens`` that are kept for an hour."""

    model: str
    input_tokens: int
    output_tokens: int
    cache_read_tokens: int
    cache_write_tokens: int
    cache_write_long_tokens: int = 0


class Meter:
    """Reads one answer, a stream of events or one JSON object, and forgives everything it does not understand.

    A line longer than :data:`LINE_BYTES_MAX` and an object longer than :data:`JSON_BYTES_MAX` are not read.
    """

    def __init__(self) -> None:
        self._rest = bytearray()
        self._skipping = False
        self._whole = False
        self._model = ""
        self._usage: dict[str, int] = {}

    def reads(self, response: httpx2.Response) -> Callable[[bytes], None]:
        """The reader for this answer's body."""
        kind = response.headers.get("content-type", "").partition(";")[0].strip().lower()
        if response.status_code != 200 or response.headers.get("content-encoding", "identity") != "identity":
            return _ignore
        if kind == "text/event-stream":
            return self.feed
        if kind == "application/json":
            self._whole = True
            return self._keep
        return _ignore

    def feed(self, piece: bytes) -> None:
        """Read a piece of a stream of events, cut anywhere."""
        *lines, rest = piece.split(b"\n")
        for line in lines:
            if not self._skipping:
                self._rest += line
                if b'"usage"' in self._rest:
                    self._read(bytes(self._rest))
            self._skipping = False
            self._rest.clear()
        if not self._skipping:
            self._rest += rest
            if len(self._rest) > LINE_BYTES_MAX:
                self._rest.clear()
                self._skipping = True

    def spent(self) -> Spent | None:
        """What was read so far, also of an answer that was cut; None when it said nothing of usage."""
        if self._whole and not self._skipping:
            self._take(_parsed(bytes(self._rest)))
        if not self._usage:
            return None
        read = self._usage.get
        return Spent(
            model=self._model[:MODEL_CHARS_MAX],
            input_tokens=read("input_tokens", 0),
            output_tokens=read("output_tokens", 0),
            cache_read_tokens=read("cache_read_input_tokens", 0),
            cache_write_tokens=read("cache_creation_input_tokens", 0),
            cache_write_long_tokens=read(_LONG, 0),
        )

    def _keep(self, piece: bytes) -> None:
        self._rest += piece
        if len(self._rest) > JSON_BYTES_MAX:
            self._rest.clear()
            self._skipping = True

    def _read(self, line: bytes) -> None:
        if not line.startswith(b"data:"):
            return
        event = _parsed(line[5:])
        if event.get("type") == "message_start":
            self._take(_mapping(event.get("message")))
        elif event.get("type") == "message_delta":
            self._take(event)

    def _take(self, said: Mapping[str, Any]) -> None:
        # Counts of a later event are totals of the message so far: they replace, and do not add.
        if isinstance(model := said.get("model"), str):
            self._model = model.replace("\0", "")
        usage = _mapping(said.get("usage"))
        counts = {**usage, _LONG: _mapping(usage.get("cache_creation")).get(_LONG)}
        for name in (*_FIELDS, _LONG):
            count = counts.get(name)
            if isinstance(count, int) and not isinstance(count, bool) and 0 <= count <= TOKENS_MAX:
                self._usage[name] = count


def _parsed(text: bytes) -> Mapping[str, Any]:
    try:
        return _mapping(json.loads(text))
    except (ValueError, RecursionError):
        return {}


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}


def _ignore(_piece: bytes) -> None:
    pass
