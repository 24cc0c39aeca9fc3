"""Take a repository that was unpacked and compared into a worktree of the user's project, where it goes on.

Into the worktree it was sent from only when nothing there has changed since; otherwise into a new one. It only goes forward:
killed anywhere and repeated, it finishes. What it may replace is written down before it begins, in the folder that git has for
the worktree, so that what somebody does there meanwhile is seen and not overwritten.
"""

import os
import shutil
import tempfile
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from ff_core.contract.handoff import Fingerprint, RepositoryPrint
from ff_core.git.exact import index, join, objects, read, write
from ff_core.git.exact.errors import IndexLocked
from ff_core.git.exact.run import Repository, find
from ff_core.git.exact.state import RepositoryState, StashState
from ff_core.git.exact.words import shown
from ff_core.git.exact.worktree import made_for, make_worktree
from ff_core.handoff.errors import LandingPlaceTaken, WorktreeChanged
from ff_core.handoff.filling import Filling, in_the_way
from ff_core.handoff.fingerprint import differences, stash_sum, take
from ff_core.handoff.include import Judge
from ff_core.handoff.landing_mark import NOTHING, Before, Mark, sum_of
from ff_core.handoff.listing import FOLDER, Node
from ff_core.handoff.look import OnProgress, Part, look
from ff_core.handoff.orders import Land, Landed, Look, Looked, Obstacles, Obstructed, Progress, Survey
from ff_core.handoff.solid import alone_in
from ff_core.handoff.walk import Found, Opened, node, walk

LANDING = "landing"
IN_THE_WAY_SHOWN_MAX = 3
_BLANK = "0" * 64

PLACES = ("worktree", "marked", "objects", "refs", "stash", "settings", "tree", "index", "head", "verified", "done")
"""Where it tells how far it is; tests die there."""
Crash = Callable[[str], None]


@dataclass(frozen=True)
class Side:
    """A repository that comes, with its working tree."""

    place: read.Place
    repository: Repository
    copied: Repository
    state: RepositoryState
    entries: list[index.Entry]
    found: list[Found]
    inside: tuple[bytes, ...]
    """Submodules in it, by their paths."""

    def path_in(self, parent: "Side") -> bytes:
        """Its path below the one it is in."""
        above = parent.place.path
        return self.place.path[len(above) + 1 :] if above else self.place.path


def of_the_worktree(fingerprint: Fingerprint) -> Fingerprint:
    """What of a fingerprint is of the worktree alone, and not of the project, whose other worktrees go on meanwhile."""
    return Fingerprint(
        repositories=tuple(_of_the_worktree(each) for each in fingerprint.repositories), conversations=(), records=_BLANK
    )


def fingerprint_of(order: Look, progress: OnProgress) -> Looked:
    """Of a worktree as it is now; changes nothing. Raises what :func:`ff_core.handoff.look.look` does."""
    with tempfile.TemporaryDirectory(prefix="ff-landing-") as folder:
        parts = _look(order, Path(folder), progress, read_all=True)
        return Looked(fingerprint=_fingerprint([part.print() for part in parts]))


def obstacles(order: Obstacles) -> Obstructed:
    """What did not travel, in the worktree it was sent from, and would be overwritten by what comes. Changes nothing."""
    found: list[bytes] = []
    with tempfile.TemporaryDirectory(prefix="ff-landing-") as folder:
        home = {part.place.path: part for part in _look(order.sent_as, Path(folder), _ignore, read_all=False)}
        for side in _sides(find(order.staging), Path(folder)):
            part = home.get(side.place.path)
            top = order.sent_as.repository / os.fsdecode(side.place.path)
            if part is None and not top.exists():
                continue
            travelled = {} if part is None else part.walked.signatures()
            blocked = in_the_way(side.repository.worktree, top, side.found, travelled, IN_THE_WAY_SHOWN_MAX)
            above = side.place.path + b"/" if side.place.path else b""
            found += [above + path for path in blocked]
    return Obstructed(paths=tuple(shown(path) for path in found[:IN_THE_WAY_SHOWN_MAX]))


def land(order: Land, progress: OnProgress, crash: Crash = lambda _: None) -> Landed:
    """See the module. Raises ``WorktreeChanged`` and ``LandingPlaceTaken``: then decide anew where it goes; else repeat it.

    Other errors are ``HandoffBusy`` and those of the disk and of git.
    """
    beside = order.staging.parent  # what a killed one leaves goes with the handoff
    with alone_in(beside), tempfile.TemporaryDirectory(prefix="ff-landing-", dir=beside) as folder:
        return _Landing(order, Path(folder), progress, crash).run()


