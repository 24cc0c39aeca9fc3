"""What a person types about workspaces of this machine, and what works without the cloud."""

import json
import subprocess
from pathlib import Path

import pytest
from desk import Desk, until

pytestmark = [pytest.mark.claude, pytest.mark.timeout(60)]

SETUP = json.dumps({"scripts": {"setup": "test ! -e /nowhere && echo getting ready && touch made"}})
DEAD = {"FF_SERVER": "http://127.0.0.1:9", "FF_API_KEY": "ffk_x"}
"""A server that is not there."""


@pytest.fixture(scope="module")
def desk():
    with Desk.opened() as desk:
        yield desk


@pytest.fixture
def offline(desk):
    desk.environment |= DEAD
    yield desk
    for name in DEAD:
        del desk.environment[name]


@pytest.fixture(scope="module")
def path(desk):
    path = desk.repository(files={"README.md": "# here\n", "factory-factory.json": SETUP, ".gitignore": "made\n"})
    desk.ff("new", "too early", code=2)
    assert "project_needed" in desk.said
    assert "default branch main" in desk.ff("project", "add", "proj")
    return path


@pytest.fixture(scope="module")
def made(desk, path):
    return desk.json("new", "my work")


def test_new_shows_what_the_set_up_says_and_where_it_is(desk, path):
    said = desk.ff("new", "Fix the lögin", cwd=path)
    assert "setup: getting ready" in said
    assert "Fix the lögin is READY" in said
    (where,) = [line.split(" in ")[1] for line in said.splitlines() if line.startswith("Branch ada/fix-the-login in ")]
    assert (Path(where) / "made").exists()
    assert (
        desk.ff("rm", "Fix the lögin", "--yes")
        == "Fix the lögin is gone.\nIts branch ada/fix-the-login is still in the project.\n"
    )
    assert not Path(where).exists()
    assert desk.git(path, "branch", "--list", "ada/fix-the-login") != ""


def test_new_as_json_is_one_object_also_when_it_fails(desk, path):
    told = desk.json("new", "quick", "--no-setup", "--base", "main", "--project", "proj")
    assert (told["status"], told["location"], told["epoch"]) == ("READY", "DESKTOP", 0)
    assert not (Path(told["path"]) / "made").exists()
    failed = desk.json("new", "failing", "--branch", "nope", code=1)
    assert failed["error"]["code"] == "branch_not_found"
    assert "branch_not_found" in desk.said
    for one in (told, failed):
        desk.ff("rm", one["id"], "--yes")


@pytest.mark.parametrize(
    "flags",
    [
        ("--cloud", "--project", "proj"),
        ("--cloud", "--no-setup"),
        ("--repo", "https://git.example.com/a.git"),
        ("--base", "a", "--branch", "b"),
        ("--issue", "not an issue"),
        ("--base", "-x"),
    ],
)
def test_flags_that_make_no_sense(desk, path, flags):
    desk.ff("new", "senseless", *flags, code=2)
    assert "senseless" not in [one["name"] for one in desk.json("ls")["items"]]


def test_it_is_listed_and_shown(desk, made):
    row = next(line.split("\t") for line in desk.ff("ls").splitlines() if line.startswith("my work"))
    assert row[1:4] == ["READY", "DESKTOP", "ada/my-work"]
    shown = desk.ff("status", "my work")
    assert made["path"] in shown
    assert "on ada/my-work" in shown
    assert "last saved" not in shown


def test_commands_conversations_and_answers_are_as_in_the_cloud(desk, made):
    assert desk.ff("exec", "my work", "--", "cat", "README.md") == "# here\n"
    desk.ff("exec", "my work", "--", "sh", "-c", "exit 9", code=9)
    desk.ff("say", "my work", "%bash touch asked.txt\n%say Done asking.", "--wait", "--workflow", "bugfix", code=7)
    assert "touch asked.txt" in desk.ff("status", "my work")
    desk.ff("say", "my work", "x", "--workflow", "explore", code=5)
    assert "other_settings" in desk.said
    desk.ff("answer", "my work", "--allow")
    until((Path(made["path"]) / "asked.txt").exists)
    assert "session Chat 1: " in desk.ff("stop", "my work")
    (session,) = desk.json("status", "my work")["sessions"]
    assert session["workflow"] == "bugfix"
    # The user's own login and address of the model, and nobody else's.
    assert desk.model.requests[-1].headers["x-api-key"] == "sk-of-the-user"


def test_work_that_is_nowhere_else_is_not_removed_by_mistake(desk, path):
    told = desk.json("new", "precious")
    (Path(told["path"]) / "new.txt").write_text("new")
    desk.ff("rm", "precious", "--yes", code=5)
    assert "1 untracked file" in desk.said
    assert "--force" in desk.said
    with subprocess.Popen(
        [desk.program, "watch", told["id"], "--json"], env=desk.env(), stdout=subprocess.PIPE, stdin=subprocess.DEVNULL
    ) as watching:
        desk.ff("rm", "precious", "--yes", "--force")
        assert watching.communicate(timeout=20)[0].splitlines()
        assert watching.returncode == 0


def test_what_only_the_cloud_has_is_said_so(desk, made):
    desk.ff("suspend", "my work", code=2)
    assert "cloud_only" in desk.said


def test_projects(desk, path, made):
    (row,) = [line.split("\t") for line in desk.ff("project", "ls").splitlines()]
    assert row[:3] == ["proj", str(path), "main"]
    desk.ff("project", "rm", "proj", code=5)
    assert "project_in_use" in desk.said
    other = desk.repository("other")
    told = desk.json("project", "add", ".", "--name", "second", "--include", ".env", cwd=other)
    assert told["include"] == [".env"]
    assert "is as it was" in desk.ff("project", "rm", str(other))
    desk.ff("project", "rm", "second", code=4)
    desk.ff("project", "add", str(desk.home), code=2)
    assert "not_a_repository" in desk.said


def test_without_the_cloud_what_is_here_works_and_the_rest_says_why_not(offline, made):
    listed = offline.json("ls")
    assert [one["name"] for one in listed["items"]] == ["my work"]
    assert "127.0.0.1:9" in listed["notes"][0]
    assert offline.ff("exec", "my work", "--", "cat", "README.md") == "# here\n"
    assert offline.ff("status", made["id"])
    offline.ff("status", "far away", code=6)
    assert "no workspace 'far away' on this machine, and the cloud can't be asked" in offline.said
    assert "(server_unreachable)" in offline.said
    offline.ff("new", "x", "--cloud", code=6)


def test_without_a_login_the_rest_is_said_to_need_one(desk, made):
    desk.ff("status", "far away", code=3)
    assert "no workspace 'far away' on this machine" in desk.said
    assert desk.ff("ls")
    assert desk.said == ""


def test_both_places_are_one_list_and_this_machine_comes_first(desk, made, server):
    desk.environment |= {"FF_SERVER": server.url, "FF_API_KEY": "ffk_secret"}
    try:
        far = server.add_workspace("far away")
        server.add_workspace("my work")
        names = [(one["name"], one["location"]) for one in desk.json("ls")["items"]]
        assert names == [("my work", "DESKTOP"), ("far away", "CLOUD"), ("my work", "CLOUD")]
        assert desk.json("status", "my work")["workspace"]["id"] == made["id"]
        assert desk.json("status", "far away")["workspace"]["id"] == str(far.id)
        desk.ff("status", "nowhere", code=4)
    finally:
        for name in DEAD:
            del desk.environment[name]
