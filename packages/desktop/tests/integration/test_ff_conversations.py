"""Prompts, events, answers and stops; the stream cut and resumed."""

import json
import os
import pty
import re
import select
import signal
import subprocess
import time

import pytest

from ff_core.contract.base import dump
from ff_core.contract.events import (
    MessageAssistant,
    MessageDelta,
    Notice,
    SessionChanged,
    SessionStarted,
    Thinking,
    TurnFinished,
    WorkspaceChanged,
)
from ff_core.contract.session import Activity, Answer, Option, PermissionPreset, Question, SessionStatus
from ff_core.contract.workspace import WorkspaceStatus


def test_say_opens_a_session_when_there_is_none(logged_in, server):
    server.add_workspace()
    result = logged_in("say", "demo", "hello", "--model", "opus", "--permissions", "yolo", "--json")
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout)["text"] == "hello"
    (session,) = server.sessions.values()
    assert (session.model, session.permissions) == ("opus", PermissionPreset.YOLO)


def test_say_uses_the_newest_session_and_a_named_one(logged_in, server):
    workspace = server.add_workspace()
    old, new = server.add_session(workspace, "old"), server.add_session(workspace, "new")
    assert json.loads(logged_in("say", "demo", "x", "--json").stdout)["session_id"] == str(new.id)
    assert json.loads(logged_in("say", "demo", "x", "-s", "old", "--json").stdout)["session_id"] == str(old.id)
    assert logged_in("say", "demo", "x", "-s", "other").exit_code == 4
    assert logged_in("say", "demo", "x", "--permissions", "YOLO").exit_code == 5
    assert logged_in("say", "demo", "x", "--permissions", "YOLO", "--new", "-s", "third").exit_code == 0
    assert [s.name for s in server.sessions.values()] == ["old", "new", "third"]


def test_a_prompt_from_standard_input(logged_in, server):
    server.add_workspace()
    text = "many\nlines \x1b[31m ✓\n"
    assert json.loads(logged_in("say", "demo", "-", "--json", stdin=text).stdout)["text"] == text
    assert logged_in("say", "demo", "-", stdin=" \n").exit_code == 2
    assert logged_in("say", "demo", "-", stdin="x" * 200_001).exit_code == 2


@pytest.mark.parametrize(("prompt", "code"), [("go on", 0), ("failed", 8), ("interrupted", 8), ("ask", 7)])
def test_say_wait_ends_as_the_turn_does(logged_in, server, prompt, code):
    workspace = server.add_workspace()
    session = server.add_session(workspace)
    server.tell(workspace, MessageAssistant(text="from before"), session)
    result = logged_in("say", "demo", prompt, "--wait")
    assert result.exit_code == code, result.output
    assert f"> {prompt}" in result.stdout
    assert "from before" not in result.stdout
    if prompt == "ask":
        assert "ff answer" in result.stderr
        assert "rm -r x" in result.stdout


def test_say_wait_as_json_is_a_line_per_event(logged_in, server):
    server.add_workspace()
    lines = [json.loads(line) for line in logged_in("say", "demo", "hi", "--wait", "--json").stdout.splitlines()]
    assert [event["body"]["kind"] for event in lines] == ["message.queued", "message.user", "message.assistant", "turn.finished"]


def test_say_wait_says_so_when_an_older_question_blocks(logged_in, server):
    workspace = server.add_workspace()
    server.ask(workspace, server.add_session(workspace))
    result = logged_in("say", "demo", "hang", "--wait")
    assert result.exit_code == 7
    assert "rm -r x" in result.stdout


def test_say_wait_ends_when_the_agent_dies_or_the_workspace_goes(logged_in, server, until):
    workspace = server.add_workspace()
    session = server.add_session(workspace)
    for body in (
        SessionChanged(status=SessionStatus.FAILED, activity=Activity.IDLE),
        WorkspaceChanged(status=WorkspaceStatus.ARCHIVING),
    ):
        with logged_in.started("say", "demo", "hang", "--wait") as process:
            until(lambda: server.streams_open == 1)
            server.tell(workspace, body, session)
            assert process.wait(20) == 8
        until(lambda: server.streams_open == 0)


