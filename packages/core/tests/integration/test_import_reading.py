"""Reading databases of every layout, exports, and what only pretends to be one."""

import json
import os
import sqlite3
import subprocess
import sys
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path

import pytest

from ff_core.contract.record import DispatchOutcome, PullRequestRecord, RatchetRecord
from ff_core.contract.session import PermissionPreset
from ff_core.importing import reading_database, reading_export
from ff_core.importing.errors import ImportUnreadable
from ff_core.importing.found import DESCRIPTION_CHARS_MAX
from ff_core.importing.reading import read
from ff_core.importing.values import moment
from ff_core.store.foreign import Unreadable, opened_copy
from ff_core.testing import factory_factory as ff

CHAT = "11111111-1111-4111-8111-111111111111"
AT = datetime(2026, 7, 1, 10, 20, 30, 456000, tzinfo=UTC)
KEY = "pr:7|ci:FAILURE:build:FAILURE:99|no-changes-requested:none|merge:clean"
PROJECT = {"id": "p1", "name": "web", "slug": "web", "repoPath": "/code/web", "worktreeBasePath": "/trees/web"}
WORKSPACE = {
    "id": "w1", "projectId": "p1", "name": "Fix/login", "description": "why", "status": "READY", "worktreePath": "/trees/w1",
    "branchName": "ada/fix", "githubIssueUrl": "https://github.com/o/r/issues/5", "createdAt": "2026-07-01T10:20:30.456+00:00",
}  # fmt: skip
SESSION = {
    "id": "s1", "workspaceId": "w1", "name": "Chat 1", "workflow": "followup", "model": "opus", "status": "RUNNING",
    "createdAt": 1782901230456, "updatedAt": "2026-07-02 00:00:00",
}  # fmt: skip
FLAT_SIDE = {
    "prUrl": "https://github.com/o/r/pull/7", "prNumber": 7, "prState": "OPEN", "prReviewState": "APPROVED",
    "prCiStatus": "FAILURE", "prReviewLastCheckedAt": "2026-07-01T10:20:30.456+00:00", "ratchetEnabled": 0,
    "ratchetLastCiRunId": KEY, "ratchetDispatchOutcome": "DIED", "ratchetDispatchRetryCount": 2,
}  # fmt: skip
PULL_REQUEST = PullRequestRecord(
    url="https://github.com/o/r/pull/7",
    number=7,
    state="OPEN",
    review_state="APPROVED",
    ci_status="FAILURE",
    review_last_checked_at=AT,
)
RATCHET = RatchetRecord(enabled=False, dispatch_snapshot_key=KEY, dispatch_outcome=DispatchOutcome.DIED, dispatch_retry_count=2)


def flat(path, *, workspace=WORKSPACE, session=SESSION, **side):
    rows = [
        ("Project", PROJECT | {"createdAt": "2026-06-01 00:00:00"}),
        ("Workspace", workspace | side),
        ("AgentSession", session | {"provider": "CLAUDE", "providerSessionId": CHAT}),
        ("UserSettings", {"id": "default", "defaultWorkspacePermissions": "RELAXED"}),
    ]
    return ff.make(path, ff.FLAT, rows)


def split(path, **options):
    rows = [
        ("Project", PROJECT | {"createdAt": "2026-06-01 00:00:00"}),
        ("Workspace", WORKSPACE),
        ("WorkspacePR", {
            "workspaceId": "w1", "url": "https://github.com/o/r/pull/7", "number": 7, "state": "OPEN", "reviewState": "APPROVED",
            "ciStatus": "FAILURE", "reviewLastCheckedAt": "2026-07-01T10:20:30.456+00:00",
        }),
        ("WorkspaceRatchet", {
            "workspaceId": "w1", "enabled": 0, "dispatchSnapshotKey": KEY, "dispatchOutcome": "DIED", "dispatchRetryCount": 2,
        }),
        ("AgentSession", SESSION | {"provider": "CLAUDE", "providerSessionId": CHAT}),
        ("UserSettings", {"id": "default", "defaultWorkspacePermissions": "RELAXED"}),
    ]  # fmt: skip
    return ff.make(path, ff.SPLIT, rows, **options)


