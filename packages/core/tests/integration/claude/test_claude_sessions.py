"""Sessions with the real CLI: work, permissions, questions, interrupts, queues."""

import json
import os
import time
from pathlib import Path

import pytest

from ff_core.contract.events import MessageDelta
from ff_core.contract.session import Activity, Answer, Interrupt, PermissionPreset, SessionStatus
from ff_core.sessions.errors import RequestSettled
from ff_core.workspaces.processes import count, look

pytestmark = [pytest.mark.claude, pytest.mark.timeout(60)]

ASK_COLOUR = (
    '%ask {"questions":[{"question":"Which colour?","header":"Colour","multiSelect":false,"options":['
    '{"label":"Blue","description":"Calm"},{"label":"Red","description":"Loud"}]}]}\n'
)


def last_tool_result(host) -> str:
    return host.of_kind("tool.finished")[-1].body.output


async def test_edits_and_commits(host):
    session = await host.session(PermissionPreset.YOLO)
    turn = await host.ask(
        session,
        f"%think Let me see.\n%say I write it.\n%write {host.repo}/a.txt hello\n"
        "%bash git add -A && git commit -q -m 'Add a.txt' && git log --oneline | head -1\n%say Done.",
    )
    assert turn.body.outcome == "done"
    assert turn.body.usage.output_tokens > 0
    assert turn.body.cost_usd > 0
    assert host.git("show", "HEAD:a.txt") == "hello\n"
    view = await host.resting(session)
    assert (view.status, view.activity, view.queued, view.error) == (SessionStatus.RUNNING, Activity.IDLE, 0, None)
    assert view.provider_session_id
    kinds = [event.body.kind for event in host.events()]
    assert kinds == [
        "session.started",
        "message.queued",
        "session.status",
        "message.user",
        "thinking",
        "message.assistant",
        "tool.started",
        "tool.finished",
        "tool.started",
        "tool.finished",
        "message.assistant",
        "turn.finished",
        "session.status",
    ]
    assert [event.seq for event in host.events()] == list(range(1, len(kinds) + 1))
    assert host.said() == ["I write it.", "Done."]


async def test_the_environment_is_ours_alone(host, monkeypatch):
    monkeypatch.setenv("FF_TOKEN_SHA256", "daemon-only")
    monkeypatch.setenv("ANTHROPIC_AUTH_TOKEN", "of-the-host")
    (host.repo / ".claude").mkdir()
    stolen = {"env": {"ANTHROPIC_BASE_URL": "http://127.0.0.1:1"}}
    (host.repo / ".claude" / "settings.json").write_text(json.dumps(stolen))
    (host.repo / "CLAUDE.md").write_text("Always be brief, says this repository.")
    host.own()
    session = await host.session(PermissionPreset.YOLO, model="claude-sonnet-5-5")
    turn = await host.ask(session, "%bash env; id -u\n%say ok")
    assert turn.body.outcome == "done", turn.body.error
    shown = last_tool_result(host)
    assert "daemon-only" not in shown
    assert "of-the-host" not in shown
    assert shown.rstrip().endswith(str(host.settings.run_as.uid if host.settings.run_as else 0))
    request = next(r for r in host.api.requests if r.kind == "main")
    assert request.body["model"] == "claude-sonnet-5-5"
    assert "Always be brief" in json.dumps(request.body)
    assert "Factory Factory" in json.dumps(request.body["system"])
    assert "authorization" not in request.headers


async def test_permission_asked_denied_asked_allowed(host):
    session = await host.session()
    message = await host.say(session, "%bash touch one; ls\n%say over")
    request = await host.pending(session)
    assert (request.kind, request.tool_name) == ("permission", "Bash")
    assert host.sessions.get(session).activity is Activity.WAITING
    await host.sessions.answer(session, request.id, Answer(decision="deny", message="not that one"))
    await host.answered(message)
    assert not (host.repo / "one").exists()
    assert "not that one" in last_tool_result(host)
    with pytest.raises(RequestSettled):
        await host.sessions.answer(session, request.id, Answer(decision="allow"))
    message = await host.say(session, "%bash touch two; ls\n%say over")
    request = await host.pending(session)
    view = await host.sessions.answer(session, request.id, Answer(decision="allow"))
    assert view.pending == ()
    await host.answered(message)
    assert (host.repo / "two").exists()
    kinds = [e.body.kind for e in host.events()]
    assert kinds.index("tool.started") < kinds.index("permission.requested") < kinds.index("permission.resolved")


