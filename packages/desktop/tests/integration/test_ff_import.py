"""``ff import``, through ``ff serve``, from a database as Factory Factory keeps it."""

import json
import os
import subprocess

import pytest
from desk import Desk

from ff_core.errors import NotFound
from ff_core.testing import factory_factory
from ff_desktop.cli.importing import found, places
from ff_desktop.errors import Ambiguous

CHAT = "11111111-1111-4111-8111-111111111111"
CREATED = "2026-07-01T10:20:30.456+00:00"
NAME = "Fix \x1b[31mlogin"
SHOWN = "Fix [31mlogin"


@pytest.fixture
def desk():
    with Desk.opened() as desk:
        yield desk


def database(desk, repository, tree, conversation):
    """Where Factory Factory keeps it: one workspace with a conversation, one whose folder is gone."""
    path = desk.home / "factory-factory" / "data.db"
    path.parent.mkdir(exist_ok=True)
    workspace = {"projectId": "p1", "status": "READY", "branchName": "ada/fix", "createdAt": CREATED}
    project = {"id": "p1", "name": "Web", "slug": "web", "repoPath": str(repository), "worktreeBasePath": "/"}
    rows = [
        ("Project", project),
        ("Workspace", workspace | {"id": "w1", "name": NAME, "worktreePath": str(tree)}),
        ("Workspace", workspace | {"id": "w2", "name": "Gone", "worktreePath": f"{tree}-gone"}),
        ("AgentSession", {
            "id": "s1", "workspaceId": "w1", "name": "Chat 1", "workflow": "followup", "status": "IDLE", "provider": "CLAUDE",
            "providerSessionId": conversation, "model": "sonnet", "createdAt": CREATED, "updatedAt": CREATED,
        }),
    ]  # fmt: skip
    return factory_factory.make(path, factory_factory.SPLIT, rows, wal=True)


def on_a_terminal(desk, answer, *words):
    """``ff`` with a person at its standard input."""
    ours, theirs = os.openpty()
    try:
        os.write(ours, answer)
        return subprocess.run(
            [desk.program, *words], env=desk.env(), stdin=theirs, capture_output=True, text=True, timeout=60, check=False
        )
    finally:
        os.close(ours)
        os.close(theirs)


def test_it_shows_asks_imports_and_knows(desk):
    (desk.home / "notes.txt").write_text("hello")
    desk.ff("import", str(desk.home / "notes.txt"), "--yes", code=2)
    assert "(import_unreadable)" in desk.said
    desk.ff("import", code=4)
    assert "ff import PATH" in desk.said

    repository, tree = desk.repository("web"), desk.home / "trees" / "w1"
    desk.git(repository, "worktree", "add", "-q", "-b", "ada/fix", str(tree))
    path = database(desk, repository, tree, CHAT)
    shown = [line.split("\t") for line in desk.ff("import", code=2).splitlines()]  # no terminal, and no yes
    assert [line[:3] for line in shown] == [
        ["project", "Web", "add"],
        ["workspace", SHOWN, "add"],
        ["session", f"{SHOWN}: Chat 1", "add"],
        ["workspace", "Gone", "skip"],
    ]
    assert "w1-gone is not there" in shown[3][3]
    assert "transcript is gone" in shown[2][3]
    assert str(path) in desk.said
    assert "pass --yes" in desk.said
    declined = on_a_terminal(desk, b"n\n", "import")
    assert (declined.returncode, "Nothing was imported." in declined.stderr) == (1, True)
    assert desk.json("import")["applied"] is False
    backend = desk.backend()
    assert list(backend.workspaces()) == []

    agreed = on_a_terminal(desk, b"y\n", "import", str(path))
    assert (agreed.returncode, "Imported 1 project, 1 workspace, 1 session." in agreed.stdout) == (0, True), agreed
    (workspace,) = backend.workspaces()
    assert (workspace.name, workspace.status, workspace.location) == (SHOWN, "READY", "DESKTOP")
    assert (workspace.path, workspace.branch) == (str(tree), "ada/fix")
    again = json.loads(desk.ff("import", "--yes", "--json"))
    assert [line["action"] for line in again["lines"]] == ["known", "known", "known", "skip"]


@pytest.mark.claude
def test_a_conversation_goes_on_where_it_was(desk):
    """One that Claude itself wrote, in a folder that is not ours; then our database is gone, as on the day of the import."""
    repository = desk.repository("web")
    desk.ff("project", "add", str(repository))
    first = desk.json("new", "First")
    desk.ff("say", "First", "the word is aardvark", "--wait")
    (session,) = desk.parts.local().sessions(first["id"])
    desk.end()
    for file in desk.data.glob("state.db*"):
        file.unlink()
    database(desk, repository, first["path"], session.provider_session_id)

    done = desk.json("import", "--yes")
    assert [(line["action"], line["reason"]) for line in done["lines"][:3]] == [("add", "")] * 3
    desk.ff("say", SHOWN, "which word was it?", "--wait")
    asked = next(one for one in reversed(desk.model.requests) if one.prompt.endswith("which word was it?"))
    assert "the word is aardvark" in json.dumps(asked.body["messages"])


def test_where_factory_factory_keeps_its_database(tmp_path):
    assert places({}, tmp_path, "linux") == [
        tmp_path / "factory-factory" / "data.db",
        tmp_path / ".config" / "Factory Factory" / "data.db",
        tmp_path / ".config" / "factory-factory" / "data.db",
    ]
    assert places({"BASE_DIR": "/b", "DATABASE_PATH": "/d/x.db"}, tmp_path, "darwin") == [
        tmp_path / "/d/x.db",
        tmp_path / "/b/data.db",
        tmp_path / "factory-factory" / "data.db",
        tmp_path / "Library" / "Application Support" / "Factory Factory" / "data.db",
        tmp_path / "Library" / "Application Support" / "factory-factory" / "data.db",
    ]
    assert places({"XDG_CONFIG_HOME": "/c"}, tmp_path, "linux")[1] == tmp_path / "/c/Factory Factory/data.db"


def test_the_one_that_is_there_is_taken_and_several_are_asked_about(tmp_path):
    one, other, missing = (tmp_path / name for name in ("one.db", "other.db", "missing.db"))
    one.touch()
    assert found([missing, one, one]) == one
    other.touch()
    with pytest.raises(Ambiguous, match=r"one\.db.*other\.db"):
        found([one, other])
    with pytest.raises(NotFound, match=r"missing\.db"):
        found([missing, tmp_path])
