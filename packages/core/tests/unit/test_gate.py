"""Who is inside, since when nobody is, and that nobody comes in while the host rests: by any order of comings and goings."""

from contextlib import ExitStack
from datetime import timedelta

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from ff_core.testing.world import FakeWorld
from ff_core.workspaces.errors import VmResting
from ff_core.workspaces.gate import Gate

KINDS = ("request", "command", "follower")


class Comings(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.world = FakeWorld()
        self.gate = Gate(self.world)
        self.inside: list[tuple[str, ExitStack]] = []
        self.touched_at = self.world.now()

    @rule(kind=st.sampled_from(KINDS))
    def come(self, kind: str) -> None:
        stack = ExitStack()
        if self.gate.resting and kind != "follower":
            with pytest.raises(VmResting):
                stack.enter_context(getattr(self.gate, kind)())
            return
        stack.enter_context(getattr(self.gate, kind)())
        self.inside.append((kind, stack))
        self.touched_at = self.world.now()

    @rule()
    def a_command_of_something_that_has_begun(self) -> None:
        stack = ExitStack()
        stack.enter_context(self.gate.command(begun=True))
        self.inside.append(("command", stack))
        self.touched_at = self.world.now()

    @precondition(lambda self: self.inside)
    @rule(which=st.integers(0, 100), broken=st.booleans())
    def go(self, which: int, broken: bool) -> None:
        _, stack = self.inside.pop(which % len(self.inside))
        if broken:
            with pytest.raises(KeyError), stack:
                raise KeyError
        stack.close()
        self.touched_at = self.world.now()

    @rule(rests=st.booleans())
    def rest(self, rests: bool) -> None:
        self.gate.close() if rests else self.gate.open()

    @rule(seconds=st.integers(1, 1000))
    def time_passes(self, seconds: int) -> None:
        self.world.advance(timedelta(seconds=seconds).total_seconds())

    @invariant()
    def it_knows_who_is_inside_and_when_something_last_was(self) -> None:
        counted = [sum(kind == wanted for kind, _ in self.inside) for wanted in KINDS]
        assert [self.gate.requests, self.gate.commands, self.gate.followers] == counted
        assert self.gate.active_at == self.touched_at


TestComings = Comings.TestCase