class _Landing:
    def __init__(self, order: Land, folder: Path, progress: OnProgress, crash: Crash) -> None:
        self._order, self._folder, self._progress, self._crash = order, folder, progress, crash
        self._targets: dict[bytes, Repository] = {}
        self._aside: list[str] = []
        self._kept: list[str] = []

    def run(self) -> Landed:
        order = self._order
        top = self._target()
        self._crash("worktree")
        sides = _sides(find(order.staging), self._subfolder("coming"))
        mark = Mark.read(top.git_dir, order.purpose)
        if mark is None:
            if not order.fresh and not self._compare():
                return self._landed(top, [])
            mark = self._begun(top)
        self._crash("marked")
        for side in sides:
            self._join(side, sides[side.place.parent] if side.place.parent is not None else None, mark)
        self._drop_submodules(sides, mark)
        told = self._verify(sides)
        self._crash("verified")
        Mark.remove(top.git_dir)
        self._crash("done")
        return self._landed(top, told)

    def _target(self) -> Repository:
        order = self._order
        if not order.fresh:
            return find(order.worktree)
        made = make_worktree(order.project, order.worktree, order.purpose)
        if made is None:
            raise LandingPlaceTaken
        return made

    def _compare(self) -> bool:
        """Whether the worktree is what was sent, and this is to begin; false when all of it is there already.

        Raises ``WorktreeChanged`` when it is neither.
        """
        assert self._order.sent_as is not None  # noqa: S101  (of one that lands where it was sent from)
        parts = _look(self._order.sent_as, self._subfolder("before"), self._progress, read_all=True)
        now = _fingerprint([part.print() for part in parts])
        told = differences(of_the_worktree(self._order.sent), of_the_worktree(now)) if self._order.sent is not None else ("",)
        if not told:
            self._parts = parts
            return True
        if not differences(of_the_worktree(self._order.arrived), of_the_worktree(now)):
            return False
        raise WorktreeChanged(f"the worktree here has changed since it was sent ({' '.join(told)})")

    def _begun(self, top: Repository) -> Mark:
        """Write down what may be replaced."""
        before = dict[bytes, Before]()
        if not self._order.fresh:
            before = {part.place.path: _before(part) for part in self._parts}
        own = self._order.sent.repositories[0] if self._order.sent is not None else None
        mark = Mark(
            purpose=self._order.purpose,
            before=before,
            stash=tuple(read.stash(top)),
            replaces_stash=own is not None and own.stash == stash_sum(top),
        )
        mark.write(top.git_dir)
        return mark

    def _join(self, side: Side, parent: Side | None, mark: Mark) -> None:
        """One repository; those it is in are there already."""
        top = parent is None
        target = self._order_target() if parent is None else self._submodule(side, parent)
        self._targets[side.place.path] = target
        before = mark.before.get(side.place.path, NOTHING)
        if (target.git_dir / "index.lock").exists():
            raise IndexLocked(f"Another git command works in {target.worktree}; it is tried again.")
        branch = self._branch(side, top=top)
        join.take_objects(side.copied, target, objects.tips(side.state, side.entries, side.copied))
        join.add_shallow(target, side.state.shallow)
        self._at("objects", top=top)
        self._refs(side, target, before, branch, top=top)
        self._at("refs", top=top)
        self._stash(side, target, mark, before, top=top)
        self._at("stash", top=top)
        self._settings(side, target, branch)
        self._at("settings", top=top)
        self._fill(side, target, before)
        self._at("tree", top=top)
        self._index(side, target, before)
        self._at("index", top=top)
        join.set_head(target, branch, side.state.head)
        self._at("head", top=top)

    def _refs(self, side: Side, target: Repository, before: Before, branch: bytes | None, *, top: bool) -> None:
        here = join.all_refs(target)
        # In a submodule all refs are the workspace's; of a project only the branch that it was on.
        movable: Mapping[bytes, str | None] = before.refs
        if top:
            movable = {} if before.branch is None else {before.branch: before.head}
        if branch is not None and side.state.head is not None:
            present = here.get(branch)
            if present not in {None, side.state.head} and movable.get(branch) != present:
                raise WorktreeChanged(f"the branch {shown(branch)} has moved meanwhile")
        coming = [ref for ref in side.state.refs if ref.name != side.state.branch]
        plan = join.plan_refs(coming, here, movable=movable, aside=self._order.aside.encode())
        join.set_refs(target, plan)
        join.follow_remotes(target, side.state.refs, here)
        self._aside += [f"{shown(name)} is {shown(kept)}" for name, kept, _ in plan.aside]

    def _stash(self, side: Side, target: Repository, mark: Mark, before: Before, *, top: bool) -> None:
        known: tuple[StashState, ...] = mark.stash if top else before.stash
        replaces = mark.replaces_stash if top else True
        join.set_stash(target, join.merged_stash(known, read.stash(target), side.state.stash, replaces=replaces))

    def _settings(self, side: Side, target: Repository, branch: bytes | None) -> None:
        heads = {name.removeprefix(join.HEADS) for name in join.all_refs(target) if name.startswith(join.HEADS)}
        renamed = dict[bytes, bytes]()
        if branch is not None:
            own = branch.removeprefix(join.HEADS)
            heads.add(own)
            if side.state.branch is not None and side.state.branch != branch:
                renamed = {side.state.branch.removeprefix(join.HEADS): own}
        join.join_settings(target, list(side.state.settings), branches=heads, renamed=renamed)
        join.set_sparse(target, list(side.state.settings), side.state.sparse)
        state = read.state(target, side.place, read.Wanted(refs="branch", have=(), whole=False))
        join.add_lines(target, "exclude", side.state.exclude, state.exclude)
        join.add_lines(target, "attributes", side.state.attributes, state.attributes)

    def _fill(self, side: Side, target: Repository, before: Before) -> None:
        here, _ = read.entries(read.snapshot(target, self._subfolder("index")))
        clean = {(entry.path, entry.mode, entry.oid) for entry in here if entry.clean}
        same = {entry.path for entry in side.entries if entry.clean and (entry.path, entry.mode, entry.oid) in clean}
        filling = Filling(
            side.repository.worktree,
            target.worktree,
            tag=self._order.purpose.replace("-", ""),
            before=before.files,
            equal=same.__contains__,
            keep=before.ignored.__contains__,
        )
        folders = [Found(path, FOLDER, os.lstat(side.repository.worktree / os.fsdecode(path))) for path in side.inside]
        filling.run([*side.found, *folders], self._tell)

    def _tell(self, done: int, total: int) -> None:
        self._progress(Progress(step=LANDING, done_bytes=done, total_bytes=total))

    def _index(self, side: Side, target: Repository, before: Before) -> None:
        place = target.git_dir / "index"
        there, _ = read.entries(read.snapshot(target, self._subfolder("index")))
        same = [entry.line(clean=False) for entry in there] == [entry.line(clean=False) for entry in side.entries]
        if sum_of(place) != before.index and not same:
            raise WorktreeChanged("something was staged here meanwhile")

        def stat_of(entry: index.Entry) -> os.stat_result | None:
            try:
                return os.lstat(os.path.join(os.fsencode(target.worktree), entry.path)) if entry.clean else None  # noqa: PTH118  (bytes)
            except OSError:
                return None

        write.set_index(target, side.entries, stat_of)

    def _branch(self, side: Side, *, top: bool) -> bytes | None:
        """The branch that HEAD will be on."""
        if side.state.branch is None or not top or self._order.branch is None:
            return side.state.branch
        return join.HEADS + os.fsencode(self._order.branch)

    def _submodule(self, side: Side, parent: Side) -> Repository:
        """The repository that a submodule is put into; made when there is none."""
        above = self._targets[parent.place.path]
        worktree = above.worktree / os.fsdecode(side.path_in(parent))
        if (worktree / ".git").exists():
            return find(worktree)
        if side.place.module is None:
            return write.begin(worktree, worktree / ".git", side.state, None)
        git_dir = above.git_dir / "modules" / os.fsdecode(side.place.module)
        if not git_dir.exists():
            partial = git_dir.with_name(f"{git_dir.name}.partial")
            partial.parent.mkdir(parents=True, exist_ok=True)
            shutil.rmtree(partial, ignore_errors=True)
            write.begin(worktree, partial, side.state, None)
            partial.rename(git_dir)
        link = b"gitdir: %s\n" % os.fsencode(os.path.relpath(git_dir, worktree))
        (worktree / ".git.partial").write_bytes(link)
        (worktree / ".git.partial").replace(worktree / ".git")
        return find(worktree)

    def _drop_submodules(self, sides: list[Side], mark: Mark) -> None:
        """Those that were here and are no more: their files go, their repositories stay among the modules."""
        there = {side.place.path for side in sides}
        top = self._order_target().worktree
        for path in sorted(mark.before.keys() - there, reverse=True):
            worktree = top / os.fsdecode(path)
            link = worktree / ".git"
            if link.is_dir():
                self._kept.append(shown(path))
                continue
            before = mark.before[path]
            Filling(
                worktree,
                worktree,
                tag=self._order.purpose.replace("-", ""),
                before={} if not worktree.is_dir() else before.files,
                equal=lambda _: True,
                keep=before.ignored.__contains__,
            ).run([])
            link.unlink(missing_ok=True)
            if worktree.is_dir() and not os.listdir(worktree):  # noqa: PTH208
                worktree.rmdir()

    def _verify(self, sides: list[Side]) -> list[str]:
        """Look at what there is now; in what it differs from what came."""
        found = [self._print(side) for side in sides]
        renamed = self._order.branch is not None and sides[0].state.branch is not None
        arrived = of_the_worktree(self._order.arrived)
        if renamed:
            arrived, found = _without_branch(arrived), [found[0].model_copy(update={"branch": None}), *found[1:]]
        return list(differences(arrived, of_the_worktree(_fingerprint(found))))

    def _print(self, side: Side) -> RepositoryPrint:
        target = self._targets[side.place.path]
        entries, _ = read.entries(read.snapshot(target, self._subfolder("index")))
        came = frozenset(each.path for each in side.found)
        judge = Judge(
            tracked=frozenset(entry.path for entry in entries if entry.mode != index.GITLINK),
            submodules=frozenset(side.inside),
            ignored=read.ignored(target),
            included=came,
            said=came,
            credentials=True,
        )
        names = [ref.name for ref in side.state.refs]
        nodes = _nodes(target, walk(target.worktree, judge).found)
        return take(target, side.place.path, entries=entries, nodes=nodes, refs=names, status=b"")

    def _order_target(self) -> Repository:
        if b"" not in self._targets:
            place = made_for(self._order.project, self._order.purpose) if self._order.fresh else self._order.worktree
            self._targets[b""] = find(place or self._order.worktree)
        return self._targets[b""]

    def _landed(self, top: Repository, told: Iterable[str]) -> Landed:
        return Landed(worktree=str(top.worktree), differences=tuple(told), aside=tuple(self._aside), kept=tuple(self._kept))

    def _subfolder(self, name: str) -> Path:
        folder = self._folder / name
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        return folder

    def _at(self, place: str, *, top: bool) -> None:
        if top:
            self._crash(place)


