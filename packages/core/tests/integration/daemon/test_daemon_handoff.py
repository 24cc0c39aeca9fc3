"""A workspace that comes and goes, through the daemon's door: where it lives is what the control plane says, and counts at once.

How a bundle is packed and unpacked is tested with :mod:`ff_core.handoff`; all of it together, in ff_cloud.
"""

import signal
import threading
import time

FIRST, SECOND = "01890000-0000-7000-8000-000000000001", "01890000-0000-7000-8000-000000000002"


def code(answer) -> str:
    return answer.json()["code"] if answer.status_code >= 400 else str(answer.status_code)


def kinds(daemon) -> list[str]:
    """Of all events so far."""
    newest = daemon.http.get("/v1/health").json()["journal_seq"]
    return [event["body"]["kind"] for event in daemon.events(0, newest)]


def test_what_comes_is_inert_until_it_is_said_to_live_here(spawn, root, bind_body):
    daemon = spawn(root).start()
    bind = lambda **more: daemon.http.post("/v1/bind", json={**bind_body, **more})  # noqa: E731
    assert bind(location="DESKTOP", epoch=4).status_code == 200
    assert daemon.http.put("/v1/repository", json={}).status_code == 200
    assert code(daemon.http.post("/v1/exec", json={"argv": ["true"]})) == "workspace_elsewhere"
    assert code(daemon.http.post("/v1/sessions", json={})) == "workspace_elsewhere"
    assert daemon.http.get("/v1/health").json()["journal_seq"] == 0, "its journal comes with it"
    assert code(daemon.http.put(f"/v1/handoff?id={FIRST}&size=3&sha256={'0' * 64}", content=b"no!")) in {
        "bundle_broken",
        "program_missing",  # on machines where this Python is closed to the VM's user
    }
    assert (root / "repo" / ".git").is_dir(), "what was there stays"
    assert bind(location="CLOUD", epoch=5, handoff_id=FIRST).status_code == 200
    assert bind(location="CLOUD", epoch=5, handoff_id=FIRST).status_code == 200
    assert kinds(daemon) == ["handoff.arrived"]
    assert daemon.http.post("/v1/exec", json={"argv": ["true"]}).status_code == 200
    for old in ({"location": "DESKTOP", "epoch": 4}, {}, {"location": "DESKTOP", "epoch": 5}):
        assert code(bind(**old)) == "stale_epoch"
    assert code(daemon.http.put(f"/v1/handoff?id={FIRST}&size=1&sha256={'0' * 64}", content=b"x")) == "lives_here"
    assert bind(location="DESKTOP", epoch=6).status_code == 200
    assert code(daemon.http.post("/v1/exec", json={"argv": ["true"]})) == "workspace_elsewhere"


def test_what_is_frozen_goes_on_when_the_handoff_that_froze_it_is_over(spawn, root, bind_body):
    daemon = spawn(root).start()
    daemon.http.post("/v1/bind", json=bind_body)
    daemon.http.put("/v1/repository", json={})

    def freeze(handoff: str, **more):
        return daemon.http.post("/v1/handoff/freeze", json={"id": handoff, **more})

    def moving():
        return daemon.http.get("/v1/health").json()["moving"]

    def thaw(handoff: str):
        return daemon.http.delete(f"/v1/handoff/freeze?id={handoff}&reason=none")

    assert (freeze(FIRST).status_code, freeze(FIRST).json()["moving"], moving()) == (200, FIRST, FIRST)
    assert code(freeze(SECOND)) == "workspace_moving"
    assert code(daemon.http.post("/v1/exec", json={"argv": ["true"]})) == "workspace_moving"
    assert daemon.http.get("/v1/repository").status_code == 200, "it can be read"
    assert (thaw(SECOND).status_code, moving()) == (200, FIRST)
    daemon.end(signal.SIGKILL)
    daemon.start()
    daemon.http.post("/v1/bind", json={**bind_body, "handoff_id": SECOND})
    assert moving() == FIRST, "another one that is over says nothing"
    daemon.http.post("/v1/bind", json={**bind_body, "handoff_id": FIRST})
    assert (moving(), kinds(daemon)[-2:]) == (None, ["handoff.started", "handoff.aborted"])
    assert (freeze(SECOND).status_code, thaw(SECOND).json()["moving"]) == (200, None)


def test_a_command_that_runs_is_in_the_way_unless_it_is_to_be_interrupted(spawn, root, bind_body):
    daemon = spawn(root).start()
    daemon.http.post("/v1/bind", json=bind_body)
    daemon.http.put("/v1/repository", json={})
    ended = []

    def run() -> None:
        ended.append(daemon.http.post("/v1/exec", json={"argv": ["sh", "-c", "touch begun; sleep 60"]}).text)

    running = threading.Thread(target=run)
    running.start()
    while not (root / "repo" / "begun").exists():
        time.sleep(0.01)
    assert code(daemon.http.post("/v1/handoff/freeze", json={"id": FIRST})) == "command_running"
    assert daemon.http.get("/v1/health").json()["moving"] is None
    assert daemon.http.post("/v1/handoff/freeze", json={"id": FIRST, "interrupt": True}).json()["moving"] == FIRST
    running.join(20)
    assert '"exit' in ended[0]
