"""The process: what it imports, how it starts, stops, dies and comes back."""

import os
import re
import signal
import subprocess
import sys
import threading
import time
from importlib.metadata import version
from pathlib import Path

import httpx2
import pytest

from ff_core.settings import VERSION

HEAVY = {
    *("claude_agent_sdk", "mcp", "httpx", "httpx2", "cryptography", "pydantic_settings", "fastapi", "aiohttp", "numpy"),
    *("pydantic", "pydantic_core", "uvicorn", "starlette", "anyio", "zstandard", "ssl"),
}
NOT_AT_ONCE = (
    *("ff_core.claude", "ff_core.sessions", "ff_core.contract.session", "ff_core.contract.events", "ff_core.git.clone"),
    *("ff_core.git.seed", "ff_core.checkpoint.pack", "ff_core.daemon.work_endpoints", "ff_cloud"),
)
AS_ROOT = os.geteuid() == 0


def imported(said):
    """What Python said that it imported, when it was to (PYTHONVERBOSE)."""
    return set(re.findall(r"^import '?([\w.]+)'? #", said, re.MULTILINE))


def test_nothing_is_imported_that_a_vm_can_do_without_until_its_first_command_ran(spawn, root, bind_body):
    daemon = spawn(root, PYTHONVERBOSE="1").start()
    daemon.http.post("/v1/bind", json=bind_body)
    assert daemon.exec("echo", "ready")[-1].exit_code == 0
    found = imported(daemon.end()[1])
    assert {"ff_core.daemon.endpoints", "ff_core.daemon.quick", "asyncio"} <= found
    assert not {name for name in found if name in HEAVY or name.partition(".")[0] in HEAVY or name.startswith(NOT_AT_ONCE)}


def test_what_comes_later_comes_before_a_warm_vm_is_given_away(spawn, root, bind_body):
    for name in ("node", "claude"):
        (root / name).write_text("#!/bin/sh\necho 1\n")
        (root / name).chmod(0o755)
    env = {"PYTHONVERBOSE": "1", "PATH": f"{root}:{os.environ['PATH']}", "FF_CLAUDE": str(root / "claude")}
    daemon = spawn(root, **env).start()
    assert daemon.http.post("/v1/probe").status_code == 200
    daemon.http.post("/v1/bind", json=bind_body)
    daemon.exec("echo", "ready")
    assert daemon.http.get("/v1/sessions").json() == []
    assert daemon.http.get("/v1/sessions", params={"x": "y"}).status_code == 200
    daemon.end()
    probed = next(number for number, line in enumerate(daemon.said) if '"/v1/probe"' in line)
    assert "ff_core.sessions.service" in imported("\n".join(daemon.said[:probed]))
    assert not {
        name
        for name in imported("\n".join(daemon.said[probed:]))
        if name.startswith(("ff_core", "pydantic", "asyncio", "sqlite3"))
    }


def test_the_version_is_the_package_s():
    assert version("ff-core") == VERSION


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("FF_VM_ID", "x"),
        ("FF_GENERATION", ""),
        ("FF_GENERATION", "-1"),
        ("FF_TOKEN_SHA256", "plain-token"),
        ("FF_PORT", "70000"),
    ],
)
def test_settings_that_are_none_are_named(spawn, root, name, value):
    with pytest.raises(AssertionError) as caught:
        spawn(root, **{name: value}).start()
    assert f"bad_settings: {name} must be" in str(caught.value)


def test_a_second_daemon_on_the_same_state_is_refused(daemon, spawn, root):
    daemon.start()
    with pytest.raises(AssertionError) as caught:
        spawn(root).start()
    assert "store_in_use" in str(caught.value)
    assert daemon.http.get("/v1/health").status_code == 200


def test_it_stops_in_time_and_ends_what_is_open(daemon):
    daemon.start().bind()
    ended = {}

    def follow():
        with daemon.http.stream("GET", "/v1/events") as response:
            first.set()
            ended["events"] = [line for line in response.iter_lines() if line.startswith("id:")]

    def execute():
        with daemon.http.stream("POST", "/v1/exec", json={"argv": ["sleep", "300"]}) as response:
            second.set()
            ended["exec"] = list(response.iter_lines())

    first, second = threading.Event(), threading.Event()
    threads = [threading.Thread(target=follow), threading.Thread(target=execute)]
    for thread in threads:
        thread.start()
    assert first.wait(10)
    assert second.wait(10)
    begun = time.monotonic()
    code, said = daemon.end()
    assert time.monotonic() - begun < 5
    for thread in threads:
        thread.join(10)
    assert (code, said) == (0, "")
    assert ended["events"] == ["id: 1", "id: 2"]
    assert re.fullmatch(r'\{"kind":"exit","exit_code":-15,.*\}', ended["exec"][-1])


