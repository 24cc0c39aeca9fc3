"""What keeps a VM awake, that it rests only when nothing does, and that nothing begins while it rests: with real processes."""

import os
import signal
import threading
import time
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime, timedelta

import pytest

from ff_core.workspaces.processes import look

AS_ROOT = pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
NOTHING = {"turns": 0, "commands": 0, "processes": 0, "followers": 0}
SESSION = "/v1/sessions/00000000-0000-7000-8000-000000000001"


@pytest.fixture
def vm(spawn, root):
    """A bound daemon whose user is nobody else's, as in a VM."""
    user = 65_000 + os.getpid() % 400
    yield spawn(root, FF_USER_ID=str(user)).start().bind()
    for seen in look():
        if seen.uid == user:
            os.kill(seen.pid, signal.SIGKILL)


def use(daemon):
    return daemon.http.get("/v1/health").json()["use"]


def active_at(daemon):
    return datetime.fromisoformat(use(daemon)["active_at"])


def counts(daemon):
    return {name: count for name, count in use(daemon).items() if name != "active_at"}


def rest(daemon, **wanted):
    response = daemon.http.post("/v1/rest", json=wanted)
    return "resting" if response.status_code == 200 else response.json()["code"]


def files(daemon):
    return sorted(path.name for path in (daemon.root / "repo").iterdir() if path.name != ".git")


@contextmanager
def running(daemon, *argv):
    with daemon.http.stream("POST", "/v1/exec", json={"argv": list(argv)}) as response:
        assert response.status_code == 200
        yield


@contextmanager
def following(daemon, **params):
    with daemon.http.stream("GET", "/v1/events", params=params) as response:
        assert response.status_code == 200
        yield


def test_nothing_goes_on_in_a_vm_that_was_only_asked_how_it_is(vm):
    assert counts(vm) == NOTHING
    then = active_at(vm)
    assert datetime.now(UTC) - timedelta(seconds=20) < then <= datetime.now(UTC)  # noqa: TID251
    vm.http.get("/v1/health")
    vm.http.post("/v1/rest", json={"idle_s": 1000})
    vm.http.delete("/v1/rest")
    vm.http.post("/v1/probe")
    with following(vm, copy=1):
        assert counts(vm) == NOTHING
    assert active_at(vm) == then
    vm.http.get("/v1/sessions")
    assert active_at(vm) > then


def test_commands_and_clients_count_as_long_as_they_are_there_and_move_the_clock_when_they_go(vm, eventually):
    with running(vm, "sleep", "300"), following(vm), following(vm, copy=0):
        assert counts(vm) == {**NOTHING, "commands": 1, "followers": 2}
        first = active_at(vm)
        time.sleep(0.01)  # time itself is what moves
        assert active_at(vm) > first
    assert eventually(lambda: counts(vm) == NOTHING)
    then = active_at(vm)
    assert active_at(vm) == then


@AS_ROOT
def test_what_a_command_leaves_behind_counts_until_it_ends(vm, eventually):
    pid = int(vm.exec("sh", "-c", "sleep 300 >/dev/null 2>&1 & echo $!")[0].data)
    assert counts(vm) == {**NOTHING, "processes": 1}
    assert rest(vm) == "vm_in_use"
    vm.exec("sh", "-c", "setsid sh -c 'sleep 300 & sleep 300' >/dev/null 2>&1 &")
    assert eventually(lambda: counts(vm)["processes"] == 4)  # the shell, its two, and the first
    vm.exec("kill", str(pid))
    assert eventually(lambda: counts(vm)["processes"] == 3)


@pytest.mark.parametrize("held", [lambda vm: running(vm, "sleep", "300"), following], ids=["a command", "a client"])
def test_it_does_not_rest_while_it_is_in_use_unless_it_must(vm, held):
    with held(vm):
        response = vm.http.post("/v1/rest", json={})
        assert (response.status_code, response.json()["code"]) == (409, "vm_in_use")
        assert sum(response.json()["use"][name] for name in NOTHING) == 1
        assert vm.http.post("/v1/sessions", json={}).status_code == 201
        assert rest(vm, force=True) == "resting"


