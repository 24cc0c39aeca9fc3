"""Runs one session: starts its agent when prompts wait, gives it one prompt at a time, writes down what happens."""

import asyncio
import contextlib
import logging
from collections.abc import Callable, Mapping

from ff_core.contract.base import ErrorView
from ff_core.contract.events import MessageAssistant, MessageDelta, Thinking
from ff_core.contract.problem import code_of
from ff_core.contract.session import Answer, PendingRequest, SessionStatus
from ff_core.errors import FFError
from ff_core.ids import RequestId, WorkspaceId
from ff_core.sessions import permissions
from ff_core.sessions.backend import (
    AgentBackend,
    Allow,
    Backends,
    BackendSpec,
    BackgroundChanged,
    ConversationMoved,
    Decision,
    Deny,
    Died,
    Fact,
    Hinted,
    HintsVoid,
    Noted,
    PromptSettled,
    StateChanged,
    ToolCall,
    TurnEnded,
)
from ff_core.sessions.deltas import Deltas
from ff_core.sessions.errors import AgentGone, RequestSettled, ResumeFailed
from ff_core.sessions.ledger import INTERRUPTED, Ledger
from ff_core.store.journal import Journal
from ff_core.store.sessions import SessionRow
from ff_core.world import World

IDLE_CLOSE_S = 900.0
"""An agent that rests this long is ended to save its memory; the next prompt resumes the conversation."""
INTERRUPT_TIMEOUT_S = 10.0
"""A turn that does not stop by then is stopped by ending the agent."""
CLOSE_TIMEOUT_S = 10.0
LAST_WORDS_S = 5.0
"""After an agent refused a prompt, how long to wait for the fact that says why."""

_LOG = logging.getLogger(__name__)


