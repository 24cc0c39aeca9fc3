"""Look at a workspace's repositories as if they were to be packed: what they are, what travels, what stays, what forbids it."""

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from ff_core.contract.handoff import LEFT_BEHIND_SHOWN_MAX, Contents, LeftBehind, RepositoryPrint
from ff_core.errors import FFError
from ff_core.git.exact import index, objects, read, refuse
from ff_core.git.exact.errors import RepositoryUnsupported
from ff_core.git.exact.run import Repository, find
from ff_core.git.exact.state import RepositoryState
from ff_core.git.exact.words import shown
from ff_core.handoff.errors import TrackedFileUnreadable
from ff_core.handoff.fingerprint import NO_STATUS, Status, mask, take
from ff_core.handoff.include import WORKTREE_INCLUDE, Judge, Reason, parents
from ff_core.handoff.listing import FILE, LINK, NO_OID, Node, sort
from ff_core.handoff.names import fault, is_git_folder
from ff_core.handoff.orders import Progress, Survey
from ff_core.handoff.walk import Found, Left, Opened, Walked, node, walk

INCLUDE_BYTES_MAX = 64 << 10
INCLUDED_SHOWN_MAX = 200
REPOSITORIES_MAX = 1_000
PATH_CHARS_MAX = 300
READING = "reading"
_TELL_EVERY_BYTES = 32 << 20

NO_CONTENTS = Contents(commits=0, files=0, file_bytes=0, deleted=0, stashes=0, submodules=0, sessions=0, queued=0, events=0)

OnProgress = Callable[[Progress], None]


@dataclass
class Part:
    """One repository as it was seen."""

    place: read.Place
    repository: Repository
    copied: Repository
    state: RepositoryState
    entries: list[index.Entry]
    judge: Judge
    walked: Walked
    nodes: list[Node]
    left: list[Left]
    refusals: list[FFError]
    have: list[str] = field(default_factory=list)
    status: Status = NO_STATUS
    index_stat: tuple[int, ...] = ()
    """Of its index file, before it was read."""

    @property
    def carried(self) -> list[Node]:
        """Files and links whose content travels by itself."""
        return [each for each in self.nodes if each.carried and each.kind in {FILE, LINK}]

    @property
    def deleted(self) -> int:
        """Tracked files that are not in the working tree, and should be."""
        there = {each.path for each in self.nodes}
        return sum(
            1 for entry in self.entries if entry.path not in there and not entry.skip_worktree and entry.mode != index.GITLINK
        )

    def print(self) -> RepositoryPrint:
        """Its fingerprint."""
        return take(
            self.repository,
            self.place.path,
            entries=self.entries,
            nodes=self.nodes,
            refs=[ref.name for ref in self.state.refs],
            status=self.status.text,
        )


def look(order: Survey, folder: Path, progress: OnProgress, *, read_all: bool) -> list[Part]:
    """All repositories, the workspace's own first; nothing is changed. ``folder`` is empty and for files of ours.

    Without ``read_all`` only files are read of which git sees that they changed, and parts have neither a status nor a whole
    fingerprint.
    Raises ``RepositoryUnsupported``, ``ChangedWhilePacking``, ``TreeTooDeep``, and what git says.
    """
    parts: list[Part] = []
    waiting = [(read.Place(), find(order.repository))]
    reading = _Reading(progress, read_all=read_all)
    while waiting:
        place, repository = waiting.pop(0)
        own = folder / str(len(parts))
        own.mkdir()
        part, inside = _look(order, place, repository, own, reading)
        parts.append(part)
        number = len(parts) - 1
        above = place.path + b"/" if place.path else b""
        waiting += [(read.Place(above + each.path, number, each.module), each.repository) for each in inside]
        if len(parts) + len(waiting) > REPOSITORIES_MAX:
            raise RepositoryUnsupported(f"There are more than {REPOSITORIES_MAX} submodules in this workspace.")
    if read_all:
        _look_at_status(parts)
    return parts


def is_as_before(part: Part, folder: Path) -> bool:
    """Whether nothing has changed in a repository since it was looked at, as far as times of files tell."""
    state, repository = part.state, part.repository
    here = read.heading(repository, read.settings(repository))
    return (
        (here.head, here.branch, here.upstream) == (state.head, state.branch, state.upstream)
        and read.values(repository, (ref.name for ref in state.refs)) == {ref.name: ref.oid for ref in state.refs}
        and (read.stash(repository) == state.stash or not state.stash)
        and _same_index(part, folder)
        and walk(repository.worktree, _judge_again(part)).signatures() == part.walked.signatures()
    )


def refusals(parts: list[Part]) -> list[FFError]:
    """What forbids the move; the first of each kind comes first."""
    return [error for part in parts for error in part.refusals]


