"""The append-only list of what happened in each workspace, and those who follow it."""

import asyncio
import weakref
from collections import deque
from collections.abc import Iterator
from contextlib import closing
from types import TracebackType
from typing import TYPE_CHECKING, Self

from ff_core.ids import SessionId, WorkspaceId
from ff_core.store.engine import Store, Tx
from ff_core.store.errors import CursorAhead, EventTooLarge, FollowerTooSlow, TooManyFollowers
from ff_core.world import World

if TYPE_CHECKING:
    from ff_core.contract.events import Event, EventBody
# The models of events are imported where one is written or read: a VM listens, is bound and runs commands before that.

BODY_BYTES_MAX = 2 * 1024 * 1024
"""A body as JSON: room for ``TEXT_CHARS_MAX`` characters of four bytes, or of a six-byte escape each."""
PAGE_EVENTS_MAX = 200
PAGE_BYTES_MAX = 4 * 1024 * 1024
BACKLOG_EVENTS_MAX = 1_000
FOLLOWERS_MAX = 200


class Journal:
    """The only writer of the table ``events``. Of one workspace, ``seq`` counts 1, 2, 3… without gap."""

    def __init__(
        self,
        store: Store,
        world: World,
        *,
        backlog_events_max: int = BACKLOG_EVENTS_MAX,
        followers_max: int = FOLLOWERS_MAX,
    ) -> None:
        self._store = store
        self._world = world
        self._backlog_events_max = backlog_events_max
        self._followers_max = followers_max
        self._followers: weakref.WeakSet[Follower] = weakref.WeakSet()

    def append(self, tx: Tx, workspace_id: WorkspaceId, body: "EventBody", session_id: SessionId | None = None) -> "Event":
        """Write an event as part of ``tx``; followers get it when that is committed.

        Raises ``EventTooLarge`` rather than store a body that was cut without a word.
        """
        from ff_core.contract.events import Event  # noqa: PLC0415  (see the head of the module)

        text = body.model_dump_json()
        size = len(text.encode())
        if size > BODY_BYTES_MAX:
            raise EventTooLarge(f"An event {body.kind!r} of {size} bytes is larger than the journal's {BODY_BYTES_MAX}.")
        (last,) = tx.execute("SELECT coalesce(max(seq), 0) FROM events WHERE workspace_id = ?", (str(workspace_id),)).fetchone()
        event = Event(workspace_id=workspace_id, seq=last + 1, at=self._world.now(), session_id=session_id, body=body)
        tx.execute(
            "INSERT INTO events (workspace_id, seq, at, session_id, body) VALUES (?, ?, ?, ?, ?)",
            (str(workspace_id), event.seq, event.at.isoformat(), None if session_id is None else str(session_id), text),
        )
        tx.after_commit(lambda: self._publish(event))
        return event

    def adopt(self, tx: Tx, event: "Event") -> None:
        """Write an event that was written before, in a journal that this one goes on from; nobody is told.

        Raises ``sqlite3.IntegrityError`` unless its ``seq`` is the next one.
        """
        session = None if event.session_id is None else str(event.session_id)
        tx.execute(
            "INSERT INTO events (workspace_id, seq, at, session_id, body) VALUES (?, ?, ?, ?, ?)",
            (str(event.workspace_id), event.seq, event.at.isoformat(), session, event.body.model_dump_json()),
        )

    def hint(self, workspace_id: WorkspaceId, body: "EventBody", session_id: SessionId | None = None) -> None:
        """Tell those who follow right now; not stored, without ``seq``, lost on everybody else."""
        from ff_core.contract.events import Event  # noqa: PLC0415  (see the head of the module)

        self._publish(Event(workspace_id=workspace_id, seq=None, at=self._world.now(), session_id=session_id, body=body))

    def read(self, workspace_id: WorkspaceId, after: int, limit: int) -> "list[Event]":
        """Events after ``seq`` ``after``, oldest first: at most ``limit``, fewer when they are large, none only at the end."""
        return list(self._page(workspace_id, after, limit))

    def _page(self, workspace_id: WorkspaceId, after: int, limit: int) -> "Iterator[Event]":
        from ff_core.contract.events import EVENT_BODY, Event  # noqa: PLC0415  (see the head of the module)

        rows = self._store.each(
            "SELECT seq, at, session_id, body FROM events WHERE workspace_id = ? AND seq > ? ORDER BY seq LIMIT ?",
            (str(workspace_id), after, limit),
        )
        chars = 0
        with closing(rows):
            for row in rows:
                yield Event.model_validate(
                    {**dict(row), "workspace_id": workspace_id, "body": EVENT_BODY.validate_json(row["body"])}
                )
                chars += len(row["body"])
                if chars >= PAGE_BYTES_MAX:
                    return

    def last_seq(self, workspace_id: WorkspaceId) -> int:
        """``seq`` of the newest event, 0 when there is none."""
        rows = self._store.query("SELECT max(seq) AS seq FROM events WHERE workspace_id = ?", (str(workspace_id),))
        return rows[0]["seq"] or 0

    def follow(self, workspace_id: WorkspaceId, after: int) -> "Follower":
        """The events after ``after``: those there are, then live ones and hints as they come; no gap, no duplicate.

        Ends when the journal is closed. Raises at once ``CursorAhead`` or ``TooManyFollowers``; while iterating
        ``FollowerTooSlow`` when more than ``backlog_events_max`` wait: follow again from the last ``seq`` received.
        """
        newest = self.last_seq(workspace_id)
        if after > newest:
            raise CursorAhead(f"The cursor {after} points beyond the newest event, {newest}. Start again from 0.", newest=newest)
        if len(self._followers) >= self._followers_max:
            raise TooManyFollowers
        follower = Follower(self, workspace_id, after, self._backlog_events_max)
        self._followers.add(follower)
        return follower

    def close(self) -> None:
        """End all followers. Appending is still possible, so that a shutdown can say its last words first."""
        for follower in list(self._followers):
            follower.end()
        self._followers.clear()

    def leave(self, follower: "Follower") -> None:
        """Forget ``follower``."""
        self._followers.discard(follower)

    def _publish(self, event: "Event") -> None:
        for follower in self._followers:
            if follower.workspace_id == event.workspace_id:
                follower.offer(event)