def test_watch_survives_cuts_without_gap_or_duplicate(logged_in, server, until):
    workspace = server.add_workspace()
    session = server.add_session(workspace)
    for number in range(1, 31):
        server.tell(workspace, MessageAssistant(text=f"event {number}"), session)
    server.cut_after.extend([0, 7, 1, 0, 5])
    with logged_in.started("watch", "demo", "--json") as process:
        seen = [json.loads(process.stdout.readline()) for _ in range(30)]
        server.tell(workspace, MessageAssistant(text="live"), session)
        seen.append(json.loads(process.stdout.readline()))
        process.send_signal(signal.SIGINT)
        rest, notes = process.communicate(timeout=20)
    assert [event["seq"] for event in seen] == list(range(1, 32))
    assert rest == b""
    assert notes.count(b"connection lost") >= 4
    resumed = [headers.get("last-event-id") for _, _, headers, _ in server.seen("GET", "/events")]
    assert resumed == [None, None, "7", "8", "8", "13"]


def test_watch_shows_nothing_twice_even_if_it_is_sent_twice(logged_in, server):
    workspace = server.add_workspace()
    for number in range(1, 11):
        server.tell(workspace, Notice(name="n", message=f"number {number}"))
    server.resends = True
    server.cut_after.extend([4, 6])
    with logged_in.started("watch", "demo", "--json") as process:
        seen = [json.loads(process.stdout.readline())["seq"] for _ in range(10)]
        process.send_signal(signal.SIGINT)
        rest, _ = process.communicate(timeout=20)
    assert (seen, rest) == (list(range(1, 11)), b"")


def test_watch_does_not_invent_what_the_server_lost(logged_in, server):
    workspace = server.add_workspace()
    server.tell(workspace, Notice(name="a", message="first"))
    server.tell(workspace, Notice(name="b", message="second"))
    server.tell(workspace, Notice(name="c", message="third"))
    del server.journal[1]
    result = logged_in("watch", "demo", "--json")
    assert result.exit_code == 1
    assert len(result.stdout.splitlines()) == 1
    assert "event 2" in result.stderr


def test_watch_after_a_cursor(logged_in, server, until):
    workspace = server.add_workspace()
    for number in range(1, 5):
        server.tell(workspace, Notice(name="n", message=f"number {number}"))
    with logged_in.started("watch", "demo", "--after", "3") as process:
        assert b"number 4" in process.stdout.readline()
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=20)


def test_ctrl_c_in_watch_leaves_the_workspace_running(logged_in, server, until):
    server.add_workspace()
    with logged_in.started("watch", "demo") as process:
        until(lambda: server.streams_open == 1)
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=20)
    assert (process.returncode, out) == (130, b"")
    assert b"demo goes on" in err
    assert b"Traceback" not in err
    assert server.seen("POST", "/interrupt") == []
    until(lambda: server.streams_open == 0)


def test_watch_ends_when_the_workspace_is_deleted(logged_in, server, until):
    workspace = server.add_workspace()
    with logged_in.started("watch", "demo") as process:
        until(lambda: server.streams_open == 1)
        server.tell(workspace, WorkspaceChanged(status=WorkspaceStatus.ARCHIVED), hint=True)
        out, err = process.communicate(timeout=20)
    assert process.returncode == 0
    assert b"ARCHIVED" in out
    assert b"gone" in err


def test_watch_into_a_closed_pipe_ends_quietly(logged_in, server):
    workspace = server.add_workspace()
    for number in range(2000):
        server.tell(workspace, Notice(name="n", message=f"{number} " + "x" * 200))
    with logged_in.started("watch", "demo") as process:
        process.stdout.readline()
        process.stdout.close()
        assert process.wait(20) == 1
        assert process.stderr.read() == b""


def on_terminal(ff, *args, until_text, environment=None):
    """What a person sees of ``ff`` on a terminal, up to some text; Ctrl-C after it."""
    leader, follower = pty.openpty()
    options = {"stdin": follower, "stdout": follower, "stderr": follower, "start_new_session": True}
    with subprocess.Popen([ff.program, *args], env={**ff.env(), **(environment or {})}, **options) as process:
        os.close(follower)
        shown, deadline = b"", time.monotonic() + 20
        while until_text.encode() not in shown:
            assert time.monotonic() < deadline, shown
            if select.select([leader], [], [], 0.2)[0]:
                shown += os.read(leader, 65536)
        process.send_signal(signal.SIGINT)
        process.wait(20)
        os.close(leader)
    return shown.decode()


