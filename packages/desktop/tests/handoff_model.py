"""The protocol as a model: every state that desktops, server and network can reach together, searched to the end.

The desktops follow ``ff_desktop.handoffs.machine``, the server ``ff_cloud.handoffs.machine`` and the words of
``ff_core.contract.handoff``, each request one transaction. A request that was ever sent may be carried out at any later time,
any number of times, or never, and its answer may be heard or lost: that is loss, delay, reordering and duplication, and a
desktop that dies at any point and comes back knows no less than what it wrote down.
"""

from collections import deque
from functools import cache
from typing import NamedTuple

from ff_cloud.handoffs.machine import first, move
from ff_core.contract.handoff import HandoffStatus as Status
from ff_desktop.handoffs.machine import (
    Back,
    Finished,
    Leg,
    Stage,
    Step,
    TakeOver,
    Verdict,
    Way,
    forced_epoch,
    forward_only,
    next_act,
    server_may_know,
    tell,
    verdict,
)
from ff_desktop.handoffs.machine import commit_may_be_asked as unsure

CLOUD, NOWHERE = "cloud", "nowhere"
STATES_MAX = 400_000
next_act = cache(next_act)


class Move(NamedTuple):
    """A handoff that a desktop has open: its number, and what the desktop wrote down of it."""

    number: int
    way: Way
    step: Step = Step.BEGUN
    turned: bool = False
    epoch: int = 0
    base: int = 0
    """By force: the epoch before."""
    given_up: tuple | None = None
    """By force: number and way of what was under way, and whether the server may know of it."""


class Desktop(NamedTuple):
    here: bool
    epoch: int
    moving: int | None = None
    move: Move | None = None
    owed: frozenset = frozenset()

    @property
    def runs(self):
        return self.here and self.moving is None

    @property
    def unheard(self):
        """It went on by force, and the server has not answered."""
        return self.move is not None and self.move.way is Way.FORCE and self.here


class Handoff(NamedTuple):
    """One as the server knows it."""

    way: Way
    desktop: str
    epoch: int
    status: Status


class Server(NamedTuple):
    location: str
    epoch: int
    runs: bool
    """The copy in the cloud is active."""
    handoffs: tuple


class State(NamedTuple):
    server: Server
    desktops: tuple
    sent: frozenset
    begun: int
    """Numbers of the handoffs that were begun, as bits."""


