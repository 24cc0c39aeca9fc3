"""Pieces of what the agent writes, gathered for a moment so that a fast model does not flood those who watch."""

import asyncio
from collections.abc import Callable

from ff_core.contract.events import MessageDelta
from ff_core.sessions.texts import clean

GATHER_S = 0.04
GATHERED_CHARS_MAX = 8_000
"""More than this is published at once."""


class Deltas:
    """Publishes hints of one session, about 25 a second at most unless they are large."""

    def __init__(self, publish: Callable[[MessageDelta], None]) -> None:
        self._publish = publish
        self._text: list[str] = []
        self._chars = 0
        self._thinking = False
        self._shown = False
        self._reset = False
        self._timer: asyncio.TimerHandle | None = None

    def add(self, text: str, *, thinking: bool) -> None:
        """Take a piece."""
        if thinking is not self._thinking:
            self.flush()
            self._thinking = thinking
        self._text.append(text)
        self._chars += len(text)
        if self._chars >= GATHERED_CHARS_MAX:
            self.flush()
        elif self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(GATHER_S, self.flush)

    def void(self) -> None:
        """The reply begins again: forget what waits, and say so if some was shown that no stored event replaced."""
        self._drop()
        self._reset = self._shown

    def stored(self, *, replaces: bool) -> None:
        """An event is about to be stored: it ``replaces`` what was hinted, or only stands behind it."""
        if replaces:
            self._drop()
            self._shown = self._reset = False
        else:
            self.flush()

    def flush(self) -> None:
        """Publish what waits."""
        text = clean("".join(self._text))
        self._drop()
        if text or self._reset:
            self._publish(MessageDelta(text=text, thinking=self._thinking, reset=self._reset))
            self._shown, self._reset = True, False

    def _drop(self) -> None:
        self._text.clear()
        self._chars = 0
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
