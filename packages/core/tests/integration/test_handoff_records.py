"""Rows and journal of a workspace, written down on one host and put into another's database."""

from datetime import UTC, datetime
from uuid import UUID, uuid5

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ff_core.contract.events import Notice
from ff_core.contract.places import Location
from ff_core.contract.record import DispatchOutcome, PullRequestRecord, RatchetRecord
from ff_core.contract.session import Activity, MessageState, MessageView, PermissionPreset, SessionStatus
from ff_core.handoff.errors import JournalDiverged, RecordsBroken
from ff_core.handoff.records import Records, conversations, digest, read
from ff_core.ids import MessageId, SessionId, WorkspaceId
from ff_core.ratchet import repository as ratchets
from ff_core.store.engine import Store
from ff_core.store.journal import Journal
from ff_core.store.sessions import SessionRow, SessionTable
from ff_core.testing.world import FakeWorld
from ff_core.workspaces import repository as workspaces

WORKSPACE = WorkspaceId(UUID(int=7))
NOW = datetime(2026, 11, 26, 12, 0, tzinfo=UTC)
KEY = "pr:7|ci:FAILURE:test:FAILURE:12|no-changes-requested:none|merge:clean"


def name_of(kind: type, *parts: object):
    return kind(uuid5(UUID(int=1), repr(parts)))


class Host:
    def __init__(self, folder, location: Location) -> None:
        folder.mkdir()
        self.folder, self.location = folder, location
        self.world = FakeWorld()
        self.store = Store.open(folder / "state.db")
        self.journal = Journal(self.store, self.world)
        self.records = Records(self.store, self.journal, self.world)

    def knows(self, name: str = "mine") -> None:
        with self.store.transaction() as tx:
            workspaces.insert(tx, WORKSPACE, name, NOW, location=self.location, epoch=0, branch="me/mine", description="d")

    def happens(self, *words: str) -> None:
        for word in words:
            with self.store.transaction() as tx:
                self.journal.append(tx, WORKSPACE, Notice(name="n", message=word))

    def session(self, number: int, prompts: list[str]) -> SessionId:
        session = name_of(SessionId, number)
        with self.store.transaction() as tx:
            table = SessionTable(tx)
            table.replace(
                SessionRow(
                    id=session,
                    workspace_id=WORKSPACE,
                    name=f"Chat {number}",
                    workflow="ratchet" if number % 2 else "followup",
                    model="sonnet",
                    permissions=PermissionPreset.RELAXED,
                    status=SessionStatus.IDLE,
                    activity=Activity.IDLE,
                    provider_session_id=str(UUID(int=number)),
                    has_history=number % 3 != 0,
                    grants=({"type": "setMode", "mode": "acceptEdits"},),
                    error=None,
                    created_at=NOW,
                    updated_at=NOW,
                )
            )
            for position, text in enumerate(prompts):
                prompt = name_of(MessageId, number, position)
                table.insert_message(
                    MessageView(id=prompt, session_id=session, text=text, state=MessageState.QUEUED, created_at=NOW)
                )
        return session

    def queued(self, session: SessionId) -> list[str]:
        with self.store.transaction() as tx:
            return [message.text for message in SessionTable(tx).messages(session, MessageState.QUEUED)]

    def words(self) -> list[str]:
        return [event.body.message for event in self.journal.read(WORKSPACE, 0, 1000)]

    def spool(self, name: str = "spool"):
        spool = self.folder / name
        spool.mkdir()
        self.records.write(WORKSPACE, spool)
        return spool


@pytest.fixture
def desktop(tmp_path):
    host = Host(tmp_path / "desktop", Location.DESKTOP)
    host.knows()
    yield host
    host.store.close()


@pytest.fixture
def vm(tmp_path):
    host = Host(tmp_path / "vm", Location.CLOUD)
    yield host
    host.store.close()


def test_everything_arrives_and_stays_inert(desktop, vm):
    session = desktop.session(1, ["first", "second"])
    desktop.happens("a", "b", "c")
    ratchet = RatchetRecord(dispatch_snapshot_key=KEY, dispatch_outcome=DispatchOutcome.DIED, dispatch_retry_count=2)
    pull_request = PullRequestRecord(url="https://github.com/o/r/pull/7", number=7, state="OPEN", review_last_checked_at=NOW)
    with desktop.store.transaction() as tx:
        ratchets.write_ratchet(tx, WORKSPACE, ratchet)
        ratchets.write_pull_request(tx, WORKSPACE, pull_request)
    with vm.store.transaction() as tx:
        workspaces.insert(tx, WORKSPACE, "other name", NOW, location=Location.DESKTOP, epoch=0)

    spool = desktop.spool()
    record = vm.records.adopt(spool, workspace_id=WORKSPACE)

    assert (record.ratchet, record.pull_request, record.last_seq) == (ratchet, pull_request, 3)
    assert vm.queued(session) == ["first", "second"]
    assert vm.words() == ["a", "b", "c"]
    row = workspaces.get(vm.store, WORKSPACE)
    assert (row.name, row.branch, row.location, row.epoch) == ("mine", "me/mine", Location.DESKTOP, 0)
    assert [one.session_id for one in conversations(record)] == [session]
    assert digest(vm.spool()) == digest(spool)