def test_killed_under_load_it_comes_back_with_a_whole_journal(daemon):
    daemon.start().bind()
    sessions = [daemon.http.post("/v1/sessions", json={}).json()["id"] for _ in range(4)]
    accepted: list[str] = []

    def write(session):
        for number in range(90):
            try:
                answer = daemon.http.post(f"/v1/sessions/{session}/messages", json={"text": f"{number} " + "x" * 5_000})
            except httpx2.HTTPError:
                return
            accepted.append(answer.json()["id"])

    writers = [threading.Thread(target=write, args=[session]) for session in sessions]
    for writer in writers:
        writer.start()
    deadline = time.monotonic() + 20
    while len(accepted) < 40:
        assert time.monotonic() < deadline
        time.sleep(0.001)
    os.kill(daemon.pid, signal.SIGKILL)
    for writer in writers:
        writer.join()
    daemon.end(signal.SIGKILL)

    daemon.start()
    health = daemon.http.get("/v1/health").json()
    assert (health["bound"], health["workspace_id"] is None) == (False, False)
    assert daemon.http.get("/v1/events").json()["code"] == "not_bound"
    newest = daemon.bind().http.get("/v1/health").json()["journal_seq"]
    events = daemon.events(0, until=newest)
    assert [event["seq"] for event in events] == list(range(1, newest + 1))
    queued = [event["body"]["message_id"] for event in events if event["body"]["kind"] == "message.queued"]
    assert len(queued) == len(set(queued))
    assert set(accepted) <= set(queued)


@pytest.mark.skipif(not AS_ROOT, reason="only root can mount a small disk")
def test_a_full_disk_is_a_problem_and_the_journal_stays_whole(spawn, root):
    disk = root / "disk"
    disk.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=8m,mode=755", "ff-test", str(disk)], capture_output=True, timeout=10, check=False
    )
    if mounted.returncode != 0:
        pytest.skip("mounting is not allowed here")
    daemon = spawn(disk)
    try:
        daemon.start().bind()
        session = daemon.http.post("/v1/sessions", json={}).json()["id"]
        assert b"No space left" in b"".join(
            frame.data for frame in daemon.exec("sh", "-c", "cat /dev/zero > fill; true") if frame.kind == "output"
        )
        accepted = []
        for _ in range(90):
            answer = daemon.http.post(f"/v1/sessions/{session}/messages", json={"text": "x" * 100_000})
            if answer.status_code != 202:
                break
            accepted.append(answer.json()["id"])
        assert (answer.status_code, answer.json()["code"]) == (507, "disk_full")
        assert "Delete files in the workspace" in answer.json()["detail"]
        assert daemon.http.get("/v1/health").status_code == 200
        assert daemon.exec("rm", "fill")[-1].exit_code == 0
        accepted.append(daemon.http.post(f"/v1/sessions/{session}/messages", json={"text": "after"}).json()["id"])
        newest = daemon.http.get("/v1/health").json()["journal_seq"]
        events = daemon.events(0, until=newest)
        assert [event["seq"] for event in events] == list(range(1, newest + 1))
        assert [e["body"]["message_id"] for e in events if e["body"]["kind"] == "message.queued"] == accepted
    finally:
        daemon.end(signal.SIGKILL)
        subprocess.run(["umount", str(disk)], check=True, timeout=10)


@pytest.mark.skipif(not AS_ROOT, reason="the owners differ only for root")
def test_folders_have_their_owners_and_modes(daemon):
    daemon.start().bind()
    seen = {p.name: (p.stat().st_uid, oct(p.stat().st_mode & 0o7777)) for p in [daemon.root, *daemon.root.iterdir()]}
    assert seen == {
        daemon.root.name: (0, "0o755"),
        ".ff": (0, "0o700"),
        "home": (1000, "0o700"),
        "repo": (1000, "0o755"),
    }
    assert {p.stat().st_mode & 0o777 for p in (daemon.root / ".ff").iterdir()} == {0o600}


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs /proc")
def test_nobody_may_trace_or_dump_it(daemon):
    daemon.start()
    assert Path(f"/proc/{daemon.pid}/environ").stat().st_uid == 0
    limits = subprocess.run(
        [
            sys.executable,
            "-c",
            "import ctypes; from ff_core.daemon.main import harden; harden(); print(ctypes.CDLL(None).prctl(3, 0, 0, 0, 0))",
        ],
        capture_output=True,
        text=True,
        timeout=30,
        check=True,
    )
    assert limits.stdout == "0\n"
