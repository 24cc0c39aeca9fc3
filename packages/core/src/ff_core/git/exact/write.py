"""Make a repository that is in a given state. What came with the state was made elsewhere, perhaps by somebody who means harm:

git never runs a program of its, never reads a setting of its that was not looked at, and never writes outside the folders given.
"""

import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from ff_core.git.errors import GitFailed
from ff_core.git.exact import config, index
from ff_core.git.exact.errors import StateBroken
from ff_core.git.exact.objects import GENTLY, borrow
from ff_core.git.exact.read import STASH
from ff_core.git.exact.run import LONG_TIMEOUT_S, Repository, find_any, make
from ff_core.git.exact.state import RepositoryState

GLOBAL_ATTRIBUTES = "attributes.global"
"""In ``info``: what was the sender's ``core.attributesFile``."""
_RAW = b"* -text -crlf -eol -ident -filter -working-tree-encoding\n"
"""As ``info/attributes``: files are written as git has them."""
_PLAINLY = {
    "core.autocrlf": "false",
    "core.safecrlf": "false",
    "core.symlinks": "true",
    "core.fileMode": "true",
    "core.sparseCheckout": "false",
    "core.attributesFile": os.devnull,
    "checkout.workers": "0",  # as many as there are processors
}
_QUIETLY = ("-c", "core.logAllRefUpdates=false")


@dataclass(frozen=True)
class Base:
    """A repository on this host that a new one begins with: its objects, what it knows of remotes, its tags."""

    repository: Repository
    refs: dict[bytes, str]
    symbolic: dict[bytes, bytes]
    settings: config.Settings
    shallow: tuple[str, ...]


def look_at_base(folder: Path) -> Base:
    """Read what a new repository gets from the one at ``folder``, bare or not. Raises ``GitFailed`` when there is none."""
    repository = find_any(folder)
    listed = repository.out("for-each-ref", "--format=%(refname)%00%(objectname)%00%(symref)", "refs/remotes", "refs/tags")
    refs, symbolic = dict[bytes, str](), dict[bytes, bytes]()
    for line in filter(None, listed.split(b"\n")):
        name, oid, target = line.split(b"\0")
        if target:
            symbolic[name] = target
        else:
            refs[name] = oid.decode()
    known = config.parse(repository.out("config", "--local", "--list", "--null"))
    kept = [(name, value) for name, value in known if name.startswith((b"remote.", b"user."))]
    try:
        shallow = tuple((repository.common_dir / "shallow").read_text().split())
    except FileNotFoundError:
        shallow = ()
    return Base(repository, refs, symbolic, kept, shallow)


def begin(worktree: Path, git_dir: Path, state: RepositoryState, base: Base | None) -> Repository:
    """A repository that takes the objects of ``state``, and has those of ``base``, but no ref and no index yet."""
    made = make(worktree, git_dir, state.object_format)
    if git_dir != worktree / ".git":
        (worktree / ".git").write_bytes(b"gitdir: %s\n" % _relative(git_dir, worktree))
    info = git_dir / "info"
    info.mkdir(exist_ok=True)
    _write_settings(git_dir / "config", _settings(made, state, base))
    (info / "exclude").write_bytes(state.exclude)
    if state.attributes:
        (info / "attributes").write_bytes(state.attributes)
    if state.global_attributes:
        (info / GLOBAL_ATTRIBUTES).write_bytes(state.global_attributes)
    if state.sparse is not None:
        (info / "sparse-checkout").write_bytes(state.sparse)
    shallow = sorted({*state.shallow, *(base.shallow if base is not None else ())})
    if shallow:
        (git_dir / "shallow").write_text("".join(f"{oid}\n" for oid in shallow))
    if base is not None:
        borrow(base.repository.objects, made.objects)
    return made


def set_refs(repository: Repository, state: RepositoryState, base: Base | None) -> None:
    """Refs, stash and HEAD, when their objects are there. Raises ``StateBroken`` for refs that can't be there together."""
    travelled = {ref.name: ref.oid for ref in state.refs}
    _set_refs_of_base(repository, base, travelled)
    orders = b"".join(b"create %s\0%s\0" % (name, oid.encode()) for name, oid in travelled.items() if oid is not None)
    try:
        repository.out(*_QUIETLY, "update-ref", "--stdin", "-z", stdin=orders)
    except GitFailed as error:
        raise StateBroken(f"The refs that came can't be: {error.detail}") from error
    for each in state.symbolic:
        if travelled.get(each.target) is not None and each.name not in travelled:
            repository.out(*_QUIETLY, "symbolic-ref", os.fsdecode(each.name), os.fsdecode(each.target))
    if state.stash and travelled.get(STASH) is not None:
        _set_stash(repository, state)
    if state.branch is not None:
        repository.out(*_QUIETLY, "symbolic-ref", "HEAD", os.fsdecode(state.branch))
    elif state.head is not None:
        repository.out(*_QUIETLY, "update-ref", "--no-deref", "HEAD", state.head)


