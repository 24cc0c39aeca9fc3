"""The pure parts of moving workspaces: addresses, steps, words."""

from datetime import UTC, datetime
from uuid import UUID

import pytest

from ff_core.contract.base import ErrorView
from ff_core.contract.handoff import Contents, HandoffStatus, LeftBehind
from ff_core.contract.local import HandoffPlan, LocalHandoff, LocalStatus
from ff_core.contract.places import Direction
from ff_desktop.cli.move_words import plan_lines, size, where
from ff_desktop.handoffs.machine import (
    LEGS,
    Back,
    Finished,
    Mine,
    Stage,
    Step,
    TakeOver,
    Verdict,
    Way,
    forced_epoch,
    next_act,
    server_may_know,
    tell,
    verdict,
)
from ff_desktop.handoffs.places import PLACES
from ff_desktop.handoffs.remotes import cloud_url, same_repository


@pytest.mark.parametrize(
    ("url", "there"),
    [
        ("https://github.com/Owner/Repo.git", "https://github.com/Owner/Repo.git"),
        ("https://ada:secret@github.com/owner/repo", "https://github.com/owner/repo"),
        ("https://git.example.com:443/a/b", "https://git.example.com/a/b"),
        ("https://git.example.com:8443/a/b/", "https://git.example.com:8443/a/b"),
        ("http://127.0.0.1:3000/a.git", "http://127.0.0.1:3000/a.git"),
        ("git@github.com:owner/repo.git", "https://github.com/owner/repo.git"),
        ("ssh://git@GitHub.com:2222/owner/repo.git", "https://github.com/owner/repo.git"),
        ("git+ssh://git@host/a", "https://host/a"),
        ("[::1]:a/b", "https://[::1]/a/b"),
        ("/srv/git/repo.git", None),
        ("../repo", None),
        ("C:/repos/a", None),
        ("file:///srv/repo.git", None),
        ("https://host:port/a", None),
        ("https:///a", None),
        ("https://host/", None),
        ("ext::sh -c true", None),
        ("", None),
        (None, None),
    ],
)
def test_the_cloud_clones_what_the_user_does(url, there):
    assert cloud_url(url) == there


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("git@github.com:Owner/Repo.git", "https://github.com/owner/repo", True),
        ("ssh://git@github.com:22/owner/repo", "https://github.com/owner/repo.git", True),
        ("https://a.example.com/x", "https://b.example.com/x", False),
        ("https://a.example.com:8443/x", "https://a.example.com/x", False),
        ("https://a.example.com/x", "https://a.example.com/y", False),
        (None, None, False),
        ("/srv/a", "/srv/a", False),
    ],
)
def test_the_same_repository_however_it_is_spelled(one, other, same):
    assert same_repository(one, other) is same


@pytest.mark.parametrize("way", Way)
def test_each_way_leads_to_its_end(way):
    step, stages = Step.BEGUN, []
    while not isinstance(act := next_act(way, step, turned=False), Finished):
        stages.append(act.stage)
        step = act.step
    assert step is Step.DONE
    assert stages == [leg.stage for leg in LEGS[way]]


def test_the_way_back():
    assert next_act(Way.SEND, Step.FROZEN, turned=True) is Back.UNDO
    assert not server_may_know(Way.SEND, Step.CHECKED)
    assert server_may_know(Way.SEND, Step.FROZEN), "it may have been told, so it is told to give it up"
    assert next_act(Way.SEND, Step.UPLOADED, turned=True) is Back.UNDO
    assert next_act(Way.SEND, Step.VERIFIED, turned=True) is Back.ASK, "the commit may have been asked for"
    assert next_act(Way.SEND, Step.COMMITTED, turned=True).stage is Stage.DEPART
    assert next_act(Way.PULL, Step.DOWNLOADED, turned=True) is Back.UNDO
    assert next_act(Way.PULL, Step.UNPACKED, turned=True) is Back.ASK
    assert next_act(Way.PULL, Step.COMMITTED, turned=True).stage is Stage.LAND
    assert next_act(Way.FORCE, Step.BEGUN, turned=True).stage is Stage.TAKE


def test_what_the_server_says():
    open_ones = {HandoffStatus.UPLOADING, HandoffStatus.RESTORING, HandoffStatus.EXPORTING, HandoffStatus.READY}
    for status in HandoffStatus:
        expected = Verdict.OPEN if status in open_ones else Verdict.OVER
        assert verdict(status) is (Verdict.COMMITTED if status is HandoffStatus.COMMITTED else expected)
    assert verdict(None) is Verdict.OVER


def test_by_force():
    assert (forced_epoch(3, unsure=False), forced_epoch(3, unsure=True)) == (4, 5)
    assert tell(3, None, None, 3) == TakeOver(4)
    assert tell(3, Way.SEND, Verdict.COMMITTED, 4) == TakeOver(5)
    assert tell(3, Way.SEND, Verdict.OVER, 3) == Mine(3)
    assert tell(3, Way.SEND, None, 3) == Mine(3)
    assert tell(3, Way.PULL, Verdict.COMMITTED, 8) == Mine(8)
    assert tell(3, Way.PULL, Verdict.OVER, 7) == TakeOver(4)


def test_places_have_names_of_their_own():
    assert len(PLACES) == len(set(PLACES))
    assert {"SEND FREEZE done", "SEND COMMIT after commit", "PULL LAND written", "FORCE TELL before takeover"} <= set(PLACES)


def test_sizes():
    assert [size(count) for count in (0, 999, 1_000, 123_456, 5_300_000_000)] == ["0 B", "999 B", "1.0 kB", "123 kB", "5.3 GB"]


def test_a_plan_says_what_stays_and_why():
    contents = Contents(
        commits=1,
        files=2,
        file_bytes=1500,
        deleted=0,
        stashes=1,
        submodules=0,
        sessions=1,
        queued=0,
        events=9,
        included=(".env",),
        left_behind=(
            LeftBehind(path="node_modules/", reason="ignored"),
            LeftBehind(path="id\x1b[31m", reason="credential", size=9),
        ),
        left_behind_count=30,
    )
    refusal = ErrorView(code="fixer_active", message="Wait or stop the fixer.")
    plan = HandoffPlan(workspace_id=UUID(int=1), name="w", contents=contents, credentials=("id\x1b[31m",), refusals=(refusal,))
    text = "\n".join(line.text for line in plan_lines(plan))
    assert "w: 1 commit, 2 changed files, 1 stash entry, 1 conversation (1.5 kB of files)" in text
    assert "included by rule: .env" in text
    assert "stays: node_modules/ (ignored by git, and no rule includes it)" in text
    assert "… and 28 more" in text
    assert "refused: Wait or stop the fixer. (fixer_active)" in text
    assert "\x1b" not in text


def test_how_far_it_is():
    now = datetime(2026, 11, 26, tzinfo=UTC)
    base = LocalHandoff(
        id=UUID(int=1),
        workspace_id=UUID(int=2),
        name="w",
        direction=Direction.SEND,
        status=LocalStatus.RUNNING,
        step="CREATED",
        detail="uploading",
        done_bytes=500,
        total_bytes=2000,
        created_at=now,
        updated_at=now,
    )
    assert where(base) == "uploading 500 B of 2.0 kB"
    error = ErrorView(code="server_unreachable", message="No server answers.")
    stopped = base.model_copy(update={"status": LocalStatus.STOPPED, "total_bytes": 0, "error": error, "detail": "tried again"})
    assert where(stopped) == "No server answers. (tried again)"