def credentials(parts: list[Part]) -> tuple[str, ...]:
    """What looks like a credential and stays, because nobody said yes."""
    return tuple(_shown(part, left.path) for part, left in _left(parts) if left.reason is Reason.CREDENTIAL)


def contents(parts: list[Part], *, commits: int, sessions: int) -> Contents:
    """In numbers. Queued prompts and events are for others to count."""
    left = list(_left(parts))
    included = [(part, path) for part in parts for path in _included(part)]
    carried = [each for part in parts for each in part.carried]
    return Contents(
        commits=commits,
        files=len(carried),
        file_bytes=sum(each.size for each in carried),
        deleted=sum(part.deleted for part in parts),
        stashes=sum(len(part.state.stash) for part in parts),
        submodules=len(parts) - 1,
        sessions=sessions,
        queued=0,
        events=0,
        included=tuple(_shown(part, path) for part, path in included[:INCLUDED_SHOWN_MAX]),
        whole=parts[0].state.whole,
        left_behind=tuple(
            LeftBehind(path=_shown(part, each.path), reason=each.reason.value, size=each.size)
            for part, each in left[:LEFT_BEHIND_SHOWN_MAX]
        ),
        left_behind_count=len(left),
    )


def count_commits(parts: list[Part]) -> int:
    """How many the receiver lacks."""
    return sum(
        objects.count_commits(part.repository, tips, part.have)
        for part in parts
        if (tips := objects.tips(part.state, (), part.copied))
    )


def _look(
    order: Survey, place: read.Place, repository: Repository, folder: Path, reading: "_Reading"
) -> tuple[Part, list[read.Submodule]]:
    index_stat = _index_stat(repository)
    own = place.parent is None
    wanted = read.Wanted(refs=order.refs if own else "everything", have=order.have if own else (), whole=order.whole or not own)
    copied = read.snapshot(repository, folder)
    entries, unmerged = read.entries(copied)
    state = read.state(repository, place, wanted)
    known = read.settings(repository)
    inside = read.submodules(repository, entries)
    judge = _judge(order, repository, entries, inside, folder)
    walked = walk(repository.worktree, judge)
    nodes, left = reading.nodes(repository, walked, entries)
    where = f" in the submodule {shown(place.path)}" if not own else ""
    return Part(
        place=place,
        repository=repository,
        copied=copied,
        state=state,
        entries=entries,
        judge=judge,
        walked=walked,
        nodes=nodes,
        left=left,
        refusals=[
            *refuse.refusals(repository, where, unmerged=unmerged, whole=wanted.whole, known=known),
            *refuse.filtered(repository, entries, known),
            *_unreadable(entries, left),
            *_unnameable(entries),
        ],
        have=[] if wanted.whole else read.known_commits(repository, wanted.have),
        index_stat=index_stat,
    ), inside


class _Reading:
    """Reads files, and tells how far it is."""

    def __init__(self, progress: OnProgress, *, read_all: bool) -> None:
        self._progress = progress
        self._read_all = read_all
        self._done = self._told = 0

    def nodes(self, repository: Repository, walked: Walked, entries: list[index.Entry]) -> tuple[list[Node], list[Left]]:
        kinds = {index.FILE: FILE, index.EXECUTABLE: FILE, index.LINK: LINK}
        known = {entry.path: (kinds.get(entry.mode), entry.oid) for entry in entries if not entry.intent_to_add}
        clean = {entry.path for entry in entries if entry.clean}

        def index_oid(path: bytes, kind: bytes) -> str | None:
            there, oid = known.get(path, (None, ""))
            return oid if there == kind else None

        nodes: list[Node] = []
        left = list(walked.left)
        with Opened(repository.worktree) as opened:
            for found in sorted(walked.found, key=lambda each: each.path):
                try:
                    nodes.append(
                        self._glanced_at(found, index_oid(found.path, FILE), clean=found.path in clean)
                        or self._node(opened, found, repository.object_format, index_oid)
                    )
                except PermissionError:
                    left.append(Left(found.path, Reason.UNREADABLE, found.stat.st_size))
        return sort(nodes), sorted(left, key=lambda each: each.path)

    def _glanced_at(self, found: Found, oid: str | None, *, clean: bool) -> Node | None:
        """What can be told of a file without reading it, when that is enough."""
        if self._read_all or found.kind != FILE or (oid is not None and not clean):
            return None
        return Node(found.path, FILE, 0, 0, found.stat.st_size, oid or NO_OID, carried=oid is None)

    def _node(self, opened: Opened, found: Found, object_format: str, index_oid: Callable[[bytes, bytes], str | None]) -> Node:
        self._done += found.stat.st_size if found.kind == FILE else 0
        if self._done - self._told > _TELL_EVERY_BYTES:
            self._told = self._done
            self._progress(Progress(step=READING, done_bytes=self._done))
        return node(opened, found, object_format, index_oid)


