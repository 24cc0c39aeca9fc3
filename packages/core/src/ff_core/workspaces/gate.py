"""What goes on in this host's workspace, when something last did, and whether it takes anything new."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime

from ff_core.workspaces.errors import VmResting
from ff_core.world import World


@dataclass(frozen=True)
class InUse:
    """:class:`ff_core.contract.daemon.Use` as plain data."""

    turns: int
    commands: int
    processes: int
    followers: int
    active_at: datetime

    @property
    def any(self) -> bool:
        """Whether something goes on."""
        return (self.turns, self.commands, self.processes, self.followers) != (0, 0, 0, 0)

    def as_json(self) -> dict[str, int | str]:
        """As it is said."""
        return {
            "turns": self.turns,
            "commands": self.commands,
            "processes": self.processes,
            "followers": self.followers,
            "active_at": self.active_at.isoformat(),
        }


class Gate:
    """Everybody who works here goes in and out through one of these, so that "nobody is inside" can be known.

    All of it is synchronous: between a look at :attr:`commands` and :meth:`close` nobody can have come in.
    """

    def __init__(self, world: World) -> None:
        self._world = world
        self._active_at = world.now()
        self.resting = False
        """Nobody new is let in."""
        self.requests = 0
        """Calls that change something and are being carried out."""
        self.commands = 0
        """Programs that somebody waits for."""
        self.followers = 0
        """Clients that watch. They may come while we rest, too."""

    @property
    def active_at(self) -> datetime:
        """The last moment something was known to go on."""
        return self._active_at

    def use(self, *, turns: int, processes: int) -> InUse:
        """All that goes on, with what cannot be seen from here."""
        if turns or processes or self.commands or self.followers:
            self.touch()
        return InUse(turns, self.commands, processes, self.followers, self._active_at)

    def touch(self) -> None:
        """Something goes on at this moment."""
        self._active_at = self._world.now()

    def close(self) -> None:
        """Rest: let nobody in from now on. Who is inside stays. May be repeated."""
        self.resting = True

    def open(self) -> None:
        """End the rest. May be repeated."""
        self.resting = False

    @contextmanager
    def request(self) -> Iterator[None]:
        """A call that changes something. Raises ``VmResting`` before anything of it is done."""
        self._require_open()
        self.touch()
        self.requests += 1
        try:
            yield
        finally:
            self.requests -= 1
            self.touch()

    @contextmanager
    def command(self, *, begun: bool = False) -> Iterator[None]:
        """A program. Raises ``VmResting``, unless it belongs to something that has ``begun``."""
        if not begun:
            self._require_open()
        self.touch()
        self.commands += 1
        try:
            yield
        finally:
            self.commands -= 1
            self.touch()

    @contextmanager
    def follower(self) -> Iterator[None]:
        """A client that watches."""
        self.touch()
        self.followers += 1
        try:
            yield
        finally:
            self.followers -= 1
            self.touch()

    def _require_open(self) -> None:
        if self.resting:
            raise VmResting