class Runner:
    """One session's life. :meth:`wake` may be called at any time and as often as one likes."""

    def __init__(
        self,
        ledger: Ledger,
        row: SessionRow,
        *,
        journal: Journal,
        world: World,
        backends: Backends,
        may_work: Callable[[WorkspaceId], bool],
        touch: Callable[[], None],
        idle_close_s: float,
    ) -> None:
        self.ledger = ledger
        self._row, self._world, self._backends, self._idle_close_s = row, world, backends, idle_close_s
        self._may_work, self._touch = may_work, touch

        def publish(delta: MessageDelta) -> None:
            journal.hint(row.workspace_id, delta, row.id)

        self._deltas = Deltas(publish)
        self._task: asyncio.Task[None] | None = None
        self._backend: AgentBackend | None = None
        self._died: Died | None = None
        self._news = asyncio.Event()
        self._turned = asyncio.Event()
        self._wanted = False
        self._closing = False
        self._waiting: dict[RequestId, tuple[ToolCall, asyncio.Future[Decision]]] = {}

    @property
    def workspace_id(self) -> WorkspaceId:
        """Of which workspace the session is."""
        return self._row.workspace_id

    @property
    def busy(self) -> bool:
        """In the middle of something, or about to be: a prompt was taken and its agent is not started yet."""
        about_to = self._wanted and self._task is not None and not self._task.done()
        return about_to or not self.ledger.resting

    def wake(self) -> None:
        """There may be a prompt to give."""
        self._wanted = True
        self._news.set()
        if (self._task is None or self._task.done()) and not self._halted:
            self._task = asyncio.create_task(self._run(), name=f"session-{self._row.id}")

    async def interrupt(self) -> bool:
        """Stop the turn and return when it has stopped; false when there was none."""
        backend = self._backend
        sent = set(self.ledger.sent())
        if backend is None or not (sent or self.ledger.running):
            return False
        try:
            async with asyncio.timeout(INTERRUPT_TIMEOUT_S):
                await backend.interrupt()
                while self._backend is backend and (not sent.isdisjoint(self.ledger.sent()) if sent else self.ledger.running):
                    self._turned.clear()
                    await self._turned.wait()
        except (AgentGone, TimeoutError):
            await backend.close()
        return True

    def answer(self, request: PendingRequest, answer: Answer) -> None:
        """Pass the user's answer on. Raises ``RequestSettled`` when nobody waits for it any more."""
        call, future = self._waiting.get(request.id, (None, None))
        if call is None or future is None or future.done():
            raise RequestSettled
        self.ledger.answer(request, answer, call)
        future.set_result(_decision(call, answer))

    async def close(self) -> None:
        """End the agent, if one lives, within some ten seconds. Prompts that wait go on waiting."""
        self._closing = True
        self._news.set()
        task = self._task
        if task is None or task.done():
            return
        if self._backend is None:
            task.cancel()  # it is starting an agent
        await asyncio.wait([task], timeout=CLOSE_TIMEOUT_S)
        task.cancel()
        await asyncio.wait([task], timeout=CLOSE_TIMEOUT_S)

    @property
    def _halted(self) -> bool:
        return self._closing or not self._may_work(self.workspace_id)

    async def _run(self) -> None:
        while self._wanted and not self._halted:
            self._wanted = False
            try:
                if self.ledger.has_queued():
                    await self._live()
            except FFError as error:
                # Such as a full disk: nothing can be written now; beginning again puts the books in order.
                _LOG.warning("session %s: %s", self._row.id, error.detail)
            except Exception:  # noqa: BLE001  (the session must say that it failed)
                _LOG.exception("session %s broke", self._row.id)
                with contextlib.suppress(FFError):
                    self.ledger.stop(SessionStatus.FAILED, outcome="failed", error=_view(FFError()), always_error=True)

    async def _live(self) -> None:
        """From the start of an agent to its end."""
        self._died = None
        try:
            backend = await self._open()
        except asyncio.CancelledError:
            self.ledger.stop(SessionStatus.IDLE, outcome="interrupted", error=INTERRUPTED)
            raise
        if backend is None:
            return
        self._backend = backend
        pump = asyncio.create_task(self._pump(backend), name=f"session-{self._row.id}-facts")
        try:
            await self._feed(backend, pump)
        finally:
            try:
                if not pump.done():
                    await backend.close()
                    await asyncio.wait([pump], timeout=LAST_WORDS_S)
                pump.cancel()
                await asyncio.wait([pump])
            finally:
                self._backend = None
                self._turned.set()
                self._end(pump)
                await backend.close()

    async def _open(self) -> AgentBackend | None:
        row = self.ledger.begin()
        name = row.provider_session_id or str(self._world.new_id())
        try:
            try:
                backend = await self._backends(self._spec(row, name, resume=row.provider_session_id is not None))
            except ResumeFailed:
                if row.has_history:
                    raise
                # The agent was ended before it said a word, so there is no conversation that could be lost.
                backend = await self._backends(self._spec(row, name, resume=False))
        except FFError as error:
            self.ledger.start_failed(_view(error))
            return None
        self.ledger.conversation(name)
        return backend

    def _spec(self, row: SessionRow, provider_session_id: str, *, resume: bool) -> BackendSpec:
        return BackendSpec(
            workspace_id=row.workspace_id,
            session_id=row.id,
            provider_session_id=provider_session_id,
            resume=resume,
            model=row.model,
            permissions=row.permissions,
            decide=self._decide,
            grants=row.grants,
        )

    async def _feed(self, backend: AgentBackend, pump: asyncio.Task[None]) -> None:
        """Give prompts until the agent dies, rests for long, or we are closed."""
        while not pump.done() and not self._closing:
            self._wanted = False
            self._news.clear()
            message = self.ledger.take() if self._may_work(self.workspace_id) else None
            if message is not None:
                try:
                    await backend.send(message.id, message.text)
                except AgentGone as error:
                    await asyncio.wait([pump], timeout=LAST_WORDS_S)
                    self._died = self._died or Died("broken", error.code, error.detail)
                    return
            if not await self._something_new(pump):
                return

    async def _something_new(self, pump: asyncio.Task[None]) -> bool:
        """Wait for news; false when the agent has rested for too long instead."""
        waiters: set[asyncio.Task[object]] = {asyncio.create_task(self._news.wait(), name="session-news")}
        if self.ledger.resting:
            waiters.add(asyncio.create_task(self._world.sleep(self._idle_close_s), name="session-rest"))
        try:
            await asyncio.wait({*waiters, pump}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for waiter in waiters:
                waiter.cancel()
            await asyncio.gather(*waiters, return_exceptions=True)
        return self._news.is_set() or pump.done()

    async def _pump(self, backend: AgentBackend) -> None:
        try:
            async for fact in backend.facts():
                self._apply(fact)
        finally:
            self._turned.set()

    def _apply(self, fact: Fact) -> None:
        match fact:
            case Hinted():
                self._deltas.add(fact.text, thinking=fact.thinking)
                return
            case HintsVoid():
                self._deltas.void()
                return
            case Noted():
                self._touch()
                self._deltas.stored(replaces=isinstance(fact.body, MessageAssistant | Thinking))
                self.ledger.note(fact.body)
                return
            case TurnEnded():
                self._deltas.stored(replaces=True)
                self.ledger.end_turn(fact.body)
            case PromptSettled():
                self.ledger.settle(fact.message_id, cancelled=fact.cancelled)
            case StateChanged():
                self.ledger.set_running(fact.running)
            case BackgroundChanged():
                self.ledger.tasks = fact.tasks
            case ConversationMoved():
                self.ledger.conversation(fact.provider_session_id)
            case Died():
                self._died = fact
                # Only a prompt sent from now on starts an agent again: what waits must not be thrown at a dying one.
                self._wanted = False
        self._touch()
        self._turned.set()
        self._news.set()

    def _end(self, pump: asyncio.Task[None]) -> None:
        """Write how the agent ended."""
        self._touch()
        self._deltas.stored(replaces=True)
        broken = None if pump.cancelled() else pump.exception()
        died = self._died
        if broken is not None:
            _LOG.error("session %s: its events could not be written", self._row.id, exc_info=broken)
            error = broken if isinstance(broken, FFError) else FFError()
            died = Died("broken", code_of(error), error.detail)
        if died is None:
            self.ledger.stop(SessionStatus.IDLE, outcome="interrupted", error=INTERRUPTED if self._closing else None)
        elif died.clean and not (self.ledger.running or self.ledger.sent()):
            self.ledger.stop(SessionStatus.COMPLETED, outcome="failed", error=None)
        else:
            error_view = ErrorView(code=died.code, message=died.sentence)
            self.ledger.stop(SessionStatus.FAILED, outcome="failed", error=error_view, always_error=True)

    async def _decide(self, call: ToolCall) -> Decision:
        if permissions.rule(self._row.permissions, call) is permissions.Ruling.ALLOW:
            return Allow()
        request_id = self.ledger.ask(call)
        future: asyncio.Future[Decision] = asyncio.get_running_loop().create_future()
        self._waiting[request_id] = (call, future)
        try:
            return await future
        except asyncio.CancelledError:
            self.ledger.cancel_request(request_id)
            raise
        finally:
            del self._waiting[request_id]


def _decision(call: ToolCall, answer: Answer) -> Decision:
    if call.questions:
        if answer.answers:
            return Allow(answers=_complete(answer.answers, answer.message))
        return Deny(answer.message or "")
    if answer.decision == "deny":
        return Deny(answer.message or "The user refused this. Do something else, or ask what he wants instead.")
    return Allow(always=answer.decision == "allow_always")


def _complete(answers: Mapping[str, str], message: str | None) -> dict[str, str]:
    return {**answers, **({"The user adds": message} if message else {})}


def _view(error: FFError) -> ErrorView:
    return ErrorView(code=code_of(error), message=error.detail)
