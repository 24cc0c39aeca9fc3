"""What a preparing program says, thinned out and bounded, as events."""

import re
from collections.abc import Callable
from datetime import datetime, timedelta

OUTPUT_CHARS_MAX = 50_000
"""Of one preparation; the rest is dropped, and said to be."""
PIECE_CHARS_MAX = 4_000
PIECE_EVERY = timedelta(seconds=1)
_PERCENT = re.compile(r"^(.*?):\s+\d+%")


class Output:
    """Collects lines and hands them on in pieces: at once after a silence, else one a second or when one is full.

    Of counting lines ("Receiving objects:  12% …") only the newest of each piece is kept.
    """

    def __init__(self, emit: Callable[[str], None], now: Callable[[], datetime]) -> None:
        self._emit = emit
        self._now = now
        self._lines: list[str] = []
        self._chars_left = OUTPUT_CHARS_MAX
        self._emitted_at: datetime | None = None

    def line(self, text: str) -> None:
        """Take one line, without its end."""
        if self._chars_left <= 0:
            return
        if self._lines and _counter(text) is not None and _counter(text) == _counter(self._lines[-1]):
            self._lines.pop()
        self._lines.append(text[:PIECE_CHARS_MAX])
        full = sum(len(line) + 1 for line in self._lines) >= PIECE_CHARS_MAX
        if full or self._emitted_at is None or self._now() - self._emitted_at >= PIECE_EVERY:
            self.flush()

    def flush(self) -> None:
        """Hand on what was collected."""
        if not self._lines:
            return
        piece = "".join(f"{line}\n" for line in self._lines)
        self._lines.clear()
        if len(piece) > self._chars_left:
            piece = piece[: self._chars_left] + "\n… (further output is not kept)\n"
        self._chars_left -= len(piece)
        self._emitted_at = self._now()
        self._emit(piece)


def _counter(line: str) -> str | None:
    match = _PERCENT.match(line)
    return match and match.group(1)
