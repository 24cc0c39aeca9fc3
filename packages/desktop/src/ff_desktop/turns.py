"""When is a prompt answered? A pure judge over the events of its session."""

from dataclasses import dataclass, field
from enum import Enum

from ff_core.contract.events import (
    Event,
    MessageCancelled,
    MessageQueued,
    MessageUser,
    PermissionRequested,
    QuestionAsked,
    SessionChanged,
    TurnFinished,
    WorkspaceChanged,
)
from ff_core.contract.session import SessionStatus
from ff_core.contract.workspace import WorkspaceStatus
from ff_core.ids import MessageId, RequestId, SessionId


class End(Enum):
    """How the wait for an answer ended."""

    DONE = "done"
    STOPPED = "stopped"
    """The turn failed or was interrupted, the prompt was dropped, or who would answer is gone."""


@dataclass(frozen=True)
class Asked:
    """The agent asked the user; whether it still waits must be looked up, the event may be history."""

    request: RequestId


@dataclass
class Turn:
    """Judges events in order. Those before the prompt was queued are not ours (``begun`` is false until then)."""

    session: SessionId
    message: MessageId
    begun: bool = False
    _given: bool = field(default=False, init=False)

    def concerns(self, event: Event) -> bool:
        """Whether the event belongs to the wait: it came after the prompt, from its session or the workspace itself."""
        body = event.body
        if isinstance(body, MessageQueued) and body.message_id == self.message:
            self.begun = True
        return self.begun and event.session_id in {self.session, None}

    def judge(self, event: Event) -> End | Asked | None:  # noqa: PLR0911  (a table)
        """What an event that :meth:`concerns` us means for the wait; None: go on."""
        match event.body:
            case TurnFinished(message_ids=ids, outcome=outcome) if self.message in ids:
                return End.DONE if outcome == "done" else End.STOPPED
            case MessageCancelled(message_id=message) if message == self.message:
                return End.STOPPED
            case MessageUser(message_id=message) if message == self.message:
                self._given = True
            case PermissionRequested(request_id=request) | QuestionAsked(request_id=request):
                return Asked(request)
            case SessionChanged(status=SessionStatus.FAILED):
                return End.STOPPED
            case SessionChanged(status=SessionStatus.COMPLETED) if self._given:
                return End.STOPPED  # the agent left without finishing the turn
            case WorkspaceChanged(status=WorkspaceStatus.FAILED | WorkspaceStatus.ARCHIVING | WorkspaceStatus.ARCHIVED):
                return End.STOPPED
            case _:
                pass
        return None
