"""The steps of a handoff on the desktop, and what is done next whatever has happened. Pure.

A row records the last step that is finished before the next one begins, and a stage that did not finish is done again, so every
stage may be repeated. The server's row decides whose the workspace is, and *commit* is the one request that changes it:

* Before it was asked for, going back needs nobody's leave.
* From the moment it may have been asked for until the server's answer is known, nothing is undone on a guess: the workspace stays
  frozen (SEND) or inert (PULL) until the server has said what it decided.
* After it there is no way back, only on.

``tests/properties/test_handoff_protocol.py`` searches all that desktops, server and network can do under these rules.
"""

from dataclasses import dataclass
from enum import StrEnum

from ff_core.contract.handoff import HandoffStatus
from ff_core.contract.places import Direction


class Way(StrEnum):
    """What kind of move. FORCE: a pull without the server."""

    SEND = "SEND"
    PULL = "PULL"
    FORCE = "FORCE"

    @property
    def direction(self) -> Direction:
        """Where to."""
        return Direction.SEND if self is Way.SEND else Direction.PULL


class Step(StrEnum):
    """What is finished, and written down."""

    BEGUN = "BEGUN"
    CHECKED = "CHECKED"
    FROZEN = "FROZEN"
    CREATED = "CREATED"
    """The server knows of it."""
    PACKED = "PACKED"
    UPLOADED = "UPLOADED"
    VERIFIED = "VERIFIED"
    """The copy in the cloud is what was sent; from here on the commit may have been asked for."""
    EXPORTED = "EXPORTED"
    DOWNLOADED = "DOWNLOADED"
    UNPACKED = "UNPACKED"
    """The copy in the staging folder is what was exported, and where it will land is decided; from here on the commit may have
    been asked for."""
    COMMITTED = "COMMITTED"
    TAKEN = "TAKEN"
    """By force: work goes on here, and the server has not been told."""
    LANDED = "LANDED"
    SETTLED = "SETTLED"
    DONE = "DONE"


class Stage(StrEnum):
    """What leads to the next step."""

    CHECK = "CHECK"
    FREEZE = "FREEZE"
    CREATE = "CREATE"
    PACK = "PACK"
    UPLOAD = "UPLOAD"
    VERIFY = "VERIFY"
    EXPORT = "EXPORT"
    DOWNLOAD = "DOWNLOAD"
    UNPACK = "UNPACK"
    COMMIT = "COMMIT"
    TAKE = "TAKE"
    LAND = "LAND"
    SETTLE = "SETTLE"
    DEPART = "DEPART"
    ACTIVATE = "ACTIVATE"
    TELL = "TELL"


@dataclass(frozen=True)
class Leg:
    """A stage and the step that is recorded when it is finished. ``says``: what goes on, for people."""

    stage: Stage
    step: Step
    says: str


LEGS: dict[Way, tuple[Leg, ...]] = {
    Way.SEND: (
        # Looks only.
        Leg(Stage.CHECK, Step.CHECKED, "looking what would travel"),
        # One transaction: no turn, no fixer, and from now on nothing new. Undone by a thaw.
        Leg(Stage.FREEZE, Step.FROZEN, "freezing the workspace"),
        # The server makes a row of this id, or finds it, and a VM meanwhile. Undone by an abort there, or by its expiry.
        Leg(Stage.CREATE, Step.CREATED, "announcing it to the server"),
        # Writes into the handoff's own folder, which is removed when it is undone.
        Leg(Stage.PACK, Step.PACKED, "packing"),
        # Says what was packed; then pieces, each at the offset that the server says.
        Leg(Stage.UPLOAD, Step.UPLOADED, "uploading"),
        # Waits until the cloud has restored and compared.
        Leg(Stage.VERIFY, Step.VERIFIED, "the cloud unpacks it and compares"),
        # One transaction of the server's. Nothing undoes it.
        Leg(Stage.COMMIT, Step.COMMITTED, "handing it over"),
        # The row here says so; forward only.
        Leg(Stage.DEPART, Step.DONE, "writing down where it lives"),
    ),
    Way.PULL: (
        Leg(Stage.CHECK, Step.CHECKED, "asking the server"),
        # The server freezes the workspace and exports it. Undone by an abort there, or by its expiry.
        Leg(Stage.CREATE, Step.CREATED, "announcing it to the server"),
        Leg(Stage.EXPORT, Step.EXPORTED, "the cloud packs it"),
        # Into the handoff's own folder, going on where it ended.
        Leg(Stage.DOWNLOAD, Step.DOWNLOADED, "downloading"),
        # Beside everything that is there; decides where it will land.
        Leg(Stage.UNPACK, Step.UNPACKED, "unpacking and comparing"),
        Leg(Stage.COMMIT, Step.COMMITTED, "taking it over"),
        # Forward only, as all that follows.
        Leg(Stage.LAND, Step.LANDED, "putting it into its folder"),
        Leg(Stage.SETTLE, Step.SETTLED, "putting its conversations where agents look for them"),
        Leg(Stage.ACTIVATE, Step.DONE, "going on here"),
    ),
    Way.FORCE: (
        # The row here says that it lives here, under a higher epoch. Forward only from its beginning, because that may have given
        # up a handoff of which nobody knows whether it was committed.
        Leg(Stage.TAKE, Step.TAKEN, "going on with the copy that was kept"),
        # Until the server has heard of it, the copy in the cloud may run too. It decides who is right.
        Leg(Stage.TELL, Step.DONE, "telling the server as soon as it answers"),
    ),
}

