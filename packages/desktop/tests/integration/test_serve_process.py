"""``ff serve`` as a process: one for a data folder, started when needed, ended in order, and killed."""

import json
import os
import signal
import stat
import subprocess
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import pytest
from desk import Desk, is_alive, until

from ff_core.contract.session import Activity, NewMessage, NewSession, PermissionPreset
from ff_desktop.background import Background

pytestmark = [pytest.mark.claude, pytest.mark.timeout(90)]


@pytest.fixture
def desk():
    with Desk.opened() as desk:
        yield desk


def workspace_of(desk, name="demo"):
    desk.ff("project", "add", str(desk.repository()))
    return desk.json("new", name)


def agents_of(session_id):
    return marked("FACTORY_SESSION_ID", session_id)


def marked(name, value):
    """The processes that have this variable."""
    mark, found = f"{name}={value}".encode(), []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            found += [int(process.name)] if mark in (process / "environ").read_bytes().split(b"\0") else []
        except OSError:
            continue
    return found


def bodies(desk, workspace, kind):
    backend = desk.parts.local()
    last = backend.workspace(workspace).last_seq
    found = []
    for event in backend.events(workspace, after=0, lost=print):
        found += [event.body] if event.body.kind == kind else []
        if event.seq == last:
            return found
    return found


def test_many_who_start_it_get_one_that_only_its_user_can_reach_and_that_belongs_to_no_terminal_and_no_agent(desk):
    desk.environment["FACTORY_SESSION_ID"] = "of-an-agent"
    with ThreadPoolExecutor() as pool:
        told = pool.map(lambda _: json.loads(desk.run("serve", "--background", "--json")), range(3))
        (pid,) = {each["pid"] for each in told}
    assert desk.json("serve", "--status")["pid"] == pid
    assert desk.ff("serve", code=5) == ""
    assert "serve_running" in desk.said
    modes = [stat.S_IMODE((desk.data / name).stat().st_mode) for name in (".", "serve.sock", "serve.log", "state.db")]
    assert modes == [0o700, 0o600, 0o600, 0o600]
    assert os.getsid(pid) == pid
    assert Path(f"/proc/{pid}/cwd").readlink() == Path("/")
    assert agents_of("of-an-agent") == []


def children():
    """Of this process, also those that have ended and nobody has heard of."""
    found = set()
    for process in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            parent = int((process / "stat").read_text().rpartition(")")[2].split()[1])
            found |= {int(process.name)} if parent == os.getpid() else set()
    return found


class Late(Background):
    """Looked a moment before the other one answered."""

    def __init__(self, desk) -> None:
        parts = desk.parts
        super().__init__(parts.settings, connect=lambda: parts.local().connection, sleep=parts.sleep, note=print)
        self._looked = False

    def health(self):
        looked, self._looked = self._looked, True
        return super().health() if looked else None


def test_one_that_was_started_in_vain_does_not_come_later(desk):
    first = desk.json("serve", "--background")["pid"]
    before = children()
    assert Late(desk).ensure().pid == first
    (vain,) = children() - before
    _, status = os.waitpid(vain, 0)
    assert os.waitstatus_to_exitcode(status) == -signal.SIGTERM


def test_it_is_stopped_and_started_again_when_it_is_needed(desk):
    assert desk.ff("serve", "--status", code=1)
    first = desk.json("serve", "--background")["pid"]
    assert desk.json("serve", "--stop") == {"stopped": True}
    until(lambda: not is_alive(first))
    assert not (desk.data / "serve.sock").exists()
    assert desk.json("serve", "--stop") == {"stopped": False}
    assert desk.json("project", "ls") == {"items": []}
    assert desk.pid not in {None, first}


def test_in_the_foreground_it_ends_with_ctrl_c(desk):
    with subprocess.Popen([desk.program, "serve"], env=desk.env(), cwd=desk.folder, stderr=subprocess.PIPE) as process:
        until(lambda: desk.pid == process.pid)
        process.send_signal(signal.SIGINT)
        assert process.wait(20) == 0
    assert not (desk.data / "serve.sock").exists()


def test_a_start_that_fails_says_why(desk):
    desk.data.mkdir(mode=0o700)
    (desk.data / "state.db").write_bytes(b"this is no database" * 100)
    desk.ff("ls", code=6)
    assert "serve_failed" in desk.said
    assert "store_broken" in desk.said


