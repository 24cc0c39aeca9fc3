"""Events on the screen as they come: text typed live on a terminal, whole events elsewhere, JSON on request."""

from ff_core.contract.events import Event, MessageAssistant, MessageDelta, SessionStarted, Thinking, WorkspaceChanged
from ff_core.ids import SessionId
from ff_desktop.cli.plain import one_line, plain
from ff_desktop.cli.render import DIM, lines
from ff_desktop.cli.screen import Line, Screen


class Live:
    """Shows events in order. One session at a time is typed; what was typed is not said again when it is stored."""

    def __init__(self, screen: Screen, names: dict[SessionId, str]) -> None:
        self._screen = screen
        self._names = names
        self._current: SessionId | None = None
        self._typing: SessionId | None = None
        self._typed = ""
        self._thinking = False
        self._workspace: WorkspaceChanged | None = None

    def show(self, event: Event) -> None:
        """Put out one event."""
        body = event.body
        if isinstance(body, MessageDelta):
            if self._screen.live:
                self._type(event.session_id, body)
            return
        if isinstance(body, WorkspaceChanged):
            if body == self._workspace:
                return  # every new connection begins with where the workspace stands
            self._workspace = body
        self._screen.object(event)
        if isinstance(body, SessionStarted) and event.session_id is not None:
            self._names[event.session_id] = body.name
        if isinstance(body, MessageAssistant | Thinking) and self._was_typed(event, body):
            self._end_typing()
            return
        self._end_typing()
        self._head(event.session_id)
        self._screen.lines(lines(body))

    def lost(self, reason: str) -> None:
        """The connection broke; hints may be missing, so what was typed no longer counts."""
        self._end_typing()
        self._screen.note(f"connection lost ({reason}); trying again from the last event seen")

    def close(self) -> None:
        """End a line that is still being typed."""
        self._end_typing()

    def _type(self, session: SessionId | None, hint: MessageDelta) -> None:
        if session is None or self._typing not in {None, session}:
            return
        if self._typing is not None and (hint.reset or hint.thinking != self._thinking):
            self._end_typing()
        if not hint.text:
            return
        if self._typing is None:
            self._head(session)
            self._typing, self._thinking = session, hint.thinking
            self._screen.type("~ " if hint.thinking else "", DIM)
        self._typed += hint.text
        self._screen.type(plain(hint.text), DIM if hint.thinking else "")

    def _was_typed(self, event: Event, body: MessageAssistant | Thinking) -> bool:
        same = self._typing == event.session_id and self._thinking == isinstance(body, Thinking)
        return self._typing is not None and same and self._typed.strip() == body.text.strip()

    def _end_typing(self) -> None:
        if self._typing is not None:
            self._screen.lines([Line("")])
        self._typing, self._typed = None, ""

    def _head(self, session: SessionId | None) -> None:
        if session is not None and session != self._current:
            self._current = session
            self._screen.lines([Line(f"-- {one_line(self._names.get(session, str(session)))} --", DIM)])