_ORDER = {way: (Step.BEGUN, *(leg.step for leg in legs)) for way, legs in LEGS.items()}
_LAST_BEFORE_COMMIT = {way: _ORDER[way][_ORDER[way].index(Step.COMMITTED) - 1] for way in (Way.SEND, Way.PULL)}
_KNOWN_FROM = {way: _ORDER[way][_ORDER[way].index(Step.CREATED) - 1] for way in (Way.SEND, Way.PULL)}


class Back(StrEnum):
    """How a handoff that is not to go on is undone, apart from what a stage does."""

    ASK = "ASK"
    """First the server must say whether it was committed: ask it to abort."""
    UNDO = "UNDO"
    """What was done here is undone; the server need not be asked."""


@dataclass(frozen=True)
class Finished:
    """Nothing is left to do."""


Next = Leg | Back | Finished


def next_act(way: Way, step: Step, *, turned: bool) -> Next:
    """What to do when ``step`` is the last that is finished. ``turned``: it is not to go on, if that is still possible."""
    if step is Step.DONE:
        return Finished()
    if turned and not forward_only(way, step):
        return Back.ASK if commit_may_be_asked(way, step) else Back.UNDO
    order = _ORDER[way]
    return LEGS[way][order.index(step)]


def forward_only(way: Way, step: Step) -> bool:
    """Whether there is no way back any more."""
    return way is Way.FORCE or _at_least(way, step, Step.COMMITTED)


def commit_may_be_asked(way: Way, step: Step) -> bool:
    """Whether the server may have been asked to commit, and its answer is not known."""
    return way is not Way.FORCE and step is _LAST_BEFORE_COMMIT[way]


def server_may_know(way: Way, step: Step) -> bool:
    """Whether the server may have a handoff of this id, so that it should be told when that is not to go on."""
    return way is not Way.FORCE and _at_least(way, step, _KNOWN_FROM[way])


class Verdict(StrEnum):
    """What the server's word about a handoff means."""

    COMMITTED = "COMMITTED"
    OPEN = "OPEN"
    OVER = "OVER"
    """It will never be committed."""


def verdict(status: HandoffStatus | None) -> Verdict:
    """Read the status that the server says; None: it says that it knows no such handoff."""
    if status is HandoffStatus.COMMITTED:
        return Verdict.COMMITTED
    if status is not None and status.open:
        return Verdict.OPEN
    return Verdict.OVER


def forced_epoch(known: int, *, unsure: bool) -> int:
    """The epoch to go on under by force, until the server is told. ``known``: the workspace's here; ``unsure``: a handoff of it
    may have been committed.

    It has to be higher than any that the server may have given to the copy it has.
    """
    return known + (2 if unsure else 1)


@dataclass(frozen=True)
class TakeOver:
    """The server has it in the cloud: tell it that the workspace was taken from there, under ``epoch``."""

    epoch: int


@dataclass(frozen=True)
class Mine:
    """The server never gave it away, or gave it to this desktop: it is here under ``epoch``."""

    epoch: int


def tell(known: int, given_up: Way | None, became: Verdict | None, there: int) -> TakeOver | Mine:
    """What is left to be told after force.

    ``given_up``: the move that was under way, what ``became`` of it at the server, and its epoch ``there``.
    """
    if given_up is Way.SEND:
        return TakeOver(there + 1) if became is Verdict.COMMITTED else Mine(known)
    if given_up is Way.PULL and became is Verdict.COMMITTED:
        return Mine(there)
    return TakeOver(known + 1)


def _at_least(way: Way, step: Step, point: Step) -> bool:
    order = _ORDER[way]
    return order.index(step) >= order.index(point)
