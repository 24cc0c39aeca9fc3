"""The protocol as a model: one owner, never none for good, whatever is lost, repeated or killed (``handoff_model``)."""

import pytest
from handoff_model import Protocol, Status, Way, prove, put

PLANS = {
    "a send, another, and back": [("a", Way.SEND), ("a", Way.SEND), ("a", Way.PULL)],
    "a second laptop": [("a", Way.SEND), ("a", Way.PULL), ("b", Way.PULL)],
    "a second laptop brings it back": [("a", Way.SEND), ("b", Way.PULL), ("b", Way.SEND), ("a", Way.PULL)],
    "by force": [("a", Way.SEND), ("a", Way.FORCE), ("a", Way.SEND)],
    "by force, while a second laptop has it": [("a", Way.SEND), ("b", Way.PULL), ("a", Way.FORCE)],
    "by force, while it comes back": [("a", Way.SEND), ("a", Way.PULL), ("a", Way.FORCE)],
}


@pytest.mark.parametrize("plan", PLANS)
def test_one_owner_and_never_none_for_good(plan):
    assert prove(Protocol(PLANS[plan])) > 1_000


class UndoesOnAGuess(Protocol):
    """A desktop that does not ask the server before it thaws."""

    def _ask(self, state, place, message):
        desktop = state.desktops[place]
        yield self._with(state, place, desktop._replace(move=None, moving=None, owed=self._owing(desktop))), True


class CommitsTwice(Protocol):
    """A server that commits what was aborted."""

    def _commit(self, server, number):
        known = server.handoffs[number]
        if known is not None and known.status is Status.ABORTED:
            known = known._replace(status=Status.READY)
            server = server._replace(handoffs=put(server.handoffs, number, known))
        return super()._commit(server, number)


class NeverGivesUp(Protocol):
    """A server that waits for ever for whoever began something."""

    def _server_alone(self, server):
        return [each for each in super()._server_alone(server) if not _statuses(each) & {Status.EXPIRED, Status.FAILED}]


class TakesOverAnything(Protocol):
    """A server that lets a desktop take what another one has."""

    def _takeover(self, server, name, epoch):
        return server._replace(location=name, epoch=max(server.epoch, epoch), runs=False), True


class ForgetsToTell(Protocol):
    """A desktop that takes its copy back and keeps it for itself."""

    def _tell(self, state, place, name, done):
        yield self._with(state, place, done), True


def _statuses(server):
    return {each.status for each in server.handoffs if each is not None}


@pytest.mark.parametrize(
    ("broken", "plan"),
    [
        (UndoesOnAGuess, "a send, another, and back"),
        (CommitsTwice, "a send, another, and back"),
        (NeverGivesUp, "a send, another, and back"),
        (TakesOverAnything, "by force, while a second laptop has it"),
        (ForgetsToTell, "by force"),
    ],
)
def test_the_search_finds_what_a_broken_rule_leads_to(broken, plan):
    with pytest.raises(AssertionError, match="Server"):
        prove(broken(PLANS[plan]))
