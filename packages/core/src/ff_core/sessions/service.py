"""The sessions of this host: what may be asked of them, by their rules. The only way into this room."""

import asyncio
import builtins
from collections.abc import Callable
from typing import TypeVar

from ff_core.contract.events import SessionStarted
from ff_core.contract.places import Location
from ff_core.contract.session import (
    QUEUED_MAX,
    SESSIONS_MAX,
    Activity,
    Answer,
    Interrupt,
    Interrupted,
    MessageState,
    MessageView,
    NewMessage,
    NewSession,
    PendingRequest,
    SessionStatus,
    SessionView,
)
from ff_core.ids import MessageId, RequestId, SessionId, WorkspaceId
from ff_core.sessions.backend import Backends
from ff_core.sessions.errors import (
    AnswerUnfit,
    MessageExists,
    QueueFull,
    RequestSettled,
    RequestUnknown,
    SessionExists,
    SessionsMax,
    SessionUnknown,
    ShuttingDown,
)
from ff_core.sessions.ledger import INTERRUPTED, Ledger
from ff_core.sessions.runner import IDLE_CLOSE_S, Runner
from ff_core.sessions.texts import clean
from ff_core.store.engine import Store, Tx
from ff_core.store.journal import Journal
from ff_core.store.sessions import SessionRow, SessionTable
from ff_core.workspaces.gate import Gate
from ff_core.workspaces.ownership import Ownership
from ff_core.world import World

T = TypeVar("T")


