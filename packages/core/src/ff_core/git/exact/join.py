"""Bring the state of one repository into another that somebody works with: what is there stays, unless it is said what may go.

Everything may be repeated, whatever was interrupted before. As in :mod:`ff_core.git.exact.write` what comes was made elsewhere.
"""

import os
import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

from ff_core.git.exact import config, index
from ff_core.git.exact.errors import BaseMissing
from ff_core.git.exact.objects import pack, receive
from ff_core.git.exact.read import STASH, known_commits, settings, stash
from ff_core.git.exact.run import Repository
from ff_core.git.exact.state import RefState, StashState

HEADS, TAGS, REMOTES = b"refs/heads/", b"refs/tags/", b"refs/remotes/"
REASON = "factory-factory: pulled from the cloud"
_OF_BRANCH = re.compile(rb"branch\.(.+)\.([a-z]+)\Z", re.DOTALL)
_QUIETLY = ("-c", "core.logAllRefUpdates=false")


@dataclass(frozen=True)
class RefPlan:
    """What is done about refs that come."""

    written: tuple[tuple[bytes, str], ...]
    """Made, or moved on."""
    aside: tuple[tuple[bytes, bytes, str], ...]
    """Not the same as here: name, the name under which it is kept instead, object."""


def take_objects(source: Repository, target: Repository, wanted: Iterable[str]) -> None:
    """Give ``target`` all objects that ``wanted`` of ``source`` lead to. Raises ``BaseMissing``, ``StateBroken``."""
    wanted = list(dict.fromkeys(wanted))
    if not wanted:
        return
    listed = target.out("for-each-ref", "--format=%(objecttype) %(objectname) %(*objecttype) %(*objectname)")
    words = listed.decode().split()
    here = [oid for kind, oid in pairwise(words) if kind == "commit"]
    shallow = target.common_dir / "shallow"
    have = [] if shallow.exists() else known_commits(source, dict.fromkeys(here))
    with pack(source, wanted, have) as pieces:
        receive(target, iter(pieces))


def all_refs(repository: Repository) -> dict[bytes, str]:
    """All refs with their objects."""
    listed = repository.out("for-each-ref", "--format=%(objectname) %(refname)")
    return {name: oid.decode() for oid, _, name in (line.partition(b" ") for line in listed.split(b"\n") if line)}


def plan_refs(
    coming: Iterable[RefState], here: Mapping[bytes, str], *, movable: Mapping[bytes, str | None], aside: bytes
) -> RefPlan:
    """Branches and tags that come: made where there is none of the name, moved where ``here`` is what ``movable`` says. Pure.

    Whatever else differs is kept below ``refs/ff/aside``. What is known of remotes is left to :func:`follow_remotes`.
    """
    written: list[tuple[bytes, str]] = []
    beside: list[tuple[bytes, bytes, str]] = []
    folders = {parent for name in here for parent in _parents(name)}
    for ref in coming:
        if ref.oid is None or not ref.name.startswith((HEADS, TAGS)):
            continue
        blocked = ref.name in folders or any(parent in here for parent in _parents(ref.name))
        present = here.get(ref.name)
        if present == ref.oid:
            continue
        if (present is None and not blocked) or (present is not None and movable.get(ref.name) == present):
            written.append((ref.name, ref.oid))
        else:
            beside.append((ref.name, b"refs/ff/%s/%s" % (aside, ref.name.removeprefix(b"refs/")), ref.oid))
    return RefPlan(tuple(written), tuple(beside))


def set_refs(repository: Repository, plan: RefPlan) -> None:
    """Write them, each with its reason in the log."""
    orders = [*plan.written, *((kept, oid) for _, kept, oid in plan.aside)]
    stdin = b"".join(b"update %s\0%s\0\0" % (name, oid.encode()) for name, oid in orders)
    if stdin:
        repository.out("update-ref", "-m", REASON, "--stdin", "-z", stdin=stdin)


def follow_remotes(repository: Repository, coming: Iterable[RefState], here: Mapping[bytes, str]) -> None:
    """What is known of remotes goes on to what the other side has seen of them, never back."""
    for ref in coming:
        if ref.oid is None or not ref.name.startswith(REMOTES) or here.get(ref.name) == ref.oid:
            continue
        known = here.get(ref.name)
        if known is None or repository.maybe("merge-base", "--is-ancestor", known, ref.oid) is not None:
            repository.out("update-ref", "-m", REASON, os.fsdecode(ref.name), ref.oid)


def merged_stash(
    before: Sequence[StashState], now: Sequence[StashState], coming: Sequence[StashState], *, replaces: bool
) -> list[StashState]:
    """The stash afterwards, the oldest first. Pure.

    ``before``: what it was when this began, and ``now`` what it is by now. ``replaces``: it was what the other side began with,
    and becomes what the other side has; otherwise nothing is dropped, and what is not known yet comes on top.
    """
    result = list(coming) if replaces else _joined(before, coming)
    ours = {each.commit for each in (*before, *coming)}
    return _joined(result, [each for each in now if each.commit not in ours])


def set_stash(repository: Repository, entries: Sequence[StashState]) -> None:
    """Make the stash these entries, of which the objects are there."""
    if list(entries) == list(stash(repository)):
        return
    if not entries:
        repository.out("update-ref", "-d", os.fsdecode(STASH))
        return
    # First the ref, which may add a line to the log; then the log, at once.
    repository.out(*_QUIETLY, "update-ref", os.fsdecode(STASH), entries[-1].commit)
    log = repository.common_dir / "logs" / os.fsdecode(STASH)
    log.parent.mkdir(parents=True, exist_ok=True)
    partial = log.with_name("stash.partial")
    before = "0" * 2 * index.HASH_BYTES[repository.object_format]
    with partial.open("wb") as file:
        for entry in entries:
            file.write(
                b"%s %s %s %s\t%s\n" % (before.encode(), entry.commit.encode(), entry.who, entry.when.encode(), entry.message)
            )
            before = entry.commit
    partial.replace(log)