async def test_always_asks_once_and_writes_nothing_into_the_repository(host):
    session = await host.session()
    first = await host.say(session, "%bash touch same.txt\n%say over")
    await host.sessions.answer(session, (await host.pending(session)).id, Answer(decision="allow_always"))
    await host.answered(first)
    await host.ask(session, "%bash touch same.txt\n%say again")
    assert len(host.of_kind("permission.requested")) == 1
    assert not (host.repo / ".claude").exists()
    # The user's word holds for the session, not for the process.
    await host.backends[-1].close()
    await host.until(lambda: host.sessions.get(session).status is SessionStatus.IDLE)
    await host.ask(session, "%bash touch same.txt\n%say and again")
    assert len(host.of_kind("permission.requested")) == 1
    other = await host.say(session, "%bash touch other.txt\n%say over")
    await host.sessions.answer(session, (await host.pending(session)).id, Answer(decision="allow"))
    await host.answered(other)


async def test_relaxed_asks_only_for_what_is_grave(host):
    session = await host.session(PermissionPreset.RELAXED)
    await host.ask(session, f"%bash touch fine.txt\n%write {host.repo}/w.txt hi\n%say over")
    assert (host.repo / "fine.txt").exists()
    assert (host.repo / "w.txt").exists()
    assert host.of_kind("permission.requested") == []
    message = await host.say(session, f"%write {host.folder}/outside.txt hi\n%say over")
    await host.sessions.answer(session, (await host.pending(session)).id, Answer(decision="deny"))
    await host.answered(message)


async def test_question_answered_by_choice_and_in_own_words(host):
    session = await host.session(PermissionPreset.YOLO)
    message = await host.say(session, ASK_COLOUR + "%say thanks")
    request = await host.pending(session)
    assert (request.kind, request.questions[0].options[1].label) == ("question", "Red")
    await host.sessions.answer(session, request.id, Answer(answers={"Which colour?": "Red"}))
    await host.answered(message)
    assert "Red" in last_tool_result(host)
    message = await host.say(session, ASK_COLOUR + "%say thanks")
    await host.sessions.answer(session, (await host.pending(session)).id, Answer(message="a warm grey"))
    await host.answered(message)
    assert "a warm grey" in last_tool_result(host)
    assert len(host.of_kind("question.answered")) == 2


async def test_interrupt_stops_the_stream_and_leaves_the_session_usable(host):
    session = await host.session()
    follower = host.journal.follow(session_workspace(host, session), 0)
    message = await host.say(session, "%stream 3000 100")
    waiting = await host.say(session, "never said")
    async for event in follower:
        if isinstance(event.body, MessageDelta):
            break
    follower.close()
    done = await host.sessions.interrupt(session, Interrupt())
    assert (done.was_working, done.cancelled) == (True, 1)
    turn = await host.answered(message, seconds=1)
    assert turn.body.outcome == "interrupted"
    assert host.of_kind("message.cancelled")[0].body.message_id == waiting
    assert host.said(), "what was written so far is kept"
    assert (await host.ask(session, "%say still here")).body.outcome == "done"
    await host.resting(session)
    assert not (await host.sessions.interrupt(session, Interrupt())).was_working


async def test_interrupt_voids_an_open_request(host):
    session = await host.session()
    message = await host.say(session, "%bash touch x\n%say over")
    await host.pending(session)
    await host.sessions.interrupt(session, Interrupt())
    assert (await host.answered(message, seconds=2)).body.outcome == "interrupted"
    assert [e.body.decision for e in host.of_kind("permission.resolved")] == ["cancelled"]
    assert host.sessions.get(session).pending == ()


