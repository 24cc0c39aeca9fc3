"""A restored journal goes on after the newest event that anybody saw.

The control plane has a copy of the journal that may be newer than the checkpoint. Its events are put back, so that ``seq``
stands for the same event everywhere and for ever; but what they tell of is lost. So what they began and did not end is
ended, in words a client knows already, and nothing of it runs again: its effects outside may have happened.
"""

from collections.abc import Iterator

from ff_core.contract.base import ErrorView
from ff_core.contract.events import (
    Event,
    EventBody,
    MessageCancelled,
    MessageQueued,
    MessageUser,
    PermissionRequested,
    PermissionResolved,
    QuestionAnswered,
    QuestionAsked,
    SessionChanged,
    SessionStarted,
    TurnFinished,
)
from ff_core.contract.session import Activity, MessageState, SessionStatus
from ff_core.ids import MessageId, RequestId, SessionId
from ff_core.store.engine import Tx
from ff_core.store.sessions import SessionTable

LOST = ErrorView(
    code="lost_with_vm",
    message="The machine was lost and the workspace restored from its last save, which is older than this. "
    "What it changed in files is gone; send a prompt to go on.",
)

Ending = tuple[SessionId, EventBody]


class Aftermath:
    """What is open at the end of the events that were seen, in order, after those a database knows."""

    def __init__(self) -> None:
        self._queued: dict[MessageId, tuple[SessionId, str]] = {}
        self._sent: dict[MessageId, SessionId] = {}
        self._messages: dict[MessageId, MessageState] = {}
        self._requests: dict[RequestId, tuple[SessionId, EventBody]] = {}
        self._settled: set[RequestId] = set()
        self._states: dict[SessionId, SessionChanged | None] = {}

    def see(self, event: Event) -> None:  # noqa: C901  (a table)
        """The next event."""
        session = event.session_id
        if session is None:
            return
        match event.body:
            case SessionStarted():
                self._states.setdefault(session, None)
            case SessionChanged() as state:
                self._states[session] = state
            case MessageQueued(message_id=message, text=text):
                self._queued[message] = (session, text)
            case MessageUser(message_id=message):
                self._queued.pop(message, None)
                self._sent[message] = session
                self._messages[message] = MessageState.DONE
            case MessageCancelled(message_id=message):
                self._queued.pop(message, None)
                self._messages[message] = MessageState.CANCELLED
            case TurnFinished(message_ids=messages):
                for message in messages:
                    self._sent.pop(message, None)
                    self._messages[message] = MessageState.DONE
            case PermissionRequested(request_id=request):
                self._requests[request] = (session, PermissionResolved(request_id=request, decision="cancelled"))
            case QuestionAsked(request_id=request):
                self._requests[request] = (session, QuestionAnswered(request_id=request, answers={}, cancelled=True))
            case PermissionResolved(request_id=request) | QuestionAnswered(request_id=request):
                self._requests.pop(request, None)
                self._settled.add(request)
            case _:
                pass

    def settle(self, tx: Tx) -> None:
        """Mark what is over in the database's own rows, so that it is neither ended nor carried out once more."""
        table = SessionTable(tx)
        for message, state in self._messages.items():
            table.set_message_state(message, state)
        for request in self._settled:
            table.settle_request(request, "ANSWERED")

    def endings(self, tx: Tx) -> Iterator[Ending]:
        """The events that end what is open, each with its session."""
        table = SessionTable(tx)
        yield from self._requests.values()
        turns: dict[SessionId, list[MessageId]] = {}
        for message, session in self._sent.items():
            turns.setdefault(session, []).append(message)
        for session, messages in turns.items():
            yield session, TurnFinished(message_ids=tuple(messages), outcome="interrupted", error=LOST)
        for message, (session, text) in self._queued.items():
            yield session, MessageCancelled(message_id=message, text=text)
        for session, state in self._states.items():
            row = table.get(session)
            if row is None:
                yield session, SessionChanged(status=SessionStatus.FAILED, activity=Activity.IDLE, error=LOST)
            elif state is not None and (state.status, state.activity) != (row.status, row.activity):
                yield session, SessionChanged(status=row.status, activity=row.activity, error=row.error)