def exported(path):
    workspace = WORKSPACE | FLAT_SIDE | {"ratchetEnabled": False, "ratchetState": "IDLE", "mode": "STANDARD"}
    return ff.export(
        path,
        projects=[PROJECT | {"isArchived": False, "createdAt": "2026-06-01T00:00:00.000Z"}],
        workspaces=[workspace | {"createdAt": "2026-07-01T10:20:30.456Z"}],
        agentSessions=[
            SESSION
            | {"provider": "CLAUDE", "providerSessionId": CHAT}
            | {"createdAt": "2026-07-01T10:20:30.456Z", "updatedAt": "2026-07-02T00:00:00.000Z"}
        ],
        userSettings={"defaultWorkspacePermissions": "RELAXED"},
    )


@pytest.mark.parametrize("make", [lambda path: flat(path, **FLAT_SIDE), split, exported], ids=["flat", "split", "export"])
def test_every_layout_gives_the_same(make, tmp_path):
    found = read(make(tmp_path / "given"))
    (project,), (workspace,), (session,) = found.projects, found.workspaces, found.sessions
    assert (project.id, project.name, project.path, project.default_branch) == ("p1", "web", Path("/code/web"), "main")
    assert (project.archived, project.created_at) == (False, datetime(2026, 6, 1, tzinfo=UTC))
    assert (workspace.id, workspace.name, workspace.description, workspace.status) == ("w1", "Fix-login", "why", "READY")
    assert (workspace.worktree, workspace.branch, workspace.created_at) == (Path("/trees/w1"), "ada/fix", AT)
    assert workspace.github_issue_url == "https://github.com/o/r/issues/5"
    assert (workspace.pull_request, workspace.ratchet, workspace.left) == (PULL_REQUEST, RATCHET, ())
    assert (session.id, session.workspace_id, session.name, session.workflow, session.model) == (
        *("s1", "w1", "Chat 1", "followup", "opus"),
    )
    assert (session.status, session.provider, session.provider_session_id) == ("RUNNING", "CLAUDE", CHAT)
    assert (session.created_at, session.updated_at) == (AT, datetime(2026, 7, 2, tzinfo=UTC))
    assert found.permissions is PermissionPreset.RELAXED


def test_layouts_are_named(tmp_path):
    named = "database with 2 migrations, the newest 20260807222320_voice_vad_aggressiveness_settings"
    assert read(split(tmp_path / "data.db")).layout == named
    assert read(tmp_path).layout == named  # a folder: its database
    assert read(exported(tmp_path / "e.json")).layout == "export v4 of Factory Factory 0.4.6 from 2026-08-10T09:00:00.000Z"


def test_the_first_layout_had_one_provider_and_nothing_else(tmp_path):
    rows = [
        ("Project", PROJECT),
        ("Workspace", WORKSPACE | {"prUrl": "https://github.com/o/r/pull/1"}),
        ("ClaudeSession", SESSION | {"claudeSessionId": CHAT}),
    ]
    found = read(ff.make(tmp_path / "data.db", ff.FIRST, rows))
    (session,), (workspace,) = found.sessions, found.workspaces
    assert (session.provider, session.provider_session_id) == ("CLAUDE", CHAT)
    assert workspace.pull_request == PullRequestRecord(url="https://github.com/o/r/pull/1")
    assert (workspace.ratchet, found.permissions, found.layout) == (RatchetRecord(), PermissionPreset.STRICT, "database")


def test_of_several_pull_requests_the_open_and_newest_one_is_kept_and_the_loss_said(tmp_path):
    def pull(number, state, **more):
        row = {"id": f"r{number}", "workspaceId": "w1", "url": f"https://github.com/o/r/pull/{number}"}
        return ("WorkspacePR", row | {"number": number, "state": state} | more)

    rows = [
        ("Project", PROJECT), ("Workspace", WORKSPACE), ("WorkspacePRMonitoring", {"workspaceId": "w1", "enabled": 0}),
        pull(1, "OPEN"), pull(2, "DRAFT"), pull(3, "MERGED"), pull(4, "OPEN", detachedAt="2026-10-20 00:00:00"),
    ]  # fmt: skip
    (workspace,) = read(ff.make(tmp_path / "data.db", ff.NEWEST, rows)).workspaces
    assert (workspace.pull_request.number, workspace.ratchet.enabled) == (2, False)
    assert workspace.left == ("2 further pull requests",)