def _look_at_status(parts: list[Part]) -> None:
    """Of each repository after those that are in it: of them it says something too."""
    for number in range(len(parts) - 1, -1, -1):
        part = parts[number]
        above = part.place.path + b"/" if part.place.path else b""
        inside = {each.place.path.removeprefix(above): each.status for each in parts if each.place.parent == number}
        left = frozenset(each.path for each in part.left if each.reason is not Reason.IGNORED)
        part.status = mask(read.status(part.repository), left, inside)


def _judge(
    order: Survey, repository: Repository, entries: list[index.Entry], inside: list[read.Submodule], folder: Path
) -> Judge:
    said = "".join(f"{line}\n" for line in order.include).encode()
    asked = read.matching(repository, said, folder)
    return Judge(
        tracked=frozenset(entry.path for entry in entries if entry.mode != index.GITLINK),
        submodules=frozenset(each.path for each in inside),
        ignored=read.ignored(repository),
        included=asked | read.matching(repository, _worktree_include(repository), folder),
        said=asked,
        credentials=order.credentials,
    )


def _judge_again(part: Part) -> Judge:
    """With what git ignores now: builds and servers go on writing such files."""
    judge = part.judge
    return Judge(
        tracked=judge.tracked,
        submodules=judge.submodules,
        ignored=read.ignored(part.repository),
        included=judge.included,
        said=judge.said,
        credentials=judge.credentials,
    )


def _worktree_include(repository: Repository) -> bytes:
    with Opened(repository.worktree) as opened:
        try:
            with opened.file(WORKTREE_INCLUDE.encode()) as fd:
                return os.read(fd, INCLUDE_BYTES_MAX)
        except (FFError, OSError):
            return b""


def _index_stat(repository: Repository) -> tuple[int, ...]:
    try:
        seen = (repository.git_dir / "index").stat()
    except FileNotFoundError:
        return ()
    return (seen.st_size, seen.st_mtime_ns, seen.st_ctime_ns, seen.st_ino)


def _same_index(part: Part, folder: Path) -> bool:
    """Also when git, asked by an editor, has written it anew meanwhile."""
    if _index_stat(part.repository) == part.index_stat:
        return True
    own = folder / "again"
    own.mkdir(exist_ok=True)
    entries, unmerged = read.entries(read.snapshot(part.repository, own))
    return not unmerged and [each.line(clean=False) for each in entries] == [each.line(clean=False) for each in part.entries]


def _unreadable(entries: list[index.Entry], left: list[Left]) -> Iterator[FFError]:
    """What git tracks can't be left behind."""
    gone = {each.path: each.reason for each in left}
    for entry in entries:
        places = (entry.path, *(parent + b"/" for parent in parents(entry.path)))
        reason = next((gone[place] for place in places if place in gone), None)
        if reason is not None and reason is not Reason.IGNORED and entry.mode != index.GITLINK:
            words = {
                Reason.UNREADABLE: "can't be read",
                Reason.OTHER_FILESYSTEM: "is on another file system",
                Reason.SPECIAL: "is a pipe, socket or device by now",
            }.get(reason, "can't travel")
            yield TrackedFileUnreadable(f"Git tracks {shown(entry.path)}, but it {words}. Put that right, then try again.")
            return


def _unnameable(entries: list[index.Entry]) -> Iterator[FFError]:
    for entry in entries:
        why = fault(entry.path)
        if why is None and any(map(is_git_folder, entry.path.split(b"/"))):
            why = "is git's own"
        if why is not None:
            yield RepositoryUnsupported(f"Git tracks {shown(entry.path)}, whose name can't travel: it {why}. Rename it.")
            return


def _left(parts: list[Part]) -> Iterator[tuple[Part, Left]]:
    """Those that are no news last: what git ignores."""
    for ignored in (False, True):
        for part in parts:
            yield from ((part, each) for each in part.left if (each.reason is Reason.IGNORED) == ignored)


def _included(part: Part) -> Iterator[bytes]:
    judge = part.judge
    for each in part.nodes:
        is_ignored = each.path in judge.ignored or any(parent + b"/" in judge.ignored for parent in parents(each.path))
        if is_ignored and each.path not in judge.tracked:
            yield each.path


def _shown(part: Part, path: bytes) -> str:
    above = part.place.path + b"/" if part.place.path else b""
    return shown(above + path)[:PATH_CHARS_MAX]