def set_head(repository: Repository, branch: bytes | None, head: str | None) -> None:
    """Put HEAD on a branch, which goes to ``head`` (None: it begins with the first commit), or on a commit by itself."""
    if branch is None:
        if head is None:
            raise BaseMissing
        repository.out("update-ref", "-m", REASON, "--no-deref", "HEAD", head)
        return
    if head is not None:
        repository.out("update-ref", "-m", REASON, os.fsdecode(branch), head)
    repository.out("symbolic-ref", "-m", REASON, "HEAD", os.fsdecode(branch))


def join_settings(
    repository: Repository, coming: config.Settings, *, branches: Collection[bytes], renamed: Mapping[bytes, bytes]
) -> None:
    """What branches follow, for those that were made here; remotes and submodules that are not known here. Nothing else.

    ``renamed``: branches that have another name here.
    """
    here = settings(repository)
    known, remotes = config.last(here), config.remotes(here)
    seen: set[bytes] = set()
    for name, value in (*config.of_remotes(coming, remotes), *_of_branches(coming, branches, renamed), *_of_submodules(coming)):
        if name in known and name not in seen:
            continue
        words = ("--add",) if name in seen else ("--replace-all",)
        seen.add(name)
        repository.out("config", *words, os.fsdecode(name), os.fsdecode(value))


def set_sparse(repository: Repository, coming: config.Settings, patterns: bytes | None) -> None:
    """Which part of the tree is checked out here, in this worktree alone."""
    wanted = {name: config.last(coming).get(name.encode(), b"false").lower() for name in config.SPARSE}
    here = config.last(settings(repository))
    differ = {name: value for name, value in wanted.items() if here.get(name.encode(), b"false").lower() != value}
    if differ and repository.git_dir != repository.common_dir:
        _own_settings(repository, here)
    for name, value in differ.items():
        scope = ("--worktree",) if repository.git_dir != repository.common_dir else ()
        repository.out("config", *scope, name, value.decode())
    place = repository.git_dir / "info" / "sparse-checkout"
    if patterns is None:
        return
    place.parent.mkdir(exist_ok=True)
    _replace(place, patterns)


def add_lines(repository: Repository, name: str, coming: bytes, known: bytes) -> None:
    """Add what is new to a file in ``info``, such as ``exclude``; nothing is removed from it."""
    there = set(known.split(b"\n"))
    new = [line for line in coming.split(b"\n") if line and line not in there]
    if not new:
        return
    place = repository.common_dir / "info" / name
    place.parent.mkdir(exist_ok=True)
    own = place.read_bytes() if place.exists() else b""
    _replace(place, own + (b"\n" if own and not own.endswith(b"\n") else b"") + b"".join(line + b"\n" for line in new))


def add_shallow(repository: Repository, coming: Iterable[str]) -> None:
    """Know where history ends that came without its beginning."""
    place = repository.common_dir / "shallow"
    known = set(place.read_text().split()) if place.exists() else set()
    new = [oid for oid in coming if oid not in known and _ends(repository, oid)]
    if new:
        _replace(place, "".join(f"{oid}\n" for oid in sorted({*known, *new})).encode())


def _ends(repository: Repository, commit: str) -> bool:
    """Whether a commit's parents are not here."""
    text = repository.maybe("cat-file", "commit", commit) or b""
    head = text.partition(b"\n\n")[0].split(b"\n")
    parents = [line.removeprefix(b"parent ").decode() for line in head if line.startswith(b"parent ")]
    return len(known_commits(repository, parents)) < len(parents)


def _own_settings(repository: Repository, here: Mapping[bytes, bytes]) -> None:
    """Let each worktree have settings of its own, as ``git sparse-checkout`` does."""
    if here.get(b"extensions.worktreeconfig", b"").lower() == b"true":
        return
    main = repository.common_dir / "config.worktree"
    for name in ("core.worktree", "core.bare"):
        value = here.get(name.encode())
        # What is said of the main working tree must not be said of all of them.
        if value is not None and not (name == "core.bare" and value == b"false"):
            repository.out("config", "--file", str(main), name, os.fsdecode(value))
            repository.out("config", "--file", str(repository.common_dir / "config"), "--unset-all", name)
    repository.out("config", "--file", str(repository.common_dir / "config"), "extensions.worktreeConfig", "true")


def _of_branches(coming: config.Settings, branches: Collection[bytes], renamed: Mapping[bytes, bytes]) -> config.Settings:
    found: config.Settings = []
    for name, value in coming:
        of_branch = _OF_BRANCH.match(name)
        if of_branch is not None:
            branch = renamed.get(of_branch[1], of_branch[1])
            if branch in branches:
                found.append((b"branch.%s.%s" % (branch, of_branch[2]), value))
    return found


def _of_submodules(coming: config.Settings) -> config.Settings:
    return [(name, value) for name, value in coming if name.startswith(b"submodule.")]


def _joined(first: Sequence[StashState], second: Sequence[StashState]) -> list[StashState]:
    known = {each.commit for each in first}
    return [*first, *(each for each in second if each.commit not in known)]


def _parents(name: bytes) -> Iterable[bytes]:
    while (name := name.rpartition(b"/")[0]) and name != b"refs":
        yield name


def _replace(place: Path, content: bytes) -> None:
    partial = place.with_name(f"{place.name}.partial")
    partial.write_bytes(content)
    partial.replace(place)