def test_adopting_twice_is_once_and_what_was_answered_is_not_asked_again(desktop, vm):
    session = desktop.session(2, ["first", "second"])
    desktop.happens("a")
    with vm.store.transaction() as tx:
        workspaces.insert(tx, WORKSPACE, "x", NOW, location=Location.DESKTOP, epoch=0)
    spool = desktop.spool()
    vm.records.adopt(spool, workspace_id=WORKSPACE)
    vm.records.adopt(spool, workspace_id=WORKSPACE)
    with vm.store.transaction() as tx:  # the first is answered there, a third is added
        SessionTable(tx).set_message_state(name_of(MessageId, 2, 0), MessageState.DONE)
        third = MessageView(
            id=name_of(MessageId, "third"), session_id=session, text="third", state=MessageState.QUEUED, created_at=NOW
        )
        SessionTable(tx).insert_message(third)
    vm.happens("b")
    back = vm.spool("back")
    desktop.records.adopt(back, workspace_id=WORKSPACE)
    assert desktop.queued(session) == ["second", "third"]
    assert desktop.words() == ["a", "b"]


def test_a_workspace_that_went_on_in_two_places_is_refused_and_nothing_changes(desktop, vm):
    desktop.happens("a", "b")
    spool = desktop.spool()
    with vm.store.transaction() as tx:
        workspaces.insert(tx, WORKSPACE, "x", NOW)
    vm.happens("a", "other")
    with pytest.raises(JournalDiverged):
        vm.records.adopt(spool, workspace_id=WORKSPACE)
    vm.happens("more")
    with pytest.raises(JournalDiverged):
        vm.records.adopt(spool, workspace_id=WORKSPACE)
    assert vm.words() == ["a", "other", "more"]
    assert workspaces.get(vm.store, WORKSPACE).name == "x"


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (b'"seq":2', b'"seq":3'),
        (b'"seq":2', b'"seq":1'),
        (str(WORKSPACE).encode(), str(UUID(int=8)).encode()),
        (b"\n", b""),
        (b'"kind"', b'"kin'),
    ],
)
def test_a_journal_that_does_not_fit_changes_nothing(desktop, vm, old, new):
    desktop.session(1, ["q"])
    desktop.happens("a", "b")
    spool = desktop.spool()
    with vm.store.transaction() as tx:
        workspaces.insert(tx, WORKSPACE, "x", NOW)
    journal = spool / "journal.jsonl"
    journal.write_bytes(journal.read_bytes().replace(old, new))
    with pytest.raises(RecordsBroken):
        vm.records.adopt(spool, workspace_id=WORKSPACE)
    assert vm.words() == []
    with vm.store.transaction() as tx:
        assert SessionTable(tx).of_workspace(WORKSPACE) == []


def test_a_link_in_the_spool_is_not_followed(desktop, vm):
    desktop.happens("a")
    spool = desktop.spool()
    (spool / "records.json").rename(spool / "elsewhere")
    (spool / "records.json").symlink_to(spool / "elsewhere")
    with pytest.raises(RecordsBroken):
        read(spool)


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    queues=st.lists(st.lists(st.text(max_size=20), max_size=4), max_size=4),
    words=st.lists(st.text(max_size=10), max_size=8),
)
def test_any_workspace_goes_there_and_back(tmp_path_factory, queues, words):
    folder = tmp_path_factory.mktemp("any")
    desktop, vm = Host(folder / "d", Location.DESKTOP), Host(folder / "v", Location.CLOUD)
    try:
        desktop.knows()
        sessions = [desktop.session(number, prompts) for number, prompts in enumerate(queues)]
        desktop.happens(*words)
        with vm.store.transaction() as tx:
            workspaces.insert(tx, WORKSPACE, "x", NOW)
        spool = desktop.spool()
        vm.records.adopt(spool, workspace_id=WORKSPACE)
        assert [vm.queued(session) for session in sessions] == queues
        vm.happens("there")
        desktop.records.adopt(vm.spool(), workspace_id=WORKSPACE)
        assert desktop.words() == [*words, "there"]
        assert digest(desktop.spool("again")) == digest(vm.spool("again"))
    finally:
        desktop.store.close()
        vm.store.close()