def fill(repository: Repository, entries: Iterable[index.Entry], folder: Path) -> None:
    """Write the files of these entries into the working tree, in which nothing is yet, byte for byte as git has them."""
    temporary = folder / "index"
    plain = [index.Entry(entry.path, entry.mode, entry.oid) for entry in entries]  # one with a flag git would leave out
    temporary.write_bytes(index.render(plain, repository.object_format, lambda _: None))
    attributes = repository.git_dir / "info" / "attributes"
    kept = attributes.read_bytes() if attributes.exists() else None
    attributes.write_bytes(_RAW)
    words = [word for name, value in _PLAINLY.items() for word in ("-c", f"{name}={value}")]
    repository.with_index(temporary).out(*GENTLY, *words, "checkout-index", "--all", "--quiet", timeout_s=LONG_TIMEOUT_S)
    if kept is None:
        attributes.unlink()
    else:
        attributes.write_bytes(kept)
    temporary.unlink()


def set_index(
    repository: Repository, entries: Iterable[index.Entry], stat_of: Callable[[index.Entry], os.stat_result | None]
) -> None:
    """Write its index. ``stat_of``: what there is in the working tree, for entries that git need not look at again."""
    partial = repository.git_dir / "index.partial"
    partial.write_bytes(index.render(entries, repository.object_format, stat_of))
    partial.replace(repository.git_dir / "index")


def restat(repository: Repository) -> None:
    """Remember the files of the working tree as they are now, after they were moved without being changed.

    A file of which git knew that it is clean stays clean, though its inode may be another. To be called while nothing else
    works in the repository.
    """
    data = (repository.git_dir / "index").read_bytes()
    known = index.stats(data, repository.object_format)

    def stat_of(entry: index.Entry) -> os.stat_result | None:
        try:
            seen = os.lstat(os.path.join(os.fsencode(repository.worktree), entry.path))  # noqa: PTH118  (bytes)
        except OSError:
            return None
        return seen if known.get(entry.path) == (seen.st_mtime_ns, seen.st_size & 0xFFFFFFFF) else None

    set_index(repository, index.parse(data, repository.object_format)[0], stat_of)


def _settings(made: Repository, state: RepositoryState, base: Base | None) -> config.Settings:
    own = list(state.settings)
    from_base = base.settings if base is not None else []
    theirs = config.of_remotes(own, set()) if base is None else config.of_remotes(own, config.remotes(from_base))
    without = config.of_remotes(own, set())
    settings = [setting for setting in own if setting not in without]
    told = {name for name, _ in settings}
    settings += [(name, value) for name, value in from_base if name.startswith(b"remote.") or name not in told]
    settings += theirs
    settings += config.unset_here(settings, _outside(made))
    attributes = os.fsencode(os.devnull)
    if state.global_attributes:
        attributes = _relative(made.git_dir / "info" / GLOBAL_ATTRIBUTES, made.worktree)
    settings += [(b"core.excludesfile", os.fsencode(os.devnull)), (b"core.attributesfile", attributes)]
    if made.git_dir != made.worktree / ".git":
        settings.append((b"core.worktree", _relative(made.worktree, made.git_dir)))
    return settings


def _write_settings(place: Path, settings: config.Settings) -> None:
    """Beside what git wrote when it made the repository; but each once, or git could not change it any more."""
    ours = {name.removeprefix(b"core.") for name, _ in settings if name.startswith(b"core.")}
    lines = place.read_bytes().splitlines(keepends=True)
    kept = [line for line in lines if not (line.startswith(b"\t") and line.partition(b"=")[0].strip().lower() in ours)]
    place.write_bytes(b"".join(kept) + config.render(settings))


def _outside(made: Repository) -> dict[bytes, bytes]:
    """What user and machine say here."""
    fields = made.out("config", "--list", "--null", "--show-scope").split(b"\0")
    pairs = zip(fields[0::2], fields[1::2], strict=False)
    return config.last(
        setting for scope, listed in pairs if scope in {b"system", b"global"} for setting in config.parse(listed + b"\0")
    )


def _set_refs_of_base(repository: Repository, base: Base | None, travelled: dict[bytes, str | None]) -> None:
    """Those of the base that don't stand in the way of the ones that came."""
    if base is None:
        return
    above = {parent for name in travelled for parent in _parents(name)}
    kept = {
        name: oid
        for name, oid in base.refs.items()
        if name not in travelled and name not in above and not any(parent in travelled for parent in _parents(name))
    }
    lines = b"".join(b"%s %s\n" % (kept[name].encode(), name) for name in sorted(kept))
    (repository.git_dir / "packed-refs").write_bytes(lines)
    there = kept.keys() | {name for name, oid in travelled.items() if oid is not None}
    for name, target in base.symbolic.items():
        if target in there and name not in travelled:
            repository.out(*_QUIETLY, "symbolic-ref", os.fsdecode(name), os.fsdecode(target))


def _set_stash(repository: Repository, state: RepositoryState) -> None:
    log = repository.git_dir / "logs" / "refs" / "stash"
    log.parent.mkdir(parents=True, exist_ok=True)
    before = "0" * 2 * index.HASH_BYTES[state.object_format]
    with log.open("wb") as file:
        for entry in state.stash:
            fields = (before.encode(), entry.commit.encode(), entry.who, entry.when.encode(), entry.message)
            file.write(b"%s %s %s %s\t%s\n" % fields)
            before = entry.commit


def _parents(name: bytes) -> Iterable[bytes]:
    while (name := name.rpartition(b"/")[0]) and name != b"refs":
        yield name


def _relative(path: Path, start: Path) -> bytes:
    return os.fsencode(os.path.relpath(path, start))
