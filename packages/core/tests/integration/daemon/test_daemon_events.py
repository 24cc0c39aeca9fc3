"""The journal over HTTP: whole, in order, from a cursor."""

import threading
from uuid import UUID

import pytest

from ff_core.contract.events import MessageDelta, Notice
from ff_core.ids import WorkspaceId
from ff_core.store.engine import Store
from ff_core.store.following import frames
from ff_core.store.journal import Journal
from ff_core.testing.world import FakeWorld

W = WorkspaceId(UUID(int=1))


def is_the_end(event):
    return event["body"].get("name") == "the end"


def test_history_then_live_over_cut_connections_without_gap_or_duplicate(bound):
    sessions = [bound.http.post("/v1/sessions", json={}).json()["id"] for _ in range(3)]
    sent, uncut, found = [], [], []

    def write():
        for number in range(60):
            answer = bound.http.post(f"/v1/sessions/{sessions[number % 3]}/messages", json={"text": f"prompt {number}"})
            sent.append(answer.json()["id"])
        bound.http.post("/v1/sessions", json={"name": "the end"})

    def follow():
        uncut.extend(bound.events(0, until=is_the_end))

    threads = [threading.Thread(target=write), threading.Thread(target=follow)]
    for thread in threads:
        thread.start()
    while not found or not is_the_end(found[-1]):
        stop = len(found) + 1 + len(found) % 4
        # The header wins over the parameter: a browser that reconnects sends both.
        after, headers = (0, {"Last-Event-ID": str(len(found))}) if stop % 2 else (len(found), {})
        found += bound.events(after, until=lambda event, stop=stop: event["seq"] == stop or is_the_end(event), headers=headers)
    for thread in threads:
        thread.join()
    assert [event["seq"] for event in found] == list(range(1, len(found) + 1))
    assert [event["body"]["message_id"] for event in found if event["body"]["kind"] == "message.queued"] == sent
    assert uncut == found


@pytest.mark.parametrize("cursor", ["-1", "x", "1.5", "²", "9" * 19])
def test_a_cursor_that_is_none_is_invalid(bound, cursor):
    for more in ({"params": {"after": cursor}}, {"headers": {"Last-Event-ID": cursor.encode()}}):
        response = bound.http.get("/v1/events", **more)
        assert (response.status_code, response.json()["code"]) == (422, "invalid_input")


def test_a_cursor_beyond_the_end_is_of_another_journal(bound):
    response = bound.http.get("/v1/events", params={"after": 10**9})
    assert (response.status_code, response.json()["code"]) == (409, "cursor_ahead")
    newest = bound.http.get("/v1/health").json()["journal_seq"]
    with bound.http.stream("GET", "/v1/events", params={"after": newest}, timeout=5) as response:
        assert response.status_code == 200
        assert response.headers["content-type"].startswith("text/event-stream")
        assert response.headers["cache-control"] == "no-store"


@pytest.fixture
def store(tmp_path):
    store = Store.open(tmp_path / "state.db")
    yield store
    store.close()


async def test_silence_is_filled_with_comments_and_hints_carry_no_id(store):
    journal = Journal(store, FakeWorld())
    stream = frames(journal.follow(W, 0), heartbeat_s=0.01)
    assert [await anext(stream), await anext(stream)] == [b": hello\n\n", b": alive\n\n"]
    journal.hint(W, MessageDelta(text="a"))
    assert (await anext(stream)).startswith(b"event: message.delta\ndata: {")
    with store.transaction() as tx:
        journal.append(tx, W, Notice(name="n", message="x"))
    assert (await anext(stream)).startswith(b"id: 1\nevent: notice\ndata: {")
    journal.close()
    assert [piece async for piece in stream] == []


async def test_who_is_too_slow_is_cut_off(store):
    journal = Journal(store, FakeWorld(), backlog_events_max=2)
    stream = frames(journal.follow(W, 0), heartbeat_s=0.01)
    assert [await anext(stream), await anext(stream)] == [b": hello\n\n", b": alive\n\n"]
    for _ in range(3):
        journal.hint(W, MessageDelta(text="a"))
    assert [piece async for piece in stream] == []