class Protocol:
    """``plan``: who may begin what, each once, in any order. Which desktops there are follows from it."""

    def __init__(self, plan):
        self.plan = plan
        self.names = tuple(sorted({name for name, _ in plan}))

    def start(self):
        desktops = tuple(Desktop(here=name == self.names[0], epoch=0) for name in self.names)
        return State(Server(NOWHERE, 0, False, (None,) * len(self.plan)), desktops, frozenset(), 0)

    # What may happen next: pairs of a state and whether that is certain to happen at some time.

    def successors(self, state):
        found = []
        for place, name in enumerate(self.names):
            desktop = state.desktops[place]
            found += [(self._with(state, place, each), False) for each in self._faults(desktop)]
            found += self._begin(state, place)
            found += self._owed(state, place)
            if desktop.move is not None:
                found += self._go_on(state, place, name)
        for message in state.sent:
            server, _ = self._carry_out(state.server, message)
            if server is not state.server:
                found.append((state._replace(server=server), False))
        found += [(state._replace(server=server), True) for server in self._server_alone(state.server)]
        return found

    def _with(self, state, place, desktop, **others):
        desktops = (*state.desktops[:place], desktop, *state.desktops[place + 1 :])
        return state._replace(desktops=desktops, **others)

    def _faults(self, desktop):
        """The user aborts, or a stage fails for good."""
        move = desktop.move
        if move is not None and not move.turned and not forward_only(move.way, move.step):
            yield desktop._replace(move=move._replace(turned=True))

    def _begin(self, state, place):
        desktop = state.desktops[place]
        for number, (name, way) in enumerate(self.plan):
            if name != self.names[place] or state.begun >> number & 1:
                continue
            begun = state.begun | 1 << number
            if way is Way.FORCE:
                known = desktop.epoch
                before = desktop.move
                if before is not None and forward_only(before.way, before.step):
                    continue
                # Only who once had it has a copy; what is under way is given up, whatever became of it.
                if (before is None and desktop.here) or (before is None and known == 0):
                    continue
                maybe = before is not None and unsure(before.way, before.step)
                told = before is not None and server_may_know(before.way, before.step)
                given_up = None if before is None else (before.number, before.way, told)
                move = Move(number, way, epoch=forced_epoch(known, unsure=maybe), base=known, given_up=given_up)
                yield self._with(state, place, desktop._replace(move=move), begun=begun), False
            elif desktop.move is None and desktop.here == (way is Way.SEND):
                yield self._with(state, place, desktop._replace(move=Move(number, way)), begun=begun), False

    def _owing(self, desktop):
        move = desktop.move
        if move is None or not server_may_know(move.way, move.step):
            return desktop.owed
        return desktop.owed | {move.number}

    def _owed(self, state, place):
        desktop = state.desktops[place]
        for number in desktop.owed:
            message = ("abort", number)
            server, answer = self._carry_out(state.server, message)
            sent = state.sent | {message}
            if verdict(answer) is not Verdict.OPEN:
                settled = desktop._replace(owed=desktop.owed - {number})
                yield self._with(state, place, settled, server=server, sent=sent), True
            yield state._replace(sent=sent), True

    def _go_on(self, state, place, name):
        desktop = state.desktops[place]
        move = desktop.move
        act = next_act(move.way, move.step, turned=move.turned)
        match act:
            case Finished():
                yield self._with(state, place, desktop._replace(move=None)), True
            case Back.UNDO:
                # Two writes: the workspace is thawed, then the handoff is closed.
                if desktop.moving == move.number:
                    yield self._with(state, place, desktop._replace(moving=None)), True
                else:
                    yield self._with(state, place, desktop._replace(move=None, owed=self._owing(desktop))), True
            case Back.ASK:
                yield from self._ask(state, place, ("abort", move.number))
            case Leg(stage=stage, step=step):
                yield from self._stage(state, place, name, stage, step)

    def _ask(self, state, place, message):
        """Ask for an abort and believe what is said. Asking and not hearing is a step as well."""
        desktop = state.desktops[place]
        sent = state.sent | {message}
        yield state._replace(sent=sent), True
        server, answer = self._carry_out(state.server, message)
        match verdict(answer):
            case Verdict.COMMITTED:
                heard = desktop._replace(move=desktop.move._replace(step=Step.COMMITTED))
            case Verdict.OVER:
                moving = None if desktop.moving == desktop.move.number else desktop.moving
                heard = desktop._replace(move=None, moving=moving)
        yield self._with(state, place, heard, server=server, sent=sent), True

    def _stage(self, state, place, name, stage, step):  # noqa: C901  (an arm for each stage)
        desktop, server = state.desktops[place], state.server
        move = desktop.move
        done = desktop._replace(move=move._replace(step=step))
        turned = desktop._replace(move=move._replace(turned=True))
        match stage:
            case Stage.CHECK if move.way is Way.PULL:
                here = server.location == CLOUD
                seen = done._replace(move=done.move._replace(epoch=server.epoch)) if here else turned
                yield self._with(state, place, seen), True
            case Stage.CHECK | Stage.PACK | Stage.UNPACK | Stage.LAND | Stage.SETTLE:
                yield self._with(state, place, done), True
            case Stage.FREEZE:
                if desktop.moving is None:
                    yield self._with(state, place, desktop._replace(moving=move.number)), True
                else:
                    yield self._with(state, place, done), True
            case Stage.CREATE:
                if desktop.owed:
                    return
                epoch = desktop.epoch if move.way is Way.SEND else move.epoch
                message = ("create", move.number, name, move.way, epoch)
                sent = state.sent | {message}
                yield state._replace(sent=sent), True
                after, answer = self._carry_out(server, message)
                heard = turned if answer is None or verdict(answer) is Verdict.OVER else done
                yield self._with(state, place, heard, server=after, sent=sent), True
            case Stage.UPLOAD | Stage.DOWNLOAD | Stage.VERIFY | Stage.EXPORT:
                known = server.handoffs[move.number]
                status = None if known is None else known.status
                if verdict(status) is Verdict.OVER:
                    yield self._with(state, place, turned), True
                elif stage is Stage.UPLOAD and status is Status.UPLOADING:
                    after = self._become(server, move.number, Status.RESTORING)
                    yield state._replace(server=after), True
                elif stage in {Stage.UPLOAD, Stage.DOWNLOAD} or status is Status.READY:
                    yield self._with(state, place, done), True
            case Stage.COMMIT:
                message = ("commit", move.number)
                sent = state.sent | {message}
                yield state._replace(sent=sent), True
                after, answer = self._carry_out(server, message)
                heard = done if verdict(answer) is Verdict.COMMITTED else turned
                yield self._with(state, place, heard, server=after, sent=sent), True
            case Stage.DEPART | Stage.ACTIVATE:
                here = stage is Stage.ACTIVATE
                epoch = server.handoffs[move.number].epoch + 1  # of the answer that was heard
                moved = Desktop(here, epoch, None, move, desktop.owed)
                yield self._with(state, place, moved if moved != desktop else done), True
            case Stage.TAKE:
                moved = Desktop(True, move.epoch, None, move, desktop.owed)
                yield self._with(state, place, moved if moved != desktop else done), True
            case Stage.TELL:
                yield from self._tell(state, place, name, done)

    def _tell(self, state, place, name, done):
        """One exchange after the other: what became of what was given up, then the takeover, if there is one."""
        server, move = state.server, state.desktops[place].move
        way, became, there = None, None, move.base
        if move.given_up is not None:
            number, way, may_know = move.given_up
        if move.given_up is not None and may_know:
            message = ("abort", number)
            sent = state.sent | {message}
            yield state._replace(sent=sent), True
            server, answer = self._carry_out(server, message)
            became = verdict(answer)
            if server.handoffs[number] is not None:
                there = server.handoffs[number].epoch + (became is Verdict.COMMITTED)
            state = state._replace(server=server, sent=sent)
            yield state, True
        left = tell(move.base, way, became, there)
        if isinstance(left, TakeOver):
            message = ("takeover", name, left.epoch)
            sent = state.sent | {message}
            yield state._replace(sent=sent), True
            server, answer = self._carry_out(server, message)
            state = state._replace(server=server, sent=sent)
            if not answer:
                yield self._with(state, place, Desktop(False, server.epoch, None, None, done.owed)), True
                return
        # Two writes: where it is, then that it is over.
        heeded = state.desktops[place]._replace(epoch=left.epoch)
        yield self._with(state, place, heeded if heeded != state.desktops[place] else done), True

    # The server: every request is one transaction.

    def _carry_out(self, server, message):
        match message:
            case ("create", number, name, way, epoch):
                return self._create(server, number, Handoff(way, name, epoch, first(way.direction)))
            case ("commit", number):
                return self._commit(server, number)
            case ("abort", number):
                known = server.handoffs[number]
                if known is not None and known.status.open:
                    server = self._close(server, number, Status.ABORTED)
                return server, None if known is None else server.handoffs[number].status
            case ("takeover", name, epoch):
                return self._takeover(server, name, epoch)

    def _create(self, server, number, wanted):
        known = server.handoffs[number]
        if known is not None:
            return server, known.status
        if server.location == NOWHERE and wanted.way is Way.SEND:
            server = server._replace(location=wanted.desktop, epoch=wanted.epoch)
        origin = wanted.desktop if wanted.way is Way.SEND else CLOUD
        busy = any(each is not None and each.status.open for each in server.handoffs)
        if busy or server.location != origin or server.epoch != wanted.epoch:
            return server, None
        server = server._replace(runs=False, handoffs=put(server.handoffs, number, wanted))
        return server, wanted.status

    def _commit(self, server, number):
        known = server.handoffs[number]
        if known is None or known.status is not Status.READY or known.epoch != server.epoch:
            return server, None if known is None else known.status
        location = CLOUD if known.way is Way.SEND else known.desktop
        server = self._become(server, number, Status.COMMITTED)
        return server._replace(location=location, epoch=server.epoch + 1), Status.COMMITTED

    def _takeover(self, server, name, epoch):
        if server.location == name and server.epoch == epoch:
            return server, True
        if server.location != CLOUD or server.epoch + 1 != epoch:
            return server, server.location == NOWHERE
        for number, each in enumerate(server.handoffs):
            if each is not None and each.status.open:
                server = self._become(server, number, Status.ABORTED)
        return server._replace(location=name, epoch=epoch, runs=False), True

    def _server_alone(self, server):
        for number, each in enumerate(server.handoffs):
            if each is None or not each.status.open:
                continue
            if each.status in {Status.RESTORING, Status.EXPORTING}:
                yield self._become(server, number, Status.READY)
            if each.status is not Status.READY:  # also while it is uploaded: its VM is made meanwhile
                yield self._close(server, number, Status.FAILED)
            yield self._close(server, number, Status.EXPIRED)
        busy = any(each is not None and each.status.open for each in server.handoffs)
        if server.location == CLOUD and not server.runs and not busy:
            yield server._replace(runs=True)

    def _close(self, server, number, status):
        return self._become(server, number, status)  # what was frozen thaws by itself, as what is activated

    def _become(self, server, number, status):
        handoff = server.handoffs[number]
        return server._replace(handoffs=put(server.handoffs, number, handoff._replace(status=move(handoff.status, status))))