def test_another_version_is_replaced_unless_something_runs_in_it(desk):
    workspace = workspace_of(desk)
    backend, first, notes = desk.parts.local(), desk.pid, []

    def newer() -> Background:
        parts = desk.parts
        return Background(
            parts.settings, connect=lambda: parts.local().connection, sleep=parts.sleep, note=notes.append, version="9"
        )

    with subprocess.Popen(
        [desk.program, "exec", workspace["id"], "--", "sleep", "60"], env=desk.env(), stdin=subprocess.DEVNULL
    ) as command:
        until(lambda: desk.parts.background().health().busy)
        assert newer().ensure().pid == first
        assert "ff serve --stop" in notes[0]
        command.send_signal(signal.SIGINT)
    until(lambda: not desk.parts.background().health().busy)
    assert newer().ensure().pid != first
    until(lambda: not is_alive(first))
    assert backend.workspace(workspace["id"]).name == "demo"


def test_a_kill_loses_an_open_turn_and_nothing_else(desk):
    workspace = workspace_of(desk)["id"]
    backend = desk.parts.local()
    session = backend.open_session(workspace, NewSession(permissions=PermissionPreset.YOLO))
    first = backend.send(session.id, NewMessage(text="%say Remember the lighthouse."))
    until(lambda: any(first.id in turn.message_ids for turn in bodies(desk, workspace, "turn.finished")))
    backend.send(session.id, NewMessage(text="%bash timeout 300 tail -f /dev/null\n%say Never."))
    until(lambda: bodies(desk, workspace, "tool.started"))
    backend.send(session.id, NewMessage(text="%say I am back."))
    until(lambda: len(agents_of(session.id)) > 1)  # the CLI and what it runs
    agents = agents_of(session.id)
    desk.kill()
    watched = desk.json("status", workspace)  # starts it again
    assert watched["workspace"]["status"] == "READY"
    assert not any(is_alive(pid) for pid in agents)
    until(lambda: "I am back." in [said.text for said in bodies(desk, workspace, "message.assistant")])
    outcomes = [turn.outcome for turn in bodies(desk, workspace, "turn.finished")]
    assert outcomes[:2] == ["done", "interrupted"]
    assert "lighthouse" in json.dumps(desk.model.requests[-1].body)


def test_a_kill_during_the_set_up_leaves_no_script_and_a_workspace_that_works(desk):
    script = json.dumps({"scripts": {"setup": "touch begun; sleep 300; touch never"}})
    desk.ff("project", "add", str(desk.repository(files={"factory-factory.json": script})))
    workspace = desk.json("new", "demo", "--no-wait")["id"]
    (worktree,) = until(lambda: [begun.parent for begun in desk.data.glob("worktrees/*/*/begun")])
    desk.kill()
    assert marked("WORKSPACE_PATH", worktree)
    shown = desk.json("status", workspace)["workspace"]
    assert (shown["status"], shown["error"]["code"]) == ("READY", "setup_interrupted")
    assert marked("WORKSPACE_PATH", worktree) == []


def test_told_to_end_it_ends_agents_first_and_prompts_wait(desk):
    workspace = workspace_of(desk)["id"]
    backend = desk.parts.local()
    session = backend.open_session(workspace, NewSession())
    backend.send(session.id, NewMessage(text="long stream"))
    until(lambda: desk.parts.background().health().busy and backend.session(session.id).activity is Activity.WORKING)
    until(lambda: desk.model.requests)
    backend.send(session.id, NewMessage(text="%say Then this."))
    pid = desk.pid
    os.kill(pid, signal.SIGTERM)
    until(lambda: not is_alive(pid), 30)
    assert agents_of(session.id) == []
    assert not (desk.data / "serve.sock").exists()
    desk.ff("ls")
    until(lambda: "Then this." in [said.text for said in bodies(desk, workspace, "message.assistant")])
    until(lambda: [turn.outcome for turn in bodies(desk, workspace, "turn.finished")] == ["interrupted", "done"])


def test_who_watches_goes_on_watching_over_a_kill(desk):
    workspace = workspace_of(desk)["id"]
    command = [desk.program, "watch", workspace, "--json"]
    with subprocess.Popen(command, env=desk.env(), stdout=subprocess.PIPE, stdin=subprocess.DEVNULL) as watching:
        try:
            seen = [json.loads(watching.stdout.readline())]
            desk.kill()
            desk.ff("say", workspace, "%say Still here.", "--permissions", "YOLO", "--wait")
            while seen[-1]["body"]["kind"] != "turn.finished":
                seen.append(json.loads(watching.stdout.readline()))
            stored = [event["seq"] for event in seen if event["seq"] is not None]
            assert stored == list(range(1, len(stored) + 1))
        finally:
            watching.kill()
