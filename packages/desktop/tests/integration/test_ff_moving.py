"""``ff send``, ``ff pull``, ``ff handoffs`` and ``ff receipt``, as a person types them, with a real ``ff serve``."""

import os
import signal
import subprocess
from pathlib import Path

import pytest
from desk import Desk, until
from handoff_server import HandoffServer
from threads import in_a_thread

pytestmark = [pytest.mark.claude, pytest.mark.timeout(60)]


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    scripted = HandoffServer(tmp_path_factory.mktemp("server") / "cloud")
    with in_a_thread(scripted):
        yield scripted


@pytest.fixture(scope="module")
def desk(server):
    with Desk.opened() as desk:
        desk.environment |= {"FF_SERVER": server.url, "FF_API_KEY": "ffk_x"}
        desk.repository(files={"README.md": "# here\n", ".gitignore": ".env\n"})
        desk.ff("project", "add", "proj")
        yield desk


def made(desk, name):
    told = desk.json("new", name)
    (Path(told["path"]) / "README.md").write_text("changed\n")
    return Path(told["path"])


def test_there_and_back_again(desk, server):
    place = made(desk, "work")
    (place / ".env").write_text("SECRET=1\n")
    plan = desk.json("send", "work", "--plan", "--include", ".env")
    assert (plan["contents"]["files"], plan["contents"]["included"], plan["refusals"]) == (2, [".env"], [])
    said = desk.ff("send", "work", "--include", ".env")
    assert "included by rule: .env" in said
    assert "work lives in the cloud now: " in said
    assert "receipt equal" in said
    assert "CLOUD" in desk.ff("ls")
    assert desk.ff("send", "work") == ""
    assert "in the cloud already" in desk.said
    (workspace,) = [each for each in server.workspaces.values() if each.name == "work"]
    assert (server.cloud(workspace.id) / ".env").read_text() == "SECRET=1\n"
    receipt = desk.json("receipt", "work")
    assert (receipt["direction"], receipt["equal"], receipt["sent"]) == ("SEND", True, receipt["arrived"])
    (server.cloud(workspace.id) / "README.md").write_text("of the cloud\n")
    said = desk.ff("pull", "work")
    assert f"in {place}" in said
    assert (place / "README.md").read_text() == "of the cloud\n"
    assert "both sides are equal" in desk.ff("receipt", "work")
    assert desk.json("receipt", "work")["direction"] == "PULL"
    desk.ff("pull", "work")
    assert "on this desktop already" in desk.said
    assert [line.split("\t")[2:5] for line in desk.ff("handoffs", "--all").splitlines()] == [
        ["PULL", "DONE", "DONE"],
        ["SEND", "DONE", "DONE"],
    ]
    assert desk.json("handoffs") == {"items": []}


def test_several_at_once_and_one_that_is_refused(desk, server):
    places = [made(desk, name) for name in ("one", "two", "three")]
    (places[1] / "id_ed25519").write_text("a key\n")
    desk.ff("send", "one", "two", "--no-credentials", "nobody", code=4)
    desk.ff("send", "two", code=2)
    assert "credentials_ask" in desk.said
    git_dir = Path(desk.git(places[2], "rev-parse", "--absolute-git-dir"))
    (git_dir / "MERGE_HEAD").write_text(desk.git(places[2], "rev-parse", "HEAD"))
    said = desk.ff("send", "one", "two", "three", "--no-credentials", code=5)
    assert "operation_in_progress" in said + desk.said
    assert {each.name for each in server.workspaces.values() if server.runs(each.id)} == {"one", "two"}
    (two,) = [each for each in server.workspaces.values() if each.name == "two"]
    assert not (server.cloud(two.id) / "id_ed25519").exists()
    plans = desk.json("send", "three", "one", "--plan", code=5)
    assert [(each["name"], len(each["refusals"])) for each in plans["items"]] == [("three", 1)]


def test_what_fails_says_why(desk, server):
    made(desk, "fails")
    server.misbehave("create", "busy", 3)
    server.misbehave("look", "fail")
    desk.ff("send", "fails", code=1)
    assert "fails: It came to nothing. (repo_auth_failed)" in desk.said
    listed = desk.ff("handoffs", "--all").splitlines()[0].split("\t")
    assert listed[1:4] == ["fails", "SEND", "FAILED"]
    desk.ff("handoffs", "abort", listed[0][:30], code=5)
    desk.ff("handoffs", "abort", "ffff", code=4)
    desk.ff("receipt", "fails", code=4)
    desk.ff("receipt", "nobody", code=4)
    assert desk.json("status", "fails")["workspace"]["moving"] is None


def test_ctrl_c_gives_up_what_is_not_decided(desk, server):
    place = made(desk, "interrupted")
    (place / "large.bin").write_bytes(os.urandom(9 << 20))
    server.asked.clear()
    server.misbehave("piece", "busy", 1000)
    command = [desk.program, "send", "interrupted"]
    with subprocess.Popen(command, env=desk.env(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        until(lambda: "piece" in server.asked)
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=30)
    server.forgive()
    assert process.returncode == 130, (out, err)
    assert "it stays where it was" in out
    found = desk.json("status", "interrupted")["workspace"]
    assert (found["location"], found["moving"]) == ("DESKTOP", None)


def test_a_killed_serve_goes_on_with_it(desk, server):
    place = made(desk, "killed")
    (place / "large.bin").write_bytes(os.urandom(9 << 20))
    server.asked.clear()
    server.misbehave("piece", "busy", 1000)
    command = [desk.program, "send", "killed"]
    with subprocess.Popen(command, env=desk.env(), stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        until(lambda: "piece" in server.asked)
        desk.kill()
        process.kill()
    server.forgive()
    assert [each["status"] for each in desk.json("handoffs")["items"]] != []
    said = desk.json("send", "killed")
    assert (said["status"], said["name"]) == ("DONE", "killed")
    assert ["killed", "CLOUD"] in [[line.split("\t")[at] for at in (0, 2)] for line in desk.ff("ls").splitlines()]
