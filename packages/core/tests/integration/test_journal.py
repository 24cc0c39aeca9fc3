import asyncio
import gc
import sqlite3
from uuid import UUID

import pytest

from ff_core.contract.events import MessageDelta, Notice
from ff_core.ids import SessionId, WorkspaceId
from ff_core.store.engine import Store
from ff_core.store.errors import CursorAhead, EventTooLarge, FollowerTooSlow, StoreBroken, TooManyFollowers
from ff_core.store.journal import BODY_BYTES_MAX, PAGE_EVENTS_MAX, Journal
from ff_core.testing.world import FakeWorld

W = WorkspaceId(UUID(int=1))
OTHER = WorkspaceId(UUID(int=2))
SESSION = SessionId(UUID(int=3))
BACKLOG = 20


@pytest.fixture
def store(tmp_path):
    store = Store.open(tmp_path / "state.db")
    yield store
    store.close()


@pytest.fixture
def journal(store):
    return Journal(store, FakeWorld(), backlog_events_max=BACKLOG, followers_max=3)


@pytest.fixture
def say(store, journal):
    def say(count=1, workspace=W, message="hi"):
        for _ in range(count):
            with store.transaction() as tx:
                journal.append(tx, workspace, Notice(name="n", message=message), SESSION)

    return say


async def take(follower, count):
    async with asyncio.timeout(10):
        return [await anext(follower) for _ in range(count)]


def seqs(events):
    return [event.seq for event in events]


def test_seq_counts_per_workspace_and_events_come_back_as_they_were(store, journal, say):
    say(2)
    say(1, OTHER)
    with store.transaction() as tx:
        written = journal.append(tx, W, Notice(name="n", message="naïve ☃ \0"))
    assert written.seq == 3
    assert journal.read(W, 2, 10) == [written]
    assert (journal.last_seq(W), journal.last_seq(OTHER), journal.last_seq(WorkspaceId(UUID(int=9)))) == (3, 1, 0)
    assert journal.read(W, 0, 10)[0].session_id == SESSION


def test_what_is_rolled_back_leaves_no_gap_and_reaches_nobody(store, journal, say):
    say()
    follower = journal.follow(W, 1)
    with pytest.raises(KeyError), store.transaction() as tx:
        journal.append(tx, W, Notice(name="n", message="never"))
        raise KeyError
    say()
    assert [event.body.message for event in journal.read(W, 0, 10)] == ["hi", "hi"]
    assert seqs(journal.read(W, 0, 10)) == [1, 2]
    follower.close()


@pytest.mark.parametrize(
    "sql",
    [
        "UPDATE events SET body = '{{}}'",
        "DELETE FROM events",
        "INSERT INTO events VALUES ('{w}', 5, 't', NULL, '{{}}')",
        "INSERT OR REPLACE INTO events VALUES ('{w}', 1, 't', NULL, '{{}}')",
        "INSERT INTO events VALUES ('{w}', 2, 't', NULL, 'not json')",
    ],
)
def test_the_table_itself_refuses_what_is_not_appending(store, journal, say, sql):
    say()
    before = journal.read(W, 0, 10)
    with pytest.raises(StoreBroken) as caught, store.transaction() as tx:
        tx.execute(sql.format(w=W))
    assert isinstance(caught.value.__cause__, sqlite3.IntegrityError)
    assert journal.read(W, 0, 10) == before


def test_a_body_over_the_bound_is_refused_not_cut(store, journal):
    with pytest.raises(EventTooLarge), store.transaction() as tx:
        journal.append(tx, W, Notice(name="n", message="x" * BODY_BYTES_MAX))
    assert journal.last_seq(W) == 0


def test_a_page_is_bounded_in_bytes_but_never_empty(journal, say):
    say(4, message="x" * (BODY_BYTES_MAX - 100))
    assert seqs(journal.read(W, 0, 100)) == [1, 2, 3]
    assert seqs(journal.read(W, 3, 100)) == [4]
    assert journal.read(W, 4, 100) == []


async def test_history_then_live_without_gap_or_duplicate(journal, say):
    say(PAGE_EVENTS_MAX + 50)
    follower = journal.follow(W, 5)
    first = await take(follower, 10)
    say(30)  # while it still reads history: more than the backlog, which must not matter
    rest = await take(follower, PAGE_EVENTS_MAX + 50 + 30 - 15)
    waiting = asyncio.create_task(anext(follower))
    await asyncio.sleep(0)
    say(1, OTHER)
    say()
    assert seqs([*first, *rest, await waiting]) == list(range(6, PAGE_EVENTS_MAX + 50 + 30 + 2))


async def test_hints_reach_live_followers_in_order_and_are_not_stored(journal, say):
    follower = journal.follow(W, 0)
    waiting = asyncio.create_task(anext(follower))
    await asyncio.sleep(0)
    journal.hint(W, MessageDelta(text="a"), SESSION)
    say()
    journal.hint(W, MessageDelta(text="b"), SESSION)
    got = [await waiting, *await take(follower, 2)]
    assert [event.body.kind for event in got] == ["message.delta", "notice", "message.delta"]
    assert seqs(got) == [None, 1, None]
    assert seqs(journal.read(W, 0, 10)) == [1]


async def test_who_is_too_slow_is_cut_and_resumes_without_loss(journal, say):
    follower = journal.follow(W, 0)
    waiting = asyncio.create_task(anext(follower))
    await asyncio.sleep(0)
    say()
    assert (await waiting).seq == 1
    say(BACKLOG + 1)
    with pytest.raises(FollowerTooSlow):
        await take(follower, 1)
    assert seqs(await take(journal.follow(W, 1), BACKLOG + 1)) == list(range(2, BACKLOG + 3))


async def test_a_wait_that_times_out_loses_nothing(journal, say):
    follower = journal.follow(W, 0)
    for _ in range(3):
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.001):
                await anext(follower)
    say(2)
    assert seqs(await take(follower, 2)) == [1, 2]


async def test_followers_are_bounded_and_leave_by_closing_or_by_being_forgotten(journal):
    followers = [journal.follow(W, 0) for _ in range(3)]
    with pytest.raises(TooManyFollowers):
        journal.follow(W, 0)
    with followers.pop():
        pass
    journal.follow(W, 0).close()
    del followers
    gc.collect()
    assert [journal.follow(W, 0) for _ in range(3)]


async def test_a_cursor_of_another_journal_is_refused_at_once(journal, say):
    say(2)
    with pytest.raises(CursorAhead, match="3 points beyond the newest event, 2"):
        journal.follow(W, 3)


async def test_closing_ends_followers_and_what_waits_for_them_is_still_read(journal, say):
    follower = journal.follow(W, 0)
    waiting = asyncio.create_task(anext(follower))
    await asyncio.sleep(0)
    say(3)
    journal.close()
    assert (await waiting).seq == 1
    assert seqs([event async for event in follower]) == [2, 3]