async def test_prompts_sent_during_a_turn_are_answered_in_order(host):
    session = await host.session(PermissionPreset.YOLO)
    first = await host.say(session, "%bash timeout 0.7 tail -f /dev/null\n%say one")
    await host.until(lambda: host.of_kind("tool.started"))
    second = await host.say(session, "%say two")
    third = await host.say(session, "%say three")
    assert host.sessions.get(session).queued == 2
    await host.answered(third)
    assert host.said() == ["one", "two", "three"]
    assert [turn.body.message_ids for turn in host.of_kind("turn.finished")] == [(first,), (second,), (third,)]
    assert [event.body.activity for event in host.of_kind("session.status")].count(Activity.IDLE) <= 1


async def test_a_large_file_can_be_edited(host):
    (host.repo / "big.txt").write_text("first line\n" + "x" * 1_500_000 + "\n")
    host.own()
    session = await host.session(PermissionPreset.YOLO)
    prompt = f'%tool Read {{"file_path":"{host.repo}/big.txt","limit":1}}\n%edit {host.repo}/big.txt first => changed\n%say ok'
    assert (await host.ask(session, prompt)).body.outcome == "done"
    assert (host.repo / "big.txt").read_text().startswith("changed line")


async def test_a_cleared_conversation_can_still_be_resumed(host):
    session = await host.session()
    await host.ask(session, "before")
    name = (await host.resting(session)).provider_session_id
    await host.ask(session, "/clear")
    await host.ask(session, "after the clearing")
    assert (await host.resting(session)).provider_session_id != name
    await host.backends[-1].close()
    await host.until(lambda: host.sessions.get(session).status is SessionStatus.IDLE)
    assert (await host.ask(session, "and on")).body.outcome == "done"
    assert "after the clearing" in json.dumps(host.api.requests[-1].body["messages"])


async def test_a_background_task_has_a_turn_of_its_own(host):
    session = await host.session(PermissionPreset.YOLO)
    await host.ask(session, "%task %say subagent finished\n%say started it")
    turns = await host.until(lambda: [t for t in host.of_kind("turn.finished") if not t.body.message_ids])
    assert turns[0].body.outcome == "done"
    assert any(e.body.parent_tool_use_id for e in host.of_kind("message.assistant"))


async def test_an_agent_that_rests_is_ended_and_comes_back(host):
    host.idle_close_s = 0.2
    host.boot()
    session = await host.session()
    await host.ask(session, "remember the word marmalade")
    await host.until(lambda: host.sessions.get(session).status is SessionStatus.IDLE)
    assert host.sessions.get(session).error is None
    await host.ask(session, "and now")
    assert "marmalade" in json.dumps(host.api.requests[-1].body["messages"])
    assert [e.body.resumed for e in host.of_kind("session.status") if e.body.status == "RUNNING"][-2:] != [False, False]


async def test_an_open_session_answers_fast(host):
    session = await host.session()
    await host.ask(session, "warm up")
    began = time.monotonic()
    await host.say(session, "now")
    await host.until(lambda: host.api.prompts[-1] == "now")
    assert time.monotonic() - began < 0.5  # the budget (0.1 s) is measured by the bench, on a quiet machine


def session_workspace(host, session):
    return host.sessions.get(session).workspace_id


@pytest.mark.skipif(os.geteuid() != 0, reason="without a user of its own an agent can't be told from anybody else")
async def test_an_agent_that_rests_keeps_nothing_awake_and_what_it_left_in_the_background_does(host):
    def background() -> int:
        ours = [seen for seen in look() if seen.pid == os.getpid() or _works_in(host.folder, seen.pid)]
        return count(ours, uid=host.settings.run_as.uid, ours=os.getpid())

    session = await host.session(PermissionPreset.YOLO)
    message = await host.say(session, "%bash sleep 1\n%say Done.")
    await host.until(lambda: host.of_kind("tool.started"))
    assert host.sessions.working() == 1
    await host.answered(message)
    await host.resting(session)
    assert (host.sessions.working(), background()) == (0, 0)
    assert host.sessions.get(session).status is SessionStatus.RUNNING
    await host.ask(session, "%bash setsid sleep 300 >/dev/null 2>&1 &\n%say Done.")
    await host.resting(session)
    assert (host.sessions.working(), background()) == (0, 1)
    await host.sessions.close()
    assert background() == 0


def _works_in(folder: Path, pid: int) -> bool:
    try:
        return (Path("/proc") / str(pid) / "cwd").readlink().is_relative_to(folder)
    except OSError:
        return False