def test_it_does_not_rest_before_it_was_idle_for_long_enough(vm):
    assert rest(vm, idle_s=3600) == "vm_in_use"
    assert vm.http.get("/v1/health").json()["resting"] is False
    assert rest(vm) == "resting"


def test_at_rest_it_refuses_what_is_new_answers_what_only_looks_and_takes_work_again(vm):
    assert rest(vm) == rest(vm) == rest(vm, idle_s=3600) == "resting"
    for method, path, body in [
        ("POST", "/v1/exec", {"argv": ["touch", "made"]}),
        ("POST", "/v1/sessions", {}),
        ("POST", f"{SESSION}/messages", {"text": "hi"}),
        ("POST", f"{SESSION}/interrupt", {}),
        ("POST", f"{SESSION}/requests/00000000-0000-7000-8000-000000000002", {"decision": "allow"}),
        ("PUT", "/v1/repository", {}),
        ("PUT", "/v1/repository/seed", {}),
    ]:
        response = vm.http.request(method, path, json=body)
        assert (response.status_code, response.json()["code"]) == (409, "vm_resting"), path
    health = vm.http.get("/v1/health").json()
    assert (health["resting"], health["bound"]) == (True, True)
    with following(vm):
        pass
    assert vm.http.get("/v1/repository").status_code == 200
    assert not (vm.root / "repo" / "made").exists()
    for _ in range(2):
        assert vm.http.delete("/v1/rest").json()["resting"] is False
    assert vm.exec("true")[-1].exit_code == 0
    assert vm.http.post("/v1/sessions", json={}).status_code == 201


def test_a_daemon_that_was_started_again_does_not_rest(vm):
    assert rest(vm) == "resting"
    vm.end()
    assert vm.start().http.get("/v1/health").json()["resting"] is False


def test_prompts_that_wait_keep_it_awake_and_none_begins_at_rest(vm, eventually):
    """The agent's program here ends at once, so that each prompt that is begun has failed soon."""
    session = vm.http.post("/v1/sessions", json={}).json()["id"]

    def events():
        newest = vm.http.get("/v1/health").json()["journal_seq"]
        return [event["body"]["kind"] for event in vm.events(0, until=newest)]

    vm.http.post(f"/v1/sessions/{session}/messages", json={"text": "hi"})
    assert eventually(lambda: "turn.finished" in events())
    assert eventually(lambda: counts(vm)["turns"] == 0)
    assert rest(vm, force=True) == "resting"
    seen = events()
    assert vm.http.post(f"/v1/sessions/{session}/messages", json={"text": "two"}).json()["code"] == "vm_resting"
    assert events() == seen
    vm.http.delete("/v1/rest")
    vm.http.post(f"/v1/sessions/{session}/messages", json={"text": "two"})
    assert eventually(lambda: events().count("turn.finished") == 2)


def test_requests_that_race_with_the_rest_are_done_whole_or_not_at_all(vm):
    """Writers hammer while the control plane tries to put the VM to rest: what was answered with 2xx is there, nothing else."""
    made, refused = [], set()

    def write(number):
        for round_ in range(60):
            response = vm.http.post("/v1/exec", json={"argv": ["touch", f"{number}-{round_}"], "timeout_s": 10})
            if response.status_code == 200:
                made.append(f"{number}-{round_}")
            else:
                refused.add(response.json()["code"])

    writers = [threading.Thread(target=write, args=[number]) for number in range(3)]
    answers = []
    with ExitStack() as stack:
        for writer in writers:
            writer.start()
            stack.callback(writer.join)
        while any(writer.is_alive() for writer in writers):
            answers.append(rest(vm))
            if answers[-1] == "resting":
                before = files(vm)
                assert counts(vm)["commands"] == 0
                assert files(vm) == before
                vm.http.delete("/v1/rest")
    assert set(answers) <= {"resting", "vm_in_use"}
    assert refused <= {"vm_resting"}
    assert files(vm) == sorted(made)
