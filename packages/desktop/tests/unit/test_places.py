"""Which workspace is meant, and whom to ask: decided over two lists, without any server."""

from datetime import UTC, datetime
from uuid import UUID

import pytest

from ff_core.contract.places import Location
from ff_core.contract.problem import Problem, RemoteProblem
from ff_core.contract.workspace import WorkspaceStatus, WorkspaceView
from ff_core.errors import NotFound
from ff_desktop.errors import Ambiguous, NotLoggedIn, ServerSilent, ServerUnreachable
from ff_desktop.places import Places

AT = datetime(2026, 11, 23, tzinfo=UTC)
HERE, THERE = Location.DESKTOP, Location.CLOUD


def workspace(number, name, location, **more):
    return WorkspaceView(
        **{
            "id": UUID(int=number), "name": name, "status": WorkspaceStatus.READY, "location": location, "epoch": 0,
            "repo_url": None,
            "branch": None, "github_issue_url": None, "pr_url": None, "error": None, "operation_id": None, "vm": None,
            "last_active_at": AT, "created_at": AT, "updated_at": AT, **more,
        }
    )  # fmt: skip


class Backend:
    """Only what looking needs."""

    def __init__(self, *known):
        self.known = known

    def workspaces(self, *, name=None):
        return iter([one for one in self.known if name in {None, one.name}])

    def workspace(self, identity):
        for one in self.known:
            if one.id == identity:
                return one
        raise RemoteProblem(Problem(title="Not found", status=404, code="not_found", detail="There is no such thing."))


def places(local, cloud):
    """``cloud``: a backend, or the error that asking for it raises."""

    def ask(_patient):
        if isinstance(cloud, Exception):
            raise cloud
        return cloud

    return Places(lambda: local, ask)


AWAY = ServerUnreachable("No server answers.")


def test_one_that_lives_here_is_found_without_the_cloud():
    local = Backend(workspace(1, "a", HERE), workspace(2, "b", HERE))
    both = places(local, AssertionError("the cloud was asked"))
    for name in ("a", str(UUID(int=1)), " a "):
        found = both.find(name)
        assert (found.workspace.id, found.backend, found.here) == (UUID(int=1), local, True)


def test_one_that_lives_here_comes_before_one_of_that_name_elsewhere():
    local = Backend(workspace(1, "a", HERE), workspace(2, "a", THERE))
    assert places(local, Backend(workspace(3, "a", THERE))).find("a").workspace.id == UUID(int=1)


def test_of_one_that_was_sent_the_cloud_is_asked():
    local, cloud = Backend(workspace(1, "a", THERE, path="/old")), Backend(workspace(1, "a", THERE, branch="now"))
    for name in ("a", str(UUID(int=1))):
        found = places(local, cloud).find(name)
        assert (found.workspace.branch, found.here, found.kept.path) == ("now", False, "/old")


def test_of_one_that_was_sent_and_is_gone_there_the_old_copy_is_left():
    local = Backend(workspace(1, "a", THERE, path="/old"))
    found = places(local, Backend()).find("a")
    assert (found.backend, found.here) == (local, True)


@pytest.mark.parametrize("error", [AWAY, ServerSilent()])
def test_of_one_that_was_sent_it_is_said_what_can_be_done_without_the_cloud(error):
    local = Backend(workspace(1, "a", THERE, path="/old"))
    with pytest.raises(ServerUnreachable, match=r"lives in the cloud.*/old.*ff pull .* --force") as caught:
        places(local, error).find("a")
    assert caught.value.code == "server_unreachable"
    with pytest.raises(NotLoggedIn, match="ff login"):
        places(local, NotLoggedIn()).find("a")


def test_several_of_one_name_are_ambiguous_in_either_place():
    twice = Backend(workspace(1, "a", HERE), workspace(2, "a", HERE))
    with pytest.raises(Ambiguous, match=str(UUID(int=2))):
        places(twice, Backend()).find("a")
    with pytest.raises(Ambiguous, match=str(UUID(int=4))):
        places(Backend(), Backend(workspace(3, "a", THERE), workspace(4, "a", THERE))).find("a")


def test_one_that_is_nowhere():
    with pytest.raises(NotFound, match="'a'"):
        places(Backend(), Backend()).find("a")
    with pytest.raises(NotLoggedIn, match="no workspace 'a' on this machine"):
        places(Backend(), NotLoggedIn()).find("a")
    with pytest.raises(NotLoggedIn, match="You are not logged in"):
        places(None, NotLoggedIn()).find("a")
    with pytest.raises(ServerUnreachable, match="can't be asked"):
        places(Backend(), AWAY).find("a")


def test_the_list_has_each_once_and_of_those_in_the_cloud_what_the_cloud_says():
    local = Backend(workspace(1, "mine", HERE), workspace(2, "sent", THERE))
    cloud = Backend(
        workspace(2, "sent", THERE, branch="now"), workspace(1, "mine", HERE, desktop="this"), workspace(3, "far", THERE)
    )
    listed = places(local, cloud).all()
    assert [(one.name, one.branch, one.desktop) for one in listed.items] == [
        ("mine", None, None),
        ("sent", "now", None),
        ("far", None, None),
    ]
    assert listed.notes == ()


def test_without_the_cloud_the_list_has_what_is_known_here_and_says_so():
    sent = Backend(workspace(1, "mine", HERE), workspace(2, "sent", THERE))
    for error, word in ((AWAY, "No server answers"), (NotLoggedIn(), "Not logged in")):
        listed = places(sent, error).all()
        assert [one.name for one in listed.items] == ["mine", "sent"]
        assert word in listed.notes[0]
        with pytest.raises(type(error)):
            places(None, error).all()
    assert places(Backend(workspace(1, "mine", HERE)), NotLoggedIn()).all().notes == ()
