"""The places where a handoff can be when its process dies. Tests die at each of them, and find one owner afterwards."""

from collections.abc import Callable
from enum import StrEnum

from ff_desktop.handoffs.machine import LEGS, Back, Stage, Way

Crash = Callable[[str], None]
"""Told where it is."""


class Ask(StrEnum):
    """What the server is asked."""

    WORKSPACE = "workspace"
    CREATE = "create"
    ANNOUNCE = "announce"
    LOOK = "look"
    PIECE = "piece"
    DOWNLOAD = "download"
    COMMIT = "commit"
    ABORT = "abort"
    TAKEOVER = "takeover"


def before(ask: Ask) -> str:
    """It has not been asked yet."""
    return f"before {ask}"


def after(ask: Ask) -> str:
    """It has answered, and nobody has read it."""
    return f"after {ask}"


DONE = "done"
"""Its effect is there, and nothing is written down."""
WRITTEN = "written"

_ASKS: dict[tuple[Way, Stage] | Back, tuple[Ask, ...]] = {
    (Way.SEND, Stage.CREATE): (Ask.CREATE,),
    (Way.SEND, Stage.UPLOAD): (Ask.ANNOUNCE, Ask.PIECE),
    (Way.SEND, Stage.VERIFY): (Ask.LOOK,),
    (Way.SEND, Stage.COMMIT): (Ask.COMMIT,),
    (Way.PULL, Stage.CHECK): (Ask.WORKSPACE,),
    (Way.PULL, Stage.CREATE): (Ask.CREATE,),
    (Way.PULL, Stage.EXPORT): (Ask.LOOK,),
    (Way.PULL, Stage.DOWNLOAD): (Ask.DOWNLOAD,),
    (Way.PULL, Stage.COMMIT): (Ask.COMMIT,),
    (Way.FORCE, Stage.TELL): (Ask.ABORT, Ask.TAKEOVER),
}


def place(way: Way, act: Stage | Back, where: str) -> str:
    """The name of one place."""
    return f"{way} {act} {where}"


def _all() -> tuple[str, ...]:
    found = []
    for way, legs in LEGS.items():
        for leg in legs:
            asks = _ASKS.get((way, leg.stage), ())
            found += [place(way, leg.stage, word(ask)) for ask in asks for word in (before, after)]
            found += [place(way, leg.stage, where) for where in (DONE, WRITTEN)]
    for way in (Way.SEND, Way.PULL):
        found += [place(way, Back.ASK, word(Ask.ABORT)) for word in (before, after)]
        found += [place(way, back, where) for back in Back for where in (DONE, WRITTEN)]
    return tuple(found)


PLACES = _all()