def test_text_is_typed_live_on_a_terminal_and_said_once(logged_in, server):
    workspace = server.add_workspace()
    session = server.add_session(workspace)
    server.tell(workspace, SessionStarted(name="main", model=None, permissions=PermissionPreset.STRICT), session)
    for piece in ("Hel", "lo \x1b]0;owned\x07", "wor", "ld"):
        server.tell(workspace, MessageDelta(text=piece), session, hint=True)
    server.tell(workspace, MessageAssistant(text="Hello \x1b]0;owned\x07world"), session)
    server.tell(workspace, MessageDelta(text="half of "), session, hint=True)
    server.tell(workspace, MessageAssistant(text="half of it was typed, so all is said"), session)
    server.tell(workspace, MessageDelta(text="hmm", thinking=True), session, hint=True)
    server.tell(workspace, Thinking(text="hmm"), session)
    server.tell(workspace, TurnFinished(message_ids=(), outcome="done"), session)
    server.tell(workspace, Notice(name="end", message="of script"), session)
    shown = on_terminal(logged_in, "watch", "demo", until_text="of script")
    assert "\x1b]" not in shown
    assert "\x07" not in shown
    text = re.sub(r"\x1b\[[0-9;]*m", "", shown).replace("\r\n", "\n")
    assert text.count("Hello ␛]0;owned␇world") == 1
    assert "half of \nhalf of it was typed, so all is said\n" in text
    assert text.count("~ hmm") == 1
    colour = re.compile(r"\x1b\[(?:\d+;)*3\dm")
    assert colour.search(shown)
    assert not colour.search(on_terminal(logged_in, "watch", "demo", until_text="of script", environment={"NO_COLOR": "1"}))


def test_rm_asks_on_a_terminal(logged_in, server):
    server.add_workspace()
    shown = on_terminal(logged_in, "rm", "demo", until_text="[y/N]")
    assert "not pushed" in shown
    assert server.seen("DELETE", "/v1/workspaces") == []


def test_answering_the_only_permission(logged_in, server):
    workspace = server.add_workspace()
    request = server.ask(workspace, server.add_session(workspace))
    result = logged_in("answer", "demo", "--deny", "--message", "not that", "--json")
    assert json.loads(result.stdout)["activity"] == "WORKING"
    assert server.answers == [(str(request.id), Answer(decision="deny", message="not that"))]
    result = logged_in("answer", "demo", "--allow")
    assert (result.exit_code, "nothing_waits" in result.stderr) == (5, True)


def test_answering_one_of_two(logged_in, server):
    workspace = server.add_workspace()
    session = server.add_session(workspace)
    first = server.ask(workspace, session)
    second = server.ask(workspace, session, input={"command": "make"})
    result = logged_in("answer", "demo", "--allow")
    assert result.exit_code == 2
    assert str(first.id) in result.stdout
    assert str(second.id) in result.stdout
    assert logged_in("answer", "demo", "--always", "--request", str(second.id)).exit_code == 0
    assert server.answers == [(str(second.id), Answer(decision="allow_always"))]
    assert logged_in("answer", "demo", "--always", "--request", "ffff").exit_code == 4


def test_answer_without_an_answer_shows_what_waits(logged_in, server):
    workspace = server.add_workspace()
    request = server.ask(workspace, server.add_session(workspace))
    result = logged_in("answer", "demo")
    assert (result.exit_code, server.answers) == (7, [])
    assert "rm -r x" in result.stdout
    pending = json.loads(logged_in("answer", "demo", "--json").stdout)["pending"]
    assert pending == [{"session_id": str(next(iter(server.sessions.values())).id), **dump(request)}]


def test_answering_a_question(logged_in, server):
    workspace = server.add_workspace()
    session = server.add_session(workspace)
    colour = Question(question="Which colour?", options=(Option(label="Red"), Option(label="Blue")))
    server.ask(workspace, session, kind="question", tool_name="AskUserQuestion", input={}, questions=(colour,))
    assert logged_in("answer", "demo", "--allow").exit_code == 2
    assert logged_in("answer", "demo", "--choose", "green").exit_code == 2
    assert server.answers == []
    assert logged_in("answer", "demo", "--choose", "blue").exit_code == 0
    assert server.answers[0][1] == Answer(answers={"Which colour?": "Blue"})


def test_stop_interrupts_who_works(logged_in, server):
    workspace = server.add_workspace()
    server.add_session(workspace, "resting", status=SessionStatus.IDLE)
    busy = server.add_session(workspace, "busy", activity=Activity.WORKING, queued=3)
    result = logged_in("stop", "demo", "--keep-queued", "--json")
    assert json.loads(result.stdout) == {"sessions": [{"session_id": str(busy.id), "was_working": True, "cancelled": 3}]}
    ((_, path, _, body),) = server.seen("POST", "/interrupt")
    assert str(busy.id) in path
    assert json.loads(body) == {"keep_queued": True}
    assert "busy: interrupted, 3 queued" in logged_in("stop", "demo").stdout
