"""The life of a handoff: which moves there are, and that whatever ends one before its time is undone for the right side."""

from itertools import product

import pytest

from ff_cloud.handoffs.machine import MOVES, OPEN, Undoing, first, move, undoing
from ff_core.contract.handoff import HandoffStatus as Status
from ff_core.contract.places import Direction, Location
from ff_core.errors import IllegalTransition

GIVEN_UP = {Status.ABORTED, Status.FAILED, Status.EXPIRED}


def test_every_open_one_can_come_to_each_end_and_no_end_to_anything() -> None:
    assert set(MOVES) == set(Status)
    for old, new in product(Status, Status):
        if new in MOVES[old]:
            assert move(old, new) is new
        else:
            with pytest.raises(IllegalTransition):
                move(old, new)
    for status in OPEN:
        assert MOVES[status] >= GIVEN_UP
    assert all(not MOVES[status] for status in Status if status not in OPEN)


def test_only_what_is_ready_is_committed_and_each_way_leads_there() -> None:
    assert [status for status in Status if Status.COMMITTED in MOVES[status]] == [Status.READY]
    for direction in Direction:
        reached, waiting = set(), [first(direction)]
        while waiting:
            reached.add(status := waiting.pop())
            waiting += MOVES[status] - reached
        assert Status.COMMITTED in reached
        assert reached & ({Status.UPLOADING, Status.RESTORING} if direction is Direction.PULL else {Status.EXPORTING}) == set()


def test_what_was_given_up_is_undone_where_it_was_done() -> None:
    for direction, status, location in product(Direction, Status, Location):
        expected = Undoing.NOTHING
        if status in GIVEN_UP and direction is Direction.SEND:
            expected = Undoing.RETURN
        elif status in GIVEN_UP and location is Location.CLOUD:
            expected = Undoing.THAW
        assert undoing(direction, status, location) is expected