@pytest.mark.parametrize(
    ("side", "conflict"),
    [
        ({"ratchetState": "MERGE_CONFLICT"}, True),
        ({"ratchetState": "CI_FAILED", "ratchetLastCiRunId": "pr:7|x|merge:conflict"}, True),
        ({"ratchetState": "CI_FAILED", "ratchetLastCiRunId": "pr:7|x|merge:clean"}, False),
        ({"ratchetState": "CI_FAILED", "ratchetLastCiRunId": "pr:7|x|merge:conflict", "prState": "MERGED"}, False),
        ({"ratchetState": "READY", "ratchetLastCiRunId": "pr:7|x|merge:conflict"}, False),
    ],
)
def test_older_layouts_hid_a_merge_conflict_in_the_ratchets_state(tmp_path, side, conflict):
    (workspace,) = read(flat(tmp_path / "data.db", **(FLAT_SIDE | side))).workspaces
    assert workspace.pull_request.has_merge_conflict is conflict


def test_a_fixer_that_runs_there_is_over_here(tmp_path):
    (workspace,) = read(flat(tmp_path / "data.db", **(FLAT_SIDE | {"ratchetDispatchOutcome": "RUNNING"}))).workspaces
    assert workspace.ratchet.dispatch_outcome is DispatchOutcome.COMPLETED


def test_what_has_no_place_here_is_said(tmp_path):
    lost = {"mode": "AUTO_ITERATION", "linearIssueIdentifier": "ENG-1", "parent_workspace_id": "w0"}
    (workspace,) = read(flat(tmp_path / "data.db", **lost)).workspaces
    assert workspace.left == ("its auto-iteration", "its Linear issue ENG-1", "that another workspace made it")


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("2026-07-01T10:20:30.456+00:00", AT),
        ("2026-07-01T12:20:30.456+02:00", AT),
        ("2026-07-01T10:20:30.456Z", AT),
        ("2026-07-01 10:20:30", AT.replace(microsecond=0)),
        (1782901230456, AT),
        ("1782901230456", AT),
    ],
)
def test_times_in_every_form(written, meant):
    assert moment(written) == meant
    assert moment(written).tzinfo is UTC


@pytest.mark.parametrize("written", ["yesterday", "", 10**30, True, 1.5, b"2026-07-01 10:20:30", "2026-13-01 00:00:00"])
def test_what_is_no_time_is_refused(written):
    with pytest.raises((ValueError, OverflowError)):
        moment(written)


