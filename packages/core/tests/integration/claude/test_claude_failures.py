"""Sessions with the real CLI when things break: the CLI dies, the model fails, we die."""

import asyncio
import json
import os
import signal
from pathlib import Path

import pytest

from ff_core.claude.strays import MARK
from ff_core.contract.session import Activity, NewMessage, PermissionPreset, SessionStatus

pytestmark = [pytest.mark.claude, pytest.mark.timeout(60)]


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT], ids=lambda n: n.name)
async def test_a_cli_killed_in_mid_turn(host, number):
    session = await host.session()
    await host.ask(session, "remember the word marmalade")
    message = await host.say(session, "%stream 3000 100")
    await host.until(lambda: host.api.prompts[-1].startswith("%stream"))
    os.kill(host.pid, number)
    turn = await host.answered(message, seconds=10)
    assert turn.body.outcome == "failed"
    # After a SIGINT the CLI may have the time to say that it gives the turn up.
    assert turn.body.error.code in {"agent_died", "agent_stopped"}
    await host.until(lambda: host.sessions.get(session).status is not SessionStatus.RUNNING)
    view = host.sessions.get(session)
    assert (view.status, view.activity, view.error.code) == (SessionStatus.FAILED, Activity.IDLE, "agent_died")
    assert (await host.ask(session, "and now")).body.outcome == "done"
    assert "marmalade" in json.dumps(host.api.requests[-1].body["messages"])
    view = host.sessions.get(session)
    assert (view.status, view.error) == (SessionStatus.RUNNING, None)


async def test_tools_do_not_outlive_a_killed_cli(host):
    session = await host.session(PermissionPreset.YOLO)
    message = await host.say(session, "%bash echo $$ > pid; timeout 50 tail -f /dev/null\n%say over")
    shell = int(await host.until(lambda: (host.repo / "pid").exists() and (host.repo / "pid").read_text().strip()))
    await host.say(session, "%say waits")
    os.kill(host.pid, signal.SIGKILL)
    await host.answered(message)
    await host.until(lambda: not Path(f"/proc/{shell}").exists())
    assert host.sessions.get(session).queued == 1, "a queued prompt is not thrown at a dying agent"
    await host.sessions.resume_queues()
    await host.until(lambda: "waits" in host.said())


async def test_closing_leaves_no_process(host):
    session = await host.session(PermissionPreset.YOLO)
    await host.ask(session, "%bg setsid timeout 50 tail -f /dev/null & echo $! > pid; wait\n%say ok")
    await host.until((host.repo / "pid").exists)
    assert host.sessions.working() == 1, "a background task is work"
    await host.sessions.close()
    assert marked(session) == []
    assert host.sessions.get(session).status is SessionStatus.IDLE


async def test_a_killed_idle_cli(host):
    session = await host.session()
    await host.ask(session, "hello")
    await host.resting(session)
    os.kill(host.pid, signal.SIGINT)
    await host.until(lambda: host.sessions.get(session).status is not SessionStatus.RUNNING)
    assert host.sessions.get(session).status is SessionStatus.COMPLETED
    assert (await host.ask(session, "again")).body.outcome == "done"
    await host.resting(session)
    os.kill(host.pid, signal.SIGKILL)
    await host.until(lambda: host.sessions.get(session).status is SessionStatus.FAILED)
    assert (await host.ask(session, "and again")).body.outcome == "done"


async def test_an_agent_killed_while_it_asks(host):
    session = await host.session()
    message = await host.say(session, "%bash touch x\n%say over")
    await host.pending(session)
    os.kill(host.pid, signal.SIGKILL)
    assert (await host.answered(message)).body.outcome == "failed"
    assert [e.body.decision for e in host.of_kind("permission.resolved")] == ["cancelled"]


FAILURES = [
    ("%error 401 should-retry=false", "model_key_refused", False),
    ("%error 401", "model_key_refused", True),
    ("%error 403", "model_forbidden", False),
    ("%error 404", "model_unknown", False),
    ("%error 413", "model_request_too_large", False),
    ("%error 429 retry-after=1", "model_rate_limited", True),
    ("%error 429 retry-after=3600", "model_rate_limited", False),
    ("%error 529", "model_overloaded", True),
    ("%error 500", "model_failed", True),
    ("%error 400 msg=prompt_is_too_long:_2_tokens_>_1_maximum", "prompt_too_long", False),
]


async def test_errors_of_the_model_and_the_session_goes_on(host):
    host.settings = type(host.settings)(**{**vars(host.settings), "model_retries_max": 1})
    session = await host.session()
    for script, code, retries in FAILURES:
        retried = len(host.of_kind("model.retrying"))
        turn = await host.ask(session, script)
        assert (turn.body.outcome, turn.body.error.code) == ("failed", code), turn.body
        assert (len(host.of_kind("model.retrying")) > retried) is retries, script
    assert (await host.resting(session)).status is SessionStatus.RUNNING, "the agent itself is well"
    assert host.said() == []
    assert (await host.ask(session, "%say well again")).body.outcome == "done"
    assert len(host.backends) == 1