class Sessions:
    """All sessions of one store. Call :meth:`recover` once before anything else, :meth:`close` at the end.

    ``backends`` starts an agent; it is called when a prompt waits and none lives. ``idle_close_s``: an agent that
    rests this long is ended; its session becomes IDLE and the next prompt resumes it. While ``gate`` is closed, or a workspace
    lives elsewhere or is on the move (``ownership``), no prompt is given to an agent; :meth:`resume_queues` goes on with them.
    """

    def __init__(
        self,
        *,
        store: Store,
        journal: Journal,
        world: World,
        backends: Backends,
        gate: Gate | None = None,
        ownership: Ownership | None = None,
        idle_close_s: float = IDLE_CLOSE_S,
    ) -> None:
        self._store, self._journal, self._world = store, journal, world
        self._gate = gate or Gate(world)
        self._ownership = ownership or Ownership(store, Location.CLOUD)
        self._backends, self._idle_close_s = backends, idle_close_s
        self._runners: dict[SessionId, Runner] = {}
        self._closing = False

    async def create(self, workspace_id: WorkspaceId, new: NewSession) -> SessionView:
        """Open a conversation; its agent starts with the first prompt. With an id it may be repeated.

        Raises ``SessionsMax``; ``SessionExists`` when the id is taken by another one; what ``Ownership.require`` does.
        """
        with self._store.transaction() as tx:
            self._ownership.require(tx, workspace_id)
            table = SessionTable(tx)
            if new.id is not None and (found := table.get(new.id)) is not None:
                if not _is_same(found, workspace_id, new):
                    raise SessionExists
                return table.view(found)
            others = table.of_workspace(workspace_id)
            open_ones = sum(row.status in (SessionStatus.IDLE, SessionStatus.RUNNING) for row in others)
            if open_ones >= SESSIONS_MAX:
                raise SessionsMax(f"This workspace has {open_ones} open sessions, which is the limit; go on in one of them.")
            now = self._world.now()
            row = SessionRow(
                id=new.id or SessionId(self._world.new_id()),
                workspace_id=workspace_id,
                name=new.name or f"Chat {len(others) + 1}",
                model=new.model,
                permissions=new.permissions,
                status=SessionStatus.IDLE,
                activity=Activity.IDLE,
                provider_session_id=None,
                has_history=False,
                grants=(),
                error=None,
                created_at=now,
                updated_at=now,
                workflow=new.workflow,
            )
            table.insert(row)
            started = SessionStarted(name=row.name, model=row.model, permissions=row.permissions)
            self._journal.append(tx, workspace_id, started, row.id)
            return table.view(row)

    def list(self, workspace_id: WorkspaceId) -> builtins.list[SessionView]:
        """The sessions of a workspace, oldest first."""
        return self._read(lambda tx: self.within(tx, workspace_id))

    def within(self, tx: Tx, workspace_id: WorkspaceId) -> builtins.list[SessionView]:
        """:meth:`list` as part of a transaction."""
        table = SessionTable(tx)
        return [table.view(row) for row in table.of_workspace(workspace_id)]

    def get(self, session_id: SessionId) -> SessionView:
        """A session. Raises ``SessionUnknown``."""
        return self._read(lambda tx: SessionTable(tx).view(_known(tx, session_id)))

    async def send(self, session_id: SessionId, new: NewMessage) -> MessageView:
        """Accept a prompt: when this returns it is durable and will be given to the agent in its turn.

        With an id it may be repeated. Raises ``SessionUnknown``, ``MessageExists`` when the id is taken by another
        prompt, ``QueueFull``, ``ShuttingDown``; what ``Ownership.require`` does.
        """
        if self._closing:
            raise ShuttingDown
        runner = self._runner(session_id)
        text = clean(new.text)
        with self._store.transaction() as tx:
            table = SessionTable(tx)
            if new.id is not None and (found := table.message(new.id)) is not None:
                if (found.session_id, found.text) != (session_id, text):
                    raise MessageExists
                return found
            self._ownership.require(tx, runner.workspace_id)
            if table.count_messages(session_id, MessageState.QUEUED) >= QUEUED_MAX:
                raise QueueFull(f"{QUEUED_MAX} prompts wait in this session already; let the agent answer some, or stop it.")
            message = MessageView(
                id=new.id or MessageId(self._world.new_id()),
                session_id=session_id,
                text=text,
                state=MessageState.QUEUED,
                created_at=self._world.now(),
            )
            runner.ledger.queue(tx, message)
        runner.wake()
        return message

    async def interrupt(self, session_id: SessionId, request: Interrupt) -> Interrupted:
        """Stop the turn, if there is one; returns when it has stopped. May be repeated.

        Raises ``SessionUnknown``, and what ``Ownership.require`` does.
        """
        runner = self._require_here(session_id)
        cancelled = 0 if request.keep_queued else runner.ledger.cancel_queued()
        return Interrupted(was_working=await runner.interrupt(), cancelled=cancelled)

    async def answer(self, session_id: SessionId, request_id: RequestId, answer: Answer) -> SessionView:
        """Answer what the agent asked.

        Raises ``RequestUnknown``, ``RequestSettled``, ``AnswerUnfit``, and what ``Ownership.require`` does.
        """
        runner = self._require_here(session_id)
        found = self._read(lambda tx: SessionTable(tx).request(session_id, request_id))
        if found is None:
            raise RequestUnknown
        request, state = found
        _require_fit(request, answer)
        if state != "PENDING":
            raise RequestSettled
        runner.answer(request, answer)
        return self.get(session_id)

    async def recover(self) -> None:
        """Put in order what a killed process left: no agent lives, open turns are interrupted, prompts still wait.

        Call it before anything else; agents of the dead process must be gone (a container dies as a whole).
        """
        for row in self._read(lambda tx: SessionTable(tx).unsettled()):
            status = SessionStatus.IDLE if row.status is SessionStatus.RUNNING else row.status
            self._runner(row.id).ledger.stop(status, outcome="interrupted", error=INTERRUPTED)

    async def resume_queues(self) -> None:
        """Go on with the prompts that wait. May be repeated."""
        for row in self._read(lambda tx: SessionTable(tx).with_queued()):
            self._runner(row.id).wake()

    async def close(self) -> None:
        """End all agents, within some twenty seconds. Sessions become IDLE, open turns are interrupted, prompts wait."""
        self._closing = True
        await asyncio.gather(*(runner.close() for runner in self._runners.values()))

    def working(self) -> int:
        """How many sessions are in the middle of something, waits for the user included."""
        return sum(runner.busy for runner in self._runners.values())

    def busy(self, workspace_id: WorkspaceId) -> builtins.list[SessionId]:
        """The sessions of a workspace that are in the middle of something, waits for the user included."""
        return [session for session, runner in self._runners.items() if runner.workspace_id == workspace_id and runner.busy]

    async def halt(self, workspace_id: WorkspaceId) -> None:
        """End the agents of a workspace in which nothing may begin any more: an open turn is interrupted, prompts wait.

        Afterwards their transcripts are whole. May be repeated.
        """
        mine = [runner for runner in self._runners.values() if runner.workspace_id == workspace_id]
        await asyncio.gather(*(runner.interrupt() for runner in mine))
        await asyncio.gather(*(runner.close() for runner in mine))
        self._runners = {session: runner for session, runner in self._runners.items() if runner not in mine}

    def _runner(self, session_id: SessionId) -> Runner:
        if session_id not in self._runners:
            row = self._read(lambda tx: _known(tx, session_id))
            ledger = Ledger(session_id, store=self._store, journal=self._journal, world=self._world)
            self._runners[session_id] = Runner(
                ledger,
                row,
                journal=self._journal,
                world=self._world,
                backends=self._backends,
                may_work=self._may_work,
                idle_close_s=self._idle_close_s,
                touch=self._gate.touch,
            )
        return self._runners[session_id]

    def _may_work(self, workspace_id: WorkspaceId) -> bool:
        return not self._gate.resting and self._ownership.may_work(workspace_id)

    def _require_here(self, session_id: SessionId) -> Runner:
        runner = self._runner(session_id)
        self._read(lambda tx: self._ownership.require(tx, runner.workspace_id))
        return runner

    def _read(self, query: Callable[[Tx], T]) -> T:
        with self._store.transaction() as tx:
            return query(tx)


def _known(tx: Tx, session_id: SessionId) -> SessionRow:
    row = SessionTable(tx).get(session_id)
    if row is None:
        raise SessionUnknown
    return row


def _is_same(row: SessionRow, workspace_id: WorkspaceId, new: NewSession) -> bool:
    same_name = new.name is None or new.name == row.name
    mine = (row.workspace_id, row.workflow, row.model, row.permissions)
    return same_name and mine == (workspace_id, new.workflow, new.model, new.permissions)


def _require_fit(request: PendingRequest, answer: Answer) -> None:
    if request.kind == "permission" and answer.decision is None:
        raise AnswerUnfit("This is a permission request: say a decision (allow, allow_always, deny).")
    if request.kind == "question" and not answer.answers and not answer.message:
        raise AnswerUnfit("This is a question: say answers (question text to label) or a message in your own words.")