class Follower:
    """An iterator over the events of a workspace that waits for more. Made by :meth:`Journal.follow`.

    Until it has caught up it reads the table page by page, and takes nothing live; so a long history needs no
    memory, and the step from history to live happens between two statements where nothing can come in between.
    """

    def __init__(self, journal: Journal, workspace_id: WorkspaceId, after: int, backlog_events_max: int) -> None:
        self.workspace_id = workspace_id
        self._journal = journal
        self._cursor = after
        self._backlog_events_max = backlog_events_max
        self._waiting: deque[Event] = deque()
        self._live = False
        self._slow = False
        self._ended = False
        self._news = asyncio.Event()

    def offer(self, event: "Event") -> None:
        """Take a live event, unless the history before it is not read yet."""
        if not self._live or self._slow:
            return
        if len(self._waiting) >= self._backlog_events_max:
            self._slow = True
            self._waiting.clear()
        else:
            self._waiting.append(event)
        self._news.set()

    def end(self) -> None:
        """Let the iteration end after what waits."""
        self._ended = True
        self._news.set()

    def close(self) -> None:
        """Stop following. May be repeated."""
        self.end()
        self._waiting.clear()
        self._journal.leave(self)

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> "Event":
        while True:
            if self._waiting:
                event = self._waiting.popleft()
                self._cursor = event.seq or self._cursor
                return event
            if self._slow:
                self.close()
                raise FollowerTooSlow
            if self._ended:
                raise StopAsyncIteration
            if not self._live:
                self._catch_up()
            else:
                self._news.clear()
                await self._news.wait()

    def _catch_up(self) -> None:
        page = self._journal.read(self.workspace_id, self._cursor, PAGE_EVENTS_MAX)
        self._waiting.extend(page)
        self._live = not page

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self.close()