def _sides(top: Repository, folder: Path) -> list[Side]:
    """All repositories of what was unpacked, the workspace's own first."""
    found: list[Side] = []
    waiting = [(read.Place(), top)]
    while waiting:
        place, repository = waiting.pop(0)
        own = folder / f"side-{len(found)}"
        own.mkdir()
        copied = read.snapshot(repository, own)
        entries, _ = read.entries(copied)
        inside = read.submodules(repository, entries)
        nothing = frozenset[bytes]()
        judge = Judge(
            tracked=frozenset(entry.path for entry in entries if entry.mode != index.GITLINK),
            submodules=frozenset(each.path for each in inside),
            ignored=nothing,
            included=nothing,
            said=nothing,
            credentials=True,
        )
        wanted = read.Wanted(refs="all" if place.parent is None else "everything", have=(), whole=True)
        side = Side(
            place=place,
            repository=repository,
            copied=copied,
            state=read.state(repository, place, wanted),
            entries=entries,
            found=walk(repository.worktree, judge).found,
            inside=tuple(each.path for each in inside),
        )
        number = len(found)
        found.append(side)
        above = place.path + b"/" if place.path else b""
        waiting += [(read.Place(above + each.path, number, each.module), each.repository) for each in inside]
    return found


def _look(order: Survey, folder: Path, progress: OnProgress, *, read_all: bool) -> list[Part]:
    own = folder / "look"
    shutil.rmtree(own, ignore_errors=True)
    own.mkdir()
    return look(order, own, progress, read_all=read_all)


