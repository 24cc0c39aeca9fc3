"""Commands in the workspace."""

import os
import threading
from pathlib import Path

import pytest

from ff_core.contract.base import Channel
from ff_core.contract.execution import ExecExit
from ff_core.workspaces.execution import COMMANDS_MAX

AS_ROOT = os.geteuid() == 0


def text(frames, channel=Channel.STDOUT):
    return b"".join(f.data for f in frames if f.kind == "output" and f.channel is channel)


def alive(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def test_output_on_both_channels_and_the_exit_code(bound):
    frames = bound.exec("sh", "-c", "echo out; echo err >&2; exit 7")
    assert (text(frames), text(frames, Channel.STDERR), frames[-1]) == (b"out\n", b"err\n", ExecExit(exit_code=7))


def test_any_bytes_large_output_and_input_survive(bound):
    assert text(bound.exec("printf", r"\377\000\376\n")) == b"\xff\x00\xfe\n"
    assert text(bound.exec("cat", stdin="naïve ☃\n" * 10_000)) == "naïve ☃\n".encode() * 10_000
    assert len(text(bound.exec("head", "-c", "5000000", "/dev/zero"))) == 5_000_000


def test_a_signal_is_a_negative_code(bound):
    assert bound.exec("sh", "-c", "kill -9 $$")[-1] == ExecExit(exit_code=-9)


def test_a_timeout_kills_the_group_and_says_so(bound, eventually):
    frames = bound.exec("sh", "-c", "sleep 300 & echo $!; wait", timeout_s=0.5)
    assert isinstance(frames[-1], ExecExit)
    assert frames[-1].timed_out
    assert frames[-1].exit_code < 0
    eventually(lambda: not alive(int(text(frames))))


def test_output_arrives_while_the_command_runs_and_hanging_up_kills_its_group(bound, eventually):
    body = {"argv": ["sh", "-c", "sleep 300 & echo $! $$; wait"]}
    with bound.http.stream("POST", "/v1/exec", json=body) as response:
        frames = [next(response.iter_lines())]
    assert '"output"' in frames[0]
    pids = list(map(int, _data(frames[0]).split()))
    eventually(lambda: not any(map(alive, pids)))


def _data(line):
    from ff_core.contract.execution import EXEC_FRAME  # noqa: PLC0415

    return EXEC_FRAME.validate_json(line).data


def test_a_silent_command_answers_its_headers_at_once(bound):
    with bound.http.stream("POST", "/v1/exec", json={"argv": ["sleep", "300"]}, timeout=5) as response:
        assert response.status_code == 200


def test_what_a_command_put_into_the_background_lives_on(bound):
    frames = bound.exec("sh", "-c", "sleep 60 >/dev/null 2>&1 & echo $!")
    pid = int(text(frames))
    assert alive(pid)
    assert bound.exec("kill", str(pid))[-1] == ExecExit(exit_code=0)


@pytest.mark.skipif(not AS_ROOT, reason="only root can become another user")
def test_it_runs_as_the_user_who_cannot_look_into_the_daemon(bound):
    assert text(bound.exec("id", "-u")) == b"1000\n"
    assert text(bound.exec("id", "-G")) == b"1000\n"
    for secret in (bound.root / ".ff", bound.root / ".ff" / "state.db", f"/proc/{bound.pid}/environ", f"/proc/{bound.pid}/fd/"):
        assert bound.exec("ls" if str(secret).endswith(("ff", "/")) else "cat", str(secret))[-1].exit_code != 0
    assert bound.exec("mv", str(bound.root / ".ff"), str(bound.root / "gone"))[-1].exit_code != 0
    bound.exec("touch", "mine")
    assert (bound.root / "repo" / "mine").stat().st_uid == 1000
    assert (bound.root / "repo" / "mine").stat().st_mode & 0o777 == 0o644


def test_its_environment_is_clean_and_may_be_added_to(bound):
    seen = dict(line.split("=", 1) for line in text(bound.exec("env", env={"MINE": "a=b c"})).decode().splitlines())
    assert seen["MINE"] == "a=b c"
    assert seen["HOME"] == str(bound.root / "home")
    assert seen["PATH"]
    assert not [name for name in seen if name.startswith("FF_") or name == "SOME_SECRET"]


def test_it_stands_in_the_repository_or_where_it_is_told_inside_the_workspace(bound):
    repo, home = bound.root / "repo", bound.root / "home"
    bound.exec("mkdir", "-p", "deep/er")
    assert text(bound.exec("pwd")).decode().strip() == str(repo)
    assert text(bound.exec("pwd", cwd="deep/er")).decode().strip() == str(repo / "deep/er")
    assert text(bound.exec("pwd", cwd="../home")).decode().strip() == str(home)
    assert text(bound.exec("pwd", cwd=str(home))).decode().strip() == str(home)


@pytest.mark.parametrize("cwd", ["..", "/", "/etc", "../.ff", "link", "link/..", "loop", "x" * 300, "../repo2"])
def test_it_stands_nowhere_else(bound, cwd):
    bound.exec("ln", "-sfn", "/etc", "link")
    bound.exec("ln", "-sfn", "loop", "loop")
    response = bound.http.post("/v1/exec", json={"argv": ["pwd"], "cwd": cwd})
    assert (response.status_code, response.json()["code"]) == (422, "exec_cwd_outside")


def test_a_missing_folder_or_program_is_a_problem_before_anything_is_streamed(bound):
    response = bound.http.post("/v1/exec", json={"argv": ["pwd"], "cwd": "nope"})
    assert (response.status_code, response.json()["code"]) == (409, "folder_missing")
    for argv in (["no-such-program"], ["/etc/passwd"], ["sh", "x" * 131_072], [""]):
        response = bound.http.post("/v1/exec", json={"argv": argv})
        assert (response.status_code, response.json()["code"]) == (422, "program_missing")


def test_commands_at_once_are_bounded_and_slots_come_back(bound, eventually):
    started, release = threading.Semaphore(0), threading.Event()

    def hold():
        with bound.http.stream("POST", "/v1/exec", json={"argv": ["sleep", "300"]}) as response:
            assert response.status_code == 200
            started.release()
            release.wait(30)

    holders = [threading.Thread(target=hold) for _ in range(COMMANDS_MAX)]
    for holder in holders:
        holder.start()
    try:
        for _ in holders:
            assert started.acquire(timeout=30)
        response = bound.http.post("/v1/exec", json={"argv": ["true"]})
        assert (response.status_code, response.json()["code"]) == (429, "too_many_commands")
    finally:
        release.set()
        for holder in holders:
            holder.join()
    eventually(lambda: bound.http.post("/v1/exec", json={"argv": ["true"]}).status_code == 200)


@pytest.fixture
def unprepared(daemon, bind_body):
    assert daemon.start().http.post("/v1/bind", json=bind_body).status_code == 200
    return daemon


def test_before_the_repository_is_there_commands_stand_in_the_home_folder(unprepared):
    home = unprepared.root / "home"
    assert text(unprepared.exec("pwd")).decode().strip() == str(home)
    unprepared.exec("mkdir", "-p", "deep")
    assert text(unprepared.exec("pwd", cwd="../home/deep")).decode().strip() == str(home / "deep")
    for cwd in ("", ".", "src", "../repo", str(unprepared.root / "repo"), "../home/link"):
        unprepared.exec("ln", "-sfn", "../repo", "link")
        response = unprepared.http.post("/v1/exec", json={"argv": ["pwd"], "cwd": cwd})
        assert (response.status_code, response.json()["code"]) == (409, "workspace_not_ready"), cwd
    for cwd, code in (("..", "exec_cwd_outside"), ("../home/none", "folder_missing")):
        assert unprepared.http.post("/v1/exec", json={"argv": ["pwd"], "cwd": cwd}).json()["code"] == code
    assert unprepared.http.put("/v1/repository", json={}).status_code == 200
    assert text(unprepared.exec("pwd")).decode().strip() == str(unprepared.root / "repo")


@pytest.mark.skipif(not AS_ROOT, reason="the owners differ only for root")
def test_nothing_can_be_put_where_the_checkout_will_be(unprepared):
    repo = unprepared.root / "repo"
    for attempt in (f"touch {repo}/x", f"rmdir {repo}", f"mv {repo} {repo}2", f"touch {unprepared.root}/x"):
        assert unprepared.exec("sh", "-c", attempt)[-1].exit_code != 0, attempt
    assert unprepared.http.put("/v1/repository", json={}).status_code == 200
    assert unprepared.exec("touch", "x")[-1].exit_code == 0