def put(handoffs, number, handoff):
    return (*handoffs[:number], handoff, *handoffs[number + 1 :])


def search(protocol):
    """All states, and for each the numbers of those it is certain to be able to go on to."""
    start = protocol.start()
    numbers, states, onward, came_from = {start: 0}, [start], [], [None]
    queue = deque([start])
    while queue:
        state = queue.popleft()
        certain = []
        for after, sure in protocol.successors(state):
            number = numbers.get(after)
            if number is None:
                number = numbers[after] = len(states)
                states.append(after)
                came_from.append(numbers[state])
                queue.append(after)
                assert len(states) < STATES_MAX
                check(states, came_from, number)
            if sure:
                certain.append(number)
        onward.append(certain)
    return states, onward, came_from


def check(states, came_from, number):
    state = states[number]
    owners = [desktop for desktop in state.desktops if desktop.runs and not desktop.unheard]
    assert len(owners) + state.server.runs <= 1, told(states, came_from, number)
    before = states[came_from[number]]
    assert before.server.epoch <= state.server.epoch, told(states, came_from, number)


def settled(state):
    """Nothing is under way, and exactly one may run: the one whom the server's row names."""
    quiet = all(desktop.move is None and not desktop.owed for desktop in state.desktops)
    running = sum(desktop.runs for desktop in state.desktops) + state.server.runs
    agreed = state.server.runs == (state.server.location == CLOUD)
    return quiet and running == 1 and agreed


def told(states, came_from, number):
    """The shortest way to a state, for whoever has to find out why."""
    path = []
    while number is not None:
        path.append(str(states[number]))
        number = came_from[number]
    return "\n".join(reversed(path))


def prove(protocol):
    """Raises ``AssertionError`` with the way to a state that must not be, or from which nothing good can be reached."""
    states, onward, came_from = search(protocol)
    before = [[] for _ in states]
    for number, certain in enumerate(onward):
        for after in certain:
            before[after].append(number)
    good = deque(number for number, state in enumerate(states) if settled(state))
    assert good
    reached = bytearray(len(states))
    for number in good:
        reached[number] = 1
    while good:
        for number in before[good.popleft()]:
            if not reached[number]:
                reached[number] = 1
                good.append(number)
    stuck = reached.find(0)
    assert stuck < 0, told(states, came_from, stuck)
    return len(states)