def _before(part: Part) -> Before:
    branch = part.state.branch
    ignored = [
        each.path for each in part.walked.found if each.path in part.judge.included and each.path not in part.judge.tracked
    ]
    return Before(
        files=part.walked.signatures(),
        ignored=frozenset(path for path in ignored if path in part.judge.ignored or _is_below(path, part.judge.ignored)),
        index=sum_of(part.repository.git_dir / "index"),
        branch=branch,
        head=part.state.head,
        refs=join.all_refs(part.repository) if part.place.parent is not None else {},
        stash=tuple(part.state.stash) if part.place.parent is not None else (),
    )


def _is_below(path: bytes, folders: frozenset[bytes]) -> bool:
    while path := path.rpartition(b"/")[0]:
        if path + b"/" in folders:
            return True
    return False


def _nodes(repository: Repository, found: list[Found]) -> list[Node]:
    with Opened(repository.worktree) as opened:
        return [
            node(opened, each, repository.object_format, lambda *_: None) for each in sorted(found, key=lambda each: each.path)
        ]


def _fingerprint(repositories: Iterable[RepositoryPrint]) -> Fingerprint:
    return Fingerprint(repositories=tuple(repositories), conversations=(), records=_BLANK)


def _of_the_worktree(each: RepositoryPrint) -> RepositoryPrint:
    own = {"status": _BLANK, "upstream": None, "refs": _BLANK, "stash": _BLANK}
    return each.model_copy(update=own)


def _without_branch(fingerprint: Fingerprint) -> Fingerprint:
    own, *others = fingerprint.repositories
    return fingerprint.model_copy(update={"repositories": (own.model_copy(update={"branch": None}), *others)})


def _ignore(_: Progress) -> None:
    return None
