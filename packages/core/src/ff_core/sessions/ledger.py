"""What a session writes: each change of its rows together with the events that tell of it, in one transaction."""

from collections.abc import Sequence
from typing import Literal

from ff_core.contract.base import ErrorView
from ff_core.contract.events import (
    EventBody,
    MessageCancelled,
    MessageQueued,
    MessageUser,
    PermissionRequested,
    PermissionResolved,
    QuestionAnswered,
    QuestionAsked,
    SessionChanged,
    TurnFinished,
)
from ff_core.contract.session import Activity, Answer, MessageState, MessageView, PendingRequest, SessionStatus
from ff_core.ids import MessageId, RequestId, SessionId
from ff_core.sessions.backend import ToolCall
from ff_core.sessions.errors import RequestSettled, SessionUnknown
from ff_core.sessions.machine import SESSION, activity_of
from ff_core.sessions.texts import clean, cut, cut_json
from ff_core.store.engine import Store, Tx
from ff_core.store.journal import Journal
from ff_core.store.sessions import SessionRow, SessionTable
from ff_core.world import World

TITLE_CHARS_MAX = 500

INTERRUPTED = ErrorView(
    code="interrupted",
    message="The agent was stopped in the middle of this turn by a restart. What it did before is kept; send a prompt to go on.",
)


