"""The service on a real database, with an agent whose every word the test decides."""

import asyncio
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable
from pathlib import PurePosixPath
from uuid import UUID

import pytest

from ff_core.contract.events import MessageAssistant, TurnFinished
from ff_core.contract.session import (
    QUEUED_MAX,
    SESSIONS_MAX,
    Activity,
    Answer,
    Interrupt,
    NewMessage,
    NewSession,
    Option,
    PermissionPreset,
    Question,
    SessionStatus,
)
from ff_core.errors import FFError, NotFound
from ff_core.ids import MessageId, RequestId, SessionId, WorkspaceId
from ff_core.sessions import errors
from ff_core.sessions.backend import (
    Allow,
    BackendSpec,
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
from ff_core.sessions.service import Sessions
from ff_core.store.engine import Store
from ff_core.store.journal import Journal
from ff_core.workspaces.gate import Gate
from ff_core.world import SystemWorld

WORKSPACE = WorkspaceId(UUID(int=7))
END = None


class Agent:
    """Does what the test says: ``tell`` makes it emit a fact."""

    def __init__(self, spec: BackendSpec) -> None:
        self.spec = spec
        self.got: list[tuple[MessageId, str]] = []
        self.interrupts = 0
        self.closed = False
        self.deaf = False
        self._facts: asyncio.Queue[Fact | None] = asyncio.Queue()

    def tell(self, *facts: Fact | None) -> None:
        for fact in facts:
            self._facts.put_nowait(fact)

    def done(self, outcome: str = "done") -> None:
        """End the turn of the last prompt."""
        self.tell(TurnEnded(TurnFinished(message_ids=(self.got[-1][0],), outcome=outcome)), StateChanged(running=False))

    async def facts(self) -> AsyncIterator[Fact]:
        while (fact := await self._facts.get()) is not END:
            yield fact

    async def send(self, message_id: MessageId, text: str) -> None:
        if self.deaf:
            raise errors.AgentGone
        self.got.append((message_id, text))
        self.tell(StateChanged(running=True))

    async def interrupt(self) -> None:
        self.interrupts += 1
        self.done("interrupted")

    async def close(self) -> None:
        self.closed = True
        self.tell(END)


class Host:
    def __init__(self, path) -> None:
        self.agents: list[Agent] = []
        self.refuse: list[FFError] = []
        self.store = Store.open(path)
        self.boot()

    def boot(self) -> None:
        world = SystemWorld()
        self.journal = Journal(self.store, world)
        self.gate = Gate(world)
        self.sessions = Sessions(store=self.store, journal=self.journal, world=world, backends=self.open, gate=self.gate)

    async def open(self, spec: BackendSpec) -> Agent:
        if self.refuse:
            raise self.refuse.pop(0)
        self.agents.append(Agent(spec))
        return self.agents[-1]

    async def session(self, permissions=PermissionPreset.STRICT) -> SessionId:
        return (await self.sessions.create(WORKSPACE, NewSession(permissions=permissions))).id

    async def say(self, session: SessionId, text: str) -> MessageId:
        return (await self.sessions.send(session, NewMessage(text=text))).id

    async def begun(self, session: SessionId, text: str = "go") -> Agent:
        """An agent that has a prompt."""
        await self.say(session, text)
        mine = lambda: [agent for agent in self.agents if agent.spec.session_id == session and agent.got and not agent.closed]  # noqa: E731
        return (await self.until(mine))[-1]

    async def until(self, found: Callable[[], object]):
        end = time.monotonic() + 5
        while not (value := found()):
            if time.monotonic() > end:
                raise AssertionError([event.body for event in self.events()])
            await asyncio.sleep(0.002)
        return value

    def events(self) -> list:
        return self.journal.read(WORKSPACE, 0, 10_000)

    def kinds(self) -> list[str]:
        return [event.body.kind for event in self.events()]

    def bodies(self, kind: str) -> list:
        return [event.body for event in self.events() if event.body.kind == kind]


@pytest.fixture
async def host(tmp_path) -> AsyncIterator[Host]:
    host = Host(tmp_path / "state.db")
    yield host
    await host.sessions.close()
    host.store.close()
    assert all(agent.closed for agent in host.agents)


def test_the_service_knows_no_agent():
    program = "import sys, ff_core.sessions.service; sys.exit('claude_agent_sdk' in sys.modules)"
    subprocess.run([sys.executable, "-c", program], check=True, timeout=30)


async def test_creating_twice_is_one_session(host):
    new = NewSession(id=SessionId(UUID(int=5)), name="Mine", model="sonnet")
    first = await host.sessions.create(WORKSPACE, new)
    assert await host.sessions.create(WORKSPACE, new) == first
    assert host.kinds() == ["session.started"]
    with pytest.raises(errors.SessionExists):
        await host.sessions.create(WORKSPACE, new.model_copy(update={"model": "opus"}))
    with pytest.raises(errors.SessionExists):
        await host.sessions.create(WorkspaceId(UUID(int=8)), new)


async def test_names_and_the_limit_of_sessions(host):
    names = [(await host.sessions.create(WORKSPACE, NewSession())).name for _ in range(SESSIONS_MAX)]
    assert names == [f"Chat {n}" for n in range(1, SESSIONS_MAX + 1)]
    assert [view.name for view in host.sessions.list(WORKSPACE)] == names
    with pytest.raises(errors.SessionsMax):
        await host.sessions.create(WORKSPACE, NewSession())
    await host.sessions.create(WorkspaceId(UUID(int=8)), NewSession())


async def test_what_does_not_exist(host):
    nobody = SessionId(UUID(int=9))
    for attempt in (
        host.sessions.send(nobody, NewMessage(text="x")),
        host.sessions.interrupt(nobody, Interrupt()),
        host.sessions.answer(nobody, RequestId(UUID(int=1)), Answer(decision="allow")),
    ):
        with pytest.raises(NotFound):
            await attempt
    with pytest.raises(NotFound):
        host.sessions.get(nobody)


async def test_a_prompt_sent_twice_is_taken_once(host):
    session, other = await host.session(), await host.session()
    prompt = NewMessage(id=MessageId(UUID(int=3)), text="hello\0")
    first = await host.sessions.send(session, prompt)
    assert first.text == "hello\ufffd"
    again = await host.sessions.send(session, prompt)
    assert (again.id, again.text) == (first.id, first.text)
    assert host.kinds().count("message.queued") == 1
    with pytest.raises(errors.MessageExists):
        await host.sessions.send(session, prompt.model_copy(update={"text": "other"}))
    with pytest.raises(errors.MessageExists):
        await host.sessions.send(other, prompt)


async def test_a_prompt_during_a_turn_waits_for_its_end(host):
    session = await host.session()
    agent = await host.begun(session, "one")
    second = await host.say(session, "two")
    agent.tell(Noted(MessageAssistant(text="working")), StateChanged(running=False), StateChanged(running=True))
    await host.until(lambda: host.bodies("message.assistant"))
    assert [text for _, text in agent.got] == ["one"]
    assert host.sessions.get(session).queued == 1
    agent.done()
    await host.until(lambda: [text for _, text in agent.got] == ["one", "two"])
    agent.done()
    await host.until(lambda: host.sessions.get(session).activity is Activity.IDLE)
    assert host.bodies("turn.finished")[-1].message_ids == (second,)
    activities = [body.activity for body in host.bodies("session.status")]
    assert activities == [Activity.WORKING, Activity.IDLE], "no flicker between two prompts"


async def test_the_queue_is_bounded(host):
    session = await host.session()
    await host.begun(session)
    for n in range(QUEUED_MAX):
        await host.say(session, f"{n}")
    with pytest.raises(errors.QueueFull):
        await host.say(session, "one too many")


async def test_a_prompt_the_agent_settles_without_a_turn_end(host):
    session = await host.session()
    agent = await host.begun(session)
    agent.tell(PromptSettled(agent.got[0][0], cancelled=False), StateChanged(running=False))
    await host.until(lambda: host.sessions.get(session).activity is Activity.IDLE)
    assert host.bodies("turn.finished")[0].outcome == "done"
    agent.tell(PromptSettled(agent.got[0][0], cancelled=False))
    assert len(host.bodies("turn.finished")) == 1


async def test_interrupt_keeps_or_drops_what_waits(host):
    session = await host.session()
    agent = await host.begun(session)
    await host.say(session, "kept")
    done = await host.sessions.interrupt(session, Interrupt(keep_queued=True))
    assert (done.was_working, done.cancelled) == (True, 0)
    await host.until(lambda: [text for _, text in agent.got] == ["go", "kept"])
    await host.say(session, "dropped")
    done = await host.sessions.interrupt(session, Interrupt())
    assert (done.was_working, done.cancelled) == (True, 1)
    assert host.bodies("message.cancelled")[0].text == "dropped"
    done = await host.sessions.interrupt(session, Interrupt())
    assert (done.was_working, done.cancelled, agent.interrupts) == (False, 0, 2)


def asks(agent: Agent, name: str = "Bash", questions: tuple[Question, ...] = ()) -> asyncio.Task:
    call = ToolCall(
        "t1", name, {"command": "x"}, PurePosixPath("/workspace/repo"), questions=questions, grants=({"type": "addRules"},)
    )
    return asyncio.create_task(agent.spec.decide(call))


async def test_answers_must_fit_and_come_once(host):
    session = await host.session()
    agent = await host.begun(session)
    asked = asks(agent)
    request = await host.until(lambda: next(iter(host.sessions.get(session).pending), None))
    assert host.sessions.get(session).activity is Activity.WAITING
    assert host.sessions.working() == 1
    with pytest.raises(errors.AnswerUnfit):
        await host.sessions.answer(session, request.id, Answer(message="hm"))
    with pytest.raises(errors.RequestUnknown):
        await host.sessions.answer(await host.session(), request.id, Answer(decision="allow"))
    await host.sessions.answer(session, request.id, Answer(decision="allow_always"))
    assert await asked == Allow(always=True)
    with pytest.raises(errors.RequestSettled):
        await host.sessions.answer(session, request.id, Answer(decision="allow"))
    assert host.sessions.get(session).activity is Activity.WORKING
    agent.tell(Died("killed", "agent_died", "It died."), END)
    await host.until(lambda: host.sessions.get(session).status is SessionStatus.FAILED)
    await host.say(session, "again")
    await host.until(lambda: len(host.agents) == 2)
    assert host.agents[1].spec.grants == ({"type": "addRules"},)


async def test_questions(host):
    session = await host.session(PermissionPreset.YOLO)
    agent = await host.begun(session)
    colour = Question(question="Colour?", options=(Option(label="Blue"),))
    for answer, decision in (
        (Answer(answers={"Colour?": "Blue"}), Allow(answers={"Colour?": "Blue"})),
        (Answer(message="neither"), Deny("neither")),
    ):
        asked = asks(agent, "AskUserQuestion", (colour,))
        request = await host.until(lambda: next(iter(host.sessions.get(session).pending), None))
        with pytest.raises(errors.AnswerUnfit):
            await host.sessions.answer(session, request.id, Answer(decision="allow"))
        await host.sessions.answer(session, request.id, answer)
        assert await asked == decision
    assert [body.message for body in host.bodies("question.answered")] == [None, "neither"]


async def test_a_request_that_is_void(host):
    session = await host.session()
    asked = asks(await host.begun(session))
    request = await host.until(lambda: next(iter(host.sessions.get(session).pending), None))
    asked.cancel()
    await host.until(lambda: not host.sessions.get(session).pending)
    assert host.bodies("permission.resolved")[0].decision == "cancelled"
    with pytest.raises(errors.RequestSettled):
        await host.sessions.answer(session, request.id, Answer(decision="allow"))


async def test_death_in_a_turn_fails_it_and_keeps_the_queue(host):
    session = await host.session()
    agent = await host.begun(session)
    await host.say(session, "waits")
    agent.tell(Died("killed", "agent_died", "It died."), END)
    await host.until(lambda: host.sessions.get(session).status is SessionStatus.FAILED)
    turn = host.bodies("turn.finished")[0]
    assert (turn.outcome, turn.error.code) == ("failed", "agent_died")
    await host.until(lambda: agent.closed)
    assert host.sessions.get(session).queued == 1
    await host.say(session, "next")
    await host.until(lambda: len(host.agents) == 2 and host.agents[1].got)
    revived = host.agents[1]
    assert (revived.spec.resume, revived.spec.provider_session_id) == (True, agent.spec.provider_session_id)
    assert revived.got[0][1] == "waits"
    assert host.sessions.get(session).error is None


async def test_an_agent_that_takes_no_prompt(host):
    session = await host.session()
    agent = await host.begun(session)
    agent.deaf = True
    agent.done()
    message = await host.say(session, "lost?")
    await host.until(lambda: len(host.bodies("message.user")) == 2)
    agent.tell(Died("killed", "agent_died", "It died."), END)
    await host.until(lambda: host.sessions.get(session).status is SessionStatus.FAILED)
    assert host.bodies("turn.finished")[-1].message_ids == (message,)


async def test_a_start_that_fails(host):
    session = await host.session()
    host.refuse = [errors.ModelKeyMissing()]
    message = await host.say(session, "hello")
    await host.until(lambda: host.sessions.get(session).status is SessionStatus.FAILED)
    (turn,) = host.bodies("turn.finished")
    assert (turn.message_ids, turn.error.code) == ((message,), "model_key_missing")
    assert host.sessions.get(session).provider_session_id is None
    assert not (await host.begun(session, "again")).spec.resume


async def test_a_failed_resume_is_told_unless_nothing_is_lost(host):
    session = await host.session()
    first = await host.begun(session)
    first.tell(Died("killed", "agent_died", "It died before it said a word."), END)
    await host.until(lambda: host.sessions.get(session).status is SessionStatus.FAILED)
    host.refuse = [errors.ResumeFailed()]
    await host.say(session, "again")
    second = await host.until(lambda: len(host.agents) == 2 and host.agents[1])
    assert (second.spec.resume, second.spec.provider_session_id) == (False, first.spec.provider_session_id)
    second.tell(Noted(MessageAssistant(text="a word")), Died("killed", "agent_died", "It died."), END)
    await host.until(lambda: host.sessions.get(session).status is SessionStatus.FAILED)
    host.refuse = [errors.ResumeFailed()]
    await host.say(session, "and again")
    await host.until(lambda: host.bodies("turn.finished")[-1].error.code == "resume_failed")
    assert host.sessions.get(session).error.code == "resume_failed"
    assert len(host.agents) == 2


async def test_hints_are_gathered_and_voided(host):
    session = await host.session()
    follower = host.journal.follow(WORKSPACE, 0)
    agent = await host.begun(session)
    agent.tell(*[Hinted(f"{n} ") for n in range(100)])
    hints = []
    async for event in follower:
        if event.body.kind == "message.delta":
            hints.append(event.body)
            break
    agent.tell(HintsVoid(), Hinted("anew"))
    async for event in follower:
        hints.append(event.body)
        break
    assert hints[0].text == "".join(f"{n} " for n in range(100))
    assert (hints[1].text, hints[1].reset) == ("anew", True)
    assert "message.delta" not in host.kinds()


async def test_after_a_kill_of_us(host):
    session, resting = await host.session(), await host.session()
    agent = await host.begun(session, "open")
    waits = await host.say(session, "waits")
    asks(agent)
    await host.until(lambda: host.sessions.get(session).pending)
    idle = await host.begun(resting)
    idle.done()
    await host.until(lambda: host.sessions.get(resting).activity is Activity.IDLE)
    old, before = host.sessions, len(host.events())
    host.boot()
    await host.sessions.recover()
    view = host.sessions.get(session)
    assert (view.status, view.activity, view.queued, view.pending) == (SessionStatus.IDLE, Activity.IDLE, 1, ())
    assert view.error.code == "interrupted"
    assert (host.sessions.get(resting).status, host.sessions.get(resting).error) == (SessionStatus.IDLE, None)
    new = [event.body.kind for event in host.events()[before:]]
    assert new == ["permission.resolved", "turn.finished", "session.status", "session.status"]
    await host.sessions.recover()
    assert len(host.events()) == before + 4, "recovering twice changes nothing"
    await host.sessions.resume_queues()
    await host.until(lambda: host.agents[-1].got == [(waits, "waits")])
    assert host.agents[-1].spec.resume
    await old.close()


async def test_nothing_is_taken_while_closing(host):
    session = await host.session()
    await host.begun(session)
    await host.sessions.close()
    view = host.sessions.get(session)
    assert (view.status, view.error.code) == (SessionStatus.IDLE, "interrupted")
    with pytest.raises(errors.ShuttingDown):
        await host.say(session, "too late")


async def test_a_prompt_is_work_from_the_moment_it_is_taken_to_the_end_of_its_turn(host):
    session = await host.session()
    assert host.sessions.working() == 0
    await host.say(session, "go")
    assert host.sessions.working() == 1, "no agent lives yet, but one will"
    agent = await host.until(lambda: host.agents and host.agents[0].got and host.agents[0])
    assert host.sessions.working() == 1
    agent.done()
    await host.until(lambda: host.sessions.working() == 0)
    assert host.sessions.get(session).status is SessionStatus.RUNNING


async def test_the_end_of_a_turn_is_activity(host):
    agent = await host.begun(await host.session())
    before = host.gate.active_at
    agent.done()
    await host.until(lambda: host.sessions.working() == 0)
    assert host.gate.active_at > before
    before = host.gate.active_at
    agent.tell(Hinted("mumbling"))
    await asyncio.sleep(0.02)
    assert host.gate.active_at == before


async def test_at_rest_no_agent_is_started_and_what_waits_begins_when_the_rest_ends(host):
    session = await host.session()
    host.gate.close()
    await host.say(session, "one")
    await host.sessions.resume_queues()  # as a bind does
    await asyncio.sleep(0.05)
    assert (host.agents, host.sessions.working(), host.sessions.get(session).queued) == ([], 0, 1)
    host.gate.open()
    await host.sessions.resume_queues()
    await host.until(lambda: host.agents and host.agents[0].got)


async def test_at_rest_a_turn_goes_on_to_its_end_and_the_next_prompt_waits(host):
    session = await host.session()
    agent = await host.begun(session, "one")
    await host.say(session, "two")
    host.gate.close()
    agent.done()
    await host.until(lambda: host.bodies("turn.finished"))
    await asyncio.sleep(0.05)
    assert [text for _, text in agent.got] == ["one"]
    host.gate.open()
    await host.sessions.resume_queues()
    await host.until(lambda: [text for _, text in agent.got] == ["one", "two"])


@pytest.mark.parametrize("late", [0, 1, 2, 3, 5, 8])
async def test_a_rest_that_comes_between_a_prompt_and_its_agent_loses_nothing(host, late):
    """However few turns of the event loop lie between them: the agent has the prompt, or it waits; then it is answered once."""
    session = await host.session()
    await host.say(session, "go")
    for _ in range(late):
        await asyncio.sleep(0)
    host.gate.close()
    await asyncio.sleep(0.05)
    queued = host.sessions.get(session).queued
    assert queued == (0 if host.agents and host.agents[0].got else 1)
    host.gate.open()
    await host.sessions.resume_queues()
    agent = await host.until(lambda: host.agents and host.agents[0].got and host.agents[0])
    agent.done()
    await host.until(lambda: host.sessions.working() == 0)
    assert [len(each.got) for each in host.agents] == [1]
