"""State machines as tables."""

from collections.abc import Mapping
from enum import StrEnum
from typing import Generic, TypeVar

from ff_core.errors import IllegalTransition

S = TypeVar("S", bound=StrEnum)


class Machine(Generic[S]):
    """The legal moves of one kind of thing. ``name`` is the word for it in error sentences, such as "workspace"."""

    def __init__(self, name: str, table: Mapping[S, frozenset[S]]) -> None:
        self.name = name
        self._table = dict(table)

    def allows(self, old: S, new: S) -> bool:
        """Whether ``old`` may become ``new``. Staying is a move too, legal only where the table says so."""
        return new in self._table.get(old, frozenset())

    def move(self, old: S, new: S) -> S:
        """``new``, when ``old`` may become it. Raises ``IllegalTransition`` otherwise."""
        if not self.allows(old, new):
            raise IllegalTransition(
                f"A {self.name} that is {old.value} can't become {new.value}.", current=old.value, wanted=new.value
            )
        return new