class Ledger:
    """The books of one session. ``running`` and ``tasks`` are what the live agent last said of itself."""

    def __init__(self, session_id: SessionId, *, store: Store, journal: Journal, world: World) -> None:
        self.session_id = session_id
        self.running = False
        self.tasks = 0
        self._store, self._journal, self._world = store, journal, world
        with store.transaction() as tx:
            row = self._row(tx)
        self._workspace_id = row.workspace_id
        self._has_history = row.has_history
        self.activity = row.activity

    def row(self) -> SessionRow:
        """The session as it is stored."""
        with self._store.transaction() as tx:
            return self._row(tx)

    def sent(self) -> list[MessageId]:
        """The prompts the agent has and has not answered."""
        with self._store.transaction() as tx:
            return self._sent(tx)

    def has_queued(self) -> bool:
        """Whether prompts wait."""
        with self._store.transaction() as tx:
            return SessionTable(tx).next_queued(self.session_id) is not None

    def queue(self, tx: Tx, message: MessageView) -> None:
        """Accept a prompt."""
        SessionTable(tx).insert_message(message)
        self._append(tx, MessageQueued(message_id=message.id, text=message.text))
        self._sync(tx)

    def cancel_queued(self) -> int:
        """Drop the prompts that wait; says how many."""
        with self._store.transaction() as tx:
            table = SessionTable(tx)
            waiting = table.messages(self.session_id, MessageState.QUEUED)
            for message in waiting:
                table.set_message_state(message.id, MessageState.CANCELLED)
                self._append(tx, MessageCancelled(message_id=message.id, text=message.text))
            self._sync(tx)
        return len(waiting)

    def begin(self) -> SessionRow:
        """An agent is about to be started."""
        if self.row().status is SessionStatus.RUNNING:
            self.stop(SessionStatus.IDLE, outcome="interrupted", error=INTERRUPTED)
        self.running, self.tasks = False, 0
        with self._store.transaction() as tx:
            row = self._row(tx)
            self._sync(tx, status=SessionStatus.RUNNING, resumed=row.provider_session_id is not None)
            return row

    def conversation(self, provider_session_id: str) -> None:
        """The agent goes by this name."""
        with self._store.transaction() as tx:
            SessionTable(tx).set_conversation(self.session_id, provider_session_id, has_history=self._has_history)

    def take(self) -> MessageView | None:
        """The next prompt for the agent, marked as sent; None while it has one, or when none waits."""
        with self._store.transaction() as tx:
            table = SessionTable(tx)
            if self._sent(tx) or (message := table.next_queued(self.session_id)) is None:
                return None
            table.set_message_state(message.id, MessageState.SENT)
            self._append(tx, MessageUser(message_id=message.id, text=message.text))
            self._sync(tx)
        return message

    def note(self, body: EventBody) -> None:
        """Write what the agent said or did."""
        with self._store.transaction() as tx:
            self._note(tx, body)

    def set_running(self, running: bool) -> None:
        """Write whether the agent is in a turn."""
        self.running = running
        with self._store.transaction() as tx:
            self._sync(tx)

    def end_turn(self, turn: TurnFinished) -> None:
        """Write the end of a turn; prompts of it that are not ours are left out."""
        with self._store.transaction() as tx:
            sent = self._sent(tx)
            ours = tuple(message_id for message_id in turn.message_ids if message_id in sent)
            for message_id in ours:
                SessionTable(tx).set_message_state(message_id, MessageState.DONE)
            self._note(tx, turn.model_copy(update={"message_ids": ours}))
            self._sync(tx)

    def settle(self, message_id: MessageId, *, cancelled: bool) -> None:
        """The agent is done with a prompt; nothing to write when its turn's end said so already."""
        if message_id in self.sent():
            self.end_turn(TurnFinished(message_ids=(message_id,), outcome="interrupted" if cancelled else "done"))

    def ask(self, call: ToolCall) -> RequestId:
        """Put a request to the user."""
        request_id = RequestId(self._world.new_id())
        given, _ = cut_json(call.input)
        request = PendingRequest(
            id=request_id,
            kind="question" if call.questions else "permission",
            tool_name=call.name,
            input=given,
            questions=call.questions,
            asked_at=self._world.now(),
        )
        with self._store.transaction() as tx:
            SessionTable(tx).insert_request(self.session_id, request)
            if call.questions:
                self._append(tx, QuestionAsked(request_id=request_id, questions=call.questions))
            else:
                self._append(
                    tx,
                    PermissionRequested(
                        request_id=request_id, tool_name=call.name, input=given, title=cut(call.title, TITLE_CHARS_MAX)[0]
                    ),
                )
            self._sync(tx)
        return request_id

    def answer(self, request: PendingRequest, answer: Answer, call: ToolCall) -> None:
        """Write the user's answer. Raises ``RequestSettled`` when there is one already."""
        message = None if answer.message is None else clean(answer.message)
        answers = {clean(question): clean(label) for question, label in (answer.answers or {}).items()}
        with self._store.transaction() as tx:
            table = SessionTable(tx)
            if not table.settle_request(request.id, "ANSWERED"):
                raise RequestSettled
            if request.kind == "question":
                self._append(tx, QuestionAnswered(request_id=request.id, answers=answers, message=message))
            else:
                decision = answer.decision or "deny"
                self._append(tx, PermissionResolved(request_id=request.id, decision=decision, message=message))
                if decision == "allow_always":
                    table.add_grants(self.session_id, call.grants)
            self._sync(tx)

    def cancel_request(self, request_id: RequestId) -> None:
        """A request is void; nothing to write when it was answered."""
        with self._store.transaction() as tx:
            found = SessionTable(tx).request(self.session_id, request_id)
            if found is not None:
                self._cancel(tx, [found[0]])
            self._sync(tx)

    def start_failed(self, error: ErrorView) -> None:
        """The agent could not be started: the prompt it was started for has failed, later ones wait for the next try."""
        with self._store.transaction() as tx:
            head = SessionTable(tx).next_queued(self.session_id)
            if head is not None:
                SessionTable(tx).set_message_state(head.id, MessageState.DONE)
                self._append(tx, TurnFinished(message_ids=(head.id,), outcome="failed", error=error))
            self._sync(tx, status=SessionStatus.FAILED, error=error)

    def stop(
        self,
        status: SessionStatus,
        *,
        outcome: Literal["interrupted", "failed"],
        error: ErrorView | None,
        always_error: bool = False,
    ) -> None:
        """There is no agent any more: requests are void, an open turn has ended. ``error`` is told if there was one."""
        self.running, self.tasks = False, 0
        with self._store.transaction() as tx:
            table = SessionTable(tx)
            pending, sent = table.pending(self.session_id), self._sent(tx)
            self._cancel(tx, pending)
            for message_id in sent:
                table.set_message_state(message_id, MessageState.DONE)
            if sent:
                self._append(tx, TurnFinished(message_ids=tuple(sent), outcome=outcome, error=error))
            told = error if sent or pending or always_error else None
            self._sync(tx, status=status, error=told)

    def _cancel(self, tx: Tx, requests: Sequence[PendingRequest]) -> None:
        for request in requests:
            if not SessionTable(tx).settle_request(request.id, "CANCELLED"):
                continue
            if request.kind == "question":
                self._append(tx, QuestionAnswered(request_id=request.id, answers={}, cancelled=True))
            else:
                self._append(tx, PermissionResolved(request_id=request.id, decision="cancelled"))

    def _note(self, tx: Tx, body: EventBody) -> None:
        self._append(tx, body)
        if not self._has_history:
            row = self._row(tx)
            if row.provider_session_id is not None:
                SessionTable(tx).set_conversation(self.session_id, row.provider_session_id, has_history=True)
                self._has_history = True

    def _append(self, tx: Tx, body: EventBody) -> None:
        self._journal.append(tx, self._workspace_id, body, self.session_id)

    def _row(self, tx: Tx) -> SessionRow:
        row = SessionTable(tx).get(self.session_id)
        if row is None:
            raise SessionUnknown
        return row

    def _sent(self, tx: Tx) -> list[MessageId]:
        return [message.id for message in SessionTable(tx).messages(self.session_id, MessageState.SENT)]

    def _sync(
        self, tx: Tx, *, status: SessionStatus | None = None, error: ErrorView | None = None, resumed: bool = False
    ) -> None:
        """Write status and activity if they changed, with their event. Without ``status`` the error stays as it is."""
        row, table = self._row(tx), SessionTable(tx)
        if status is None:
            status, error = row.status, row.error
        elif status is not row.status:
            SESSION.move(row.status, status)
        activity = activity_of(
            alive=status is SessionStatus.RUNNING,
            pending=bool(table.pending(self.session_id)),
            open_turn=self.running or bool(self._sent(tx)),
            queued=table.next_queued(self.session_id) is not None,
        )
        self.activity = activity
        if (status, activity, error) != (row.status, row.activity, row.error):
            table.set_state(self.session_id, status, activity, error, now=self._world.now())
            self._append(tx, SessionChanged(status=status, activity=activity, resumed=resumed, error=error))

    @property
    def resting(self) -> bool:
        """Nothing goes on: the agent's process could be ended without anybody noticing."""
        return self.activity is Activity.IDLE and self.tasks == 0