async def test_a_model_that_recovers(host):
    session = await host.session()
    turn = await host.ask(session, "%error 529 times=1\n%say recovered")
    assert turn.body.outcome == "done"
    (retry,) = host.of_kind("model.retrying")
    assert (retry.body.http_status, retry.body.attempt) == (529, 1)
    assert "overloaded" in retry.body.message
    assert host.said() == ["recovered"]


async def test_a_stream_cut_in_the_middle_restarts_the_hints(host):
    session = await host.session()
    follower = host.journal.follow(host.sessions.get(session).workspace_id, 0)
    message = await host.say(session, "%drop after=30 how=rst times=1\n%stream 40 100\n%end")
    hints = []

    async def watch() -> None:
        hints.extend([event.body async for event in follower if event.body.kind == "message.delta"])

    watching = asyncio.create_task(watch())
    assert (await host.answered(message)).body.outcome == "done"
    follower.close()
    await watching
    (text,) = host.said()
    reset = next(n for n, hint in enumerate(hints) if hint.reset)
    assert text.startswith("".join(hint.text for hint in hints[reset:]))
    assert hints[:reset]


async def test_a_model_out_of_reach(host):
    host.settings = type(host.settings)(**{**vars(host.settings), "model_retries_max": 1})
    host.access = host.access.model_copy(update={"base_url": "http://127.0.0.1:9"})
    session = await host.session()
    turn = await host.ask(session, "hello")
    assert (turn.body.outcome, turn.body.error.code) == ("failed", "model_unreachable"), turn.body
    assert host.of_kind("model.retrying")[0].body.http_status is None


async def test_without_a_key_nothing_is_started(host):
    host.access = host.access.model_copy(update={"api_key": None})
    session = await host.session()
    turn = await host.ask(session, "hello")
    assert (turn.body.outcome, turn.body.error.code) == ("failed", "model_key_missing")
    assert host.sessions.get(session).error.code == "model_key_missing"
    assert host.backends == []


@pytest.mark.parametrize(
    ("program", "code", "says"),
    [
        (None, "agent_missing", "No such file"),
        ("#!/bin/sh\nexit 0\n", "agent_start_failed", ""),
        ("#!/bin/sh\necho no such option >&2; exit 2\n", "agent_start_failed", "no such option"),
    ],
    ids=["missing", "exits at once", "refuses"],
)
async def test_a_cli_that_does_not_start(host, program, code, says):
    executable = host.folder / "claude"
    if program is not None:
        executable.write_text(program)
        executable.chmod(0o755)
    host.settings = type(host.settings)(**{**vars(host.settings), "executable": executable})
    session = await host.session()
    turn = await host.ask(session, "hello")
    assert (turn.body.outcome, turn.body.error.code) == ("failed", code)
    assert says in turn.body.error.message
    assert host.sessions.get(session).status is SessionStatus.FAILED


async def test_a_conversation_that_is_gone_is_not_silently_begun_anew(host):
    session = await host.session()
    await host.ask(session, "hello")
    await host.resting(session)
    os.kill(host.pid, signal.SIGKILL)
    await host.until(lambda: host.sessions.get(session).status is SessionStatus.FAILED)
    for transcript in host.home.glob(".claude/projects/*/*.jsonl"):
        transcript.unlink()
    turn = await host.ask(session, "go on")
    assert (turn.body.outcome, turn.body.error.code) == ("failed", "resume_failed")
    assert host.api.prompts[-1] == "hello"


async def test_we_die_with_prompts_waiting(host):
    session = await host.session()
    await host.ask(session, "remember the word marmalade")
    running = await host.say(session, "%stream 3000 100")
    waiting = await host.say(session, "%say still wanted")
    await host.until(lambda: host.api.prompts[-1].startswith("%stream"))
    await host.die()
    await host.sessions.recover()
    turn = await host.answered(running, seconds=1)
    assert (turn.body.outcome, turn.body.error.code) == ("interrupted", "interrupted")
    view = host.sessions.get(session)
    assert (view.status, view.queued, view.error.code) == (SessionStatus.IDLE, 1, "interrupted")
    assert (await host.sessions.send(session, NewMessage(id=waiting, text="%say still wanted"))).id == waiting
    await host.sessions.resume_queues()
    assert (await host.answered(waiting)).body.outcome == "done"
    assert "marmalade" in json.dumps(host.api.requests[-1].body["messages"])
    assert host.said()[-1] == "still wanted"


def marked(session) -> list[Path]:
    return [path for path in Path("/proc").glob("[0-9]*/environ") if f"{MARK}={session}" in environ(path)]


def environ(path: Path) -> str:
    try:
        return path.read_text(errors="replace")
    except OSError:
        return ""