def test_the_program_may_go_on_writing_and_one_moment_is_read(tmp_path):
    """A writer that commits pairs all the while: the copy has both of a pair, or none, and the writer is never kept waiting."""
    path = split(tmp_path / "data.db", wal=True)
    writer = """
import sqlite3, sys
database = sqlite3.connect(sys.argv[1], isolation_level=None, timeout=0)
database.execute("PRAGMA wal_autocheckpoint = 50")
print("begun", flush=True)
for number in range(1_000_000):
    database.execute("BEGIN IMMEDIATE")
    for half in "ab":
        database.execute('INSERT INTO "Workspace" ("id", "projectId", "name", "status") VALUES (?, ?, ?, ?)',
                         (f"{number}{half}", "p1", "x" * 2000, "READY"))
    database.execute("COMMIT")
"""
    with subprocess.Popen([sys.executable, "-c", writer, str(path)], stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        try:
            assert process.stdout.readline() == b"begun\n"
            counts = [len(read(path).workspaces)]
            while counts[-1] < counts[0] + 10 and len(counts) < 1_000:
                assert process.poll() is None, process.stderr.read()
                counts.append(len(read(path).workspaces))
        finally:
            process.kill()
    assert {count % 2 for count in counts} == {1}  # the one from before, and pairs
    assert counts == sorted(counts)
    assert counts[-1] >= counts[0] + 10


def test_what_is_only_in_the_log_of_a_killed_program_is_read_and_nothing_is_changed(tmp_path):
    path = split(tmp_path / "data.db", wal=True)
    with closing(sqlite3.connect(path, isolation_level=None)) as database:
        ff.insert(database, "Workspace", id="w2", projectId="p1", name="in the log", status="READY")
        killed = tmp_path / "killed"
        killed.mkdir()
        for file in (path, path.with_name("data.db-wal")):
            (killed / file.name).write_bytes(file.read_bytes())
    before = {file.name: file.read_bytes() for file in killed.iterdir()}
    assert [one.name for one in read(killed / "data.db").workspaces] == ["Fix-login", "in the log"]
    assert {name: (killed / name).read_bytes() for name in before} == before


def test_a_locked_database_is_given_up_after_a_while(tmp_path):
    path = split(tmp_path / "data.db")
    with closing(sqlite3.connect(path, isolation_level=None)) as database:
        database.execute("BEGIN EXCLUSIVE")
        with pytest.raises(ImportUnreadable, match="locked"):
            reading_database.read(path, timeout_s=0.3)
    assert len(reading_database.read(path, timeout_s=0.3).workspaces) == 1


def test_copies_are_private_and_removed(tmp_path):
    path = split(tmp_path / "data.db")
    copies = tmp_path / "copies"
    copies.mkdir()
    with opened_copy(path, folder=copies) as database:
        (private,) = copies.iterdir()
        assert private.stat().st_mode & 0o777 == 0o700
        assert database.columns("Project") >= {"id", "repoPath"}
    assert list(copies.iterdir()) == []
    with pytest.raises(ImportUnreadable):
        reading_database.read(tmp_path / "missing.db", folder=copies)
    assert list(copies.iterdir()) == []
    assert not (tmp_path / "missing.db").exists()


def test_a_database_that_is_too_large_is_not_copied(tmp_path):
    with pytest.raises(ImportUnreadable, match="larger than the 1000 bytes"):
        reading_database.read(split(tmp_path / "data.db"), bytes_max=1000)


def test_more_rows_than_are_read_are_refused_and_not_forgotten(tmp_path):
    with opened_copy(flat(tmp_path / "data.db")) as database:
        assert len(list(database.rows("Workspace", ["id"], rows_max=1))) == 1
        with pytest.raises(Unreadable, match="more than 0 rows"):
            list(database.rows("Workspace", ["id"], rows_max=0))


def test_views_and_endless_queries_are_no_tables(tmp_path):
    endless = "WITH RECURSIVE n(id) AS (SELECT 1 UNION ALL SELECT id + 1 FROM n)"
    path = ff.make(
        tmp_path / "data.db",
        ff.PROJECT
        + f'CREATE VIEW "Workspace" AS {endless} SELECT id, id AS projectId, id AS name, id AS status, id AS createdAt FROM n;',
    )
    with pytest.raises(ImportUnreadable, match="no table Workspace"):
        read(path)


def test_huge_values_are_cut_or_refused_and_never_swallowed_whole(tmp_path):
    huge = "x" * 3_000_000
    path = flat(tmp_path / "data.db", workspace=WORKSPACE | {"name": huge, "description": huge, "initOutput": huge})
    (workspace,) = read(path).workspaces
    assert (workspace.name, workspace.description) == ("x" * 100, "x" * DESCRIPTION_CHARS_MAX)
    with closing(sqlite3.connect(path, isolation_level=None)) as database:
        database.execute('UPDATE "Workspace" SET "id" = ?', (huge,))
    with pytest.raises(ImportUnreadable, match="more than 200 characters"):
        read(path)
    with closing(sqlite3.connect(path, isolation_level=None)) as database:
        database.execute('UPDATE "Workspace" SET "id" = \'w1\', "description" = zeroblob(70000000)')
    with pytest.raises(ImportUnreadable, match="more than 67108864 bytes"):
        read(path)


def test_hostile_words_become_harmless_ones(tmp_path):
    path = flat(
        tmp_path / "data.db",
        workspace=WORKSPACE | {"name": "../a\x1b[31m\nb", "githubIssueUrl": "javascript:x", "branchName": ""},
        session=SESSION | {"name": "..", "workflow": "CI Fix!", "model": "--danger x"},
        prUrl="ftp://x",
    )
    with closing(sqlite3.connect(path, isolation_level=None)) as database:
        database.execute("""UPDATE "AgentSession" SET "providerSessionId" = '../../etc/passwd'""")
        database.execute("""UPDATE "Workspace" SET "description" = CAST(x'ff00fe41' AS TEXT)""")
    found = read(path)
    (workspace,), (session,) = found.workspaces, found.sessions
    assert (workspace.name, workspace.github_issue_url, workspace.branch) == ("..-a [31m b", None, None)
    assert (workspace.pull_request, workspace.description) == (None, "\ufffd\ufffd\ufffdA")
    assert (session.name, session.workflow, session.model, session.provider_session_id) == (None, "ci-fix", None, None)


@pytest.mark.parametrize(
    ("column", "value", "sentence"),
    [
        ("status", b"\x00", "has no status that makes sense"),
        ("createdAt", "soon", "The workspace 'Fix-login' has no createdAt that makes sense"),
        ("ratchetEnabled", 7, "no ratchetEnabled"),
        ("prNumber", "seven", "no prNumber"),
    ],
)
def test_values_that_make_no_sense_are_named(tmp_path, column, value, sentence):
    workspace = WORKSPACE | {"prUrl": "https://github.com/o/r/pull/7", column: value}
    with pytest.raises(ImportUnreadable, match=sentence):
        read(flat(tmp_path / "data.db", workspace=workspace))


def test_damage_is_noticed_and_never_a_crash_and_what_is_cut_off_is_never_read_in_part(tmp_path):
    path = split(tmp_path / "data.db")
    whole, expected = path.read_bytes(), read(path)
    for offset in range(100, len(whole), 1499):
        path.write_bytes(whole[:offset] + b"\xff" * 200 + whole[offset + 200 :])
        try:
            read(path)
        except ImportUnreadable as error:
            assert "data.db" in error.detail or "makes sense" in error.detail
        path.write_bytes(whole[:offset])
        try:
            assert read(path) == expected  # only an index was cut off
        except ImportUnreadable as error:
            assert "data.db" in error.detail


GARBAGE = {
    "nothing": (b"", "empty"),
    "text": (b"hello", "neither"),
    "a picture": (b"\x89PNG\r\n\x1a\n" * 100, "neither"),
    "a list": (b"[1, 2]", "neither"),
    "only the beginning": (b"SQLite format 3\0", "no SQLite database|damaged"),
    "cut JSON": (b'{"meta": {"schemaVersion": 4', "cut off"),
    "not UTF-8": (b'{"meta": "\xff\xfe"}', "not JSON"),
    "not a number": (b'{"meta": {"schemaVersion": NaN}}', "not JSON"),
    "a long number": (b'{"meta": {"schemaVersion": ' + b"9" * 10_000 + b"}}", "not JSON"),
    "deep": (b'{"a":' * 200_000, "not JSON"),
    "another program's": (b'{"version": 1}', "no meta.schemaVersion"),
    "no data": (b'{"meta": {"schemaVersion": 4}}', "no object data"),
    "no lists": (b'{"meta": {"schemaVersion": 4}, "data": {}}', "no list of objects data.projects"),
}


@pytest.mark.parametrize("name", GARBAGE)
def test_garbage_is_called_so(tmp_path, name):
    content, sentence = GARBAGE[name]
    path = tmp_path / "given"
    path.write_bytes(content)
    with pytest.raises(ImportUnreadable, match=sentence):
        read(path)


def test_another_programs_database_is_called_so(tmp_path):
    path = ff.make(tmp_path / "other.db", "CREATE TABLE t (x);")
    with pytest.raises(ImportUnreadable, match="not Factory Factory's: it has no table Project with createdAt, id"):
        read(path)


@pytest.mark.parametrize("version", [3, 5, 0, -1, 4_000])
def test_only_version_four_of_the_export_is_read(tmp_path, version):
    with pytest.raises(ImportUnreadable, match=f"version {version}, and only version 4"):
        read(ff.export(tmp_path / "e.json", version=version))


@pytest.mark.parametrize("version", [True, "4", None, [4]])
def test_a_version_that_is_no_number_is_none(tmp_path, version):
    with pytest.raises(ImportUnreadable, match=r"no meta\.schemaVersion"):
        read(ff.export(tmp_path / "e.json", version=version))


def test_an_export_has_a_bound(tmp_path):
    with pytest.raises(ImportUnreadable, match="larger than the 100 bytes"):
        reading_export.read(exported(tmp_path / "e.json"), bytes_max=100)


def test_lone_surrogates_and_nul_of_an_export_do_not_reach_our_database(tmp_path):
    path = exported(tmp_path / "e.json")
    document = json.loads(path.read_text())
    document["data"]["workspaces"][0] |= {"description": "a\ud800b\0c", "name": "\ud800", "extra": {"ignored": True}}
    path.write_text(json.dumps(document))
    (workspace,) = read(path).workspaces
    assert workspace.description == "a\ufffdb\ufffdc"
    workspace.name.encode()


def test_paths_that_are_no_files(tmp_path):
    pipe = tmp_path / "pipe"

    os.mkfifo(pipe)
    for path, sentence in (
        (Path("relative.db"), "absolute"),
        (tmp_path / "none.db", "no file"),
        (tmp_path, "no file"),
        (pipe, "is not a file"),
        (tmp_path / ("n" * 300), "can't be read"),
    ):
        with pytest.raises(ImportUnreadable, match=sentence):
            read(path)
