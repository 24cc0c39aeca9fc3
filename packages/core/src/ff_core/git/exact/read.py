"""Read the state of a repository. Nothing of it is changed: no ref, no index, no lock; git may add a tree to its objects."""

import os
import re
import shutil
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from ff_core.git.exact import config, index
from ff_core.git.exact.errors import RepositoryUnsupported
from ff_core.git.exact.run import Repository, find
from ff_core.git.exact.state import STASHES_MAX, TEXT_BYTES_MAX, RefState, RepositoryState, StashState, SymbolicState
from ff_core.git.exact.words import shown

STASH = b"refs/stash"
_STASH_LINE = re.compile(rb"[0-9a-f]+ ([0-9a-f]+) ([^\x00\n]*?) ([0-9]+ [+-][0-9]{4})(?:\t([^\n]*))?\Z")
_FORMAT = "%(refname)%00%(objectname)%00%(symref)"


@dataclass(frozen=True)
class Place:
    """Where a repository is in its workspace; see :class:`RepositoryState`."""

    path: bytes = b""
    parent: int | None = None
    module: bytes | None = None


@dataclass(frozen=True)
class Wanted:
    """What of a repository is to travel."""

    refs: Literal["branch", "all", "everything"]
    """HEAD's branch; all branches and tags; these and what is known of remotes."""
    have: tuple[str, ...]
    """Commits the receiver has; those that are not here count for nothing."""
    whole: bool


@dataclass(frozen=True)
class Heading:
    """Where HEAD is."""

    head: str | None
    branch: bytes | None
    """The full name of the ref; None when it is detached."""
    upstream: bytes | None


@dataclass(frozen=True)
class Submodule:
    """A repository in another one's working tree, that is there."""

    path: bytes
    """Below the other one."""
    repository: Repository
    module: bytes | None


def snapshot(repository: Repository, folder: Path) -> Repository:
    """The repository with a copy of its index, which is put into ``folder`` and in the plain format."""
    own, copy = repository.git_dir / "index", folder / "index"
    copied = repository.with_index(copy)
    copy.unlink(missing_ok=True)
    try:
        seen = own.stat()
        shutil.copyfile(own, copy)
    except FileNotFoundError:
        return copied  # nothing was ever added
    os.utime(copy, ns=(seen.st_mtime_ns, seen.st_mtime_ns))  # by it git sees which entries it can't trust
    settings = ("-c", "core.splitIndex=false", "-c", "index.sparse=false", "-c", "index.skipHash=false")
    plain = ("--no-split-index", "--no-fsmonitor", "--no-untracked-cache", "--index-version", "2", "--force-write-index")
    copied.out(*settings, "update-index", *plain)
    return copied


def entries(copied: Repository) -> tuple[list[index.Entry], bool]:
    """What the index of a :func:`snapshot` has, and whether it is unmerged."""
    try:
        data = (copied.index or copied.git_dir / "index").read_bytes()
    except FileNotFoundError:
        return [], False
    found, unmerged = index.parse(data, copied.object_format)
    listed = copied.out("diff-files", "--raw", "-z", "--no-renames", "--ignore-submodules=all")
    dirty = set(listed.split(b"\0")[1::2])
    return index.known_clean(found, dirty), unmerged


def settings(repository: Repository) -> config.Settings:
    """All settings that count here, wherever they are written."""
    return config.parse(repository.out("config", "--list", "--null"))


def state(repository: Repository, place: Place, wanted: Wanted) -> RepositoryState:
    """All that is in :class:`RepositoryState`. Raises ``RepositoryUnsupported``, and what git says."""
    known = settings(repository)
    _refuse_other_formats(known)
    here = heading(repository, known)
    branch = here.branch
    if branch is not None and not branch.startswith(b"refs/heads/"):
        raise RepositoryUnsupported(f"HEAD is at {shown(branch)}, which is no branch; check a branch out.")
    refs = _refs(repository, known, wanted, branch, here.head)
    heads = {name.removeprefix(b"refs/heads/") for name in {*refs, branch or b""} if name.startswith(b"refs/heads/")}
    return RepositoryState(
        path=place.path,
        parent=place.parent,
        module=place.module,
        object_format="sha256" if repository.object_format == "sha256" else "sha1",
        head=here.head,
        branch=branch,
        upstream=here.upstream,
        refs=tuple(RefState(name=name, oid=refs[name]) for name in sorted(refs)),
        symbolic=_symbolic(repository, refs) if wanted.refs == "everything" else (),
        stash=stash(repository) if STASH in refs else (),
        shallow=tuple(_text(repository.common_dir / "shallow").decode().split()),
        settings=tuple(config.travelling(known, heads)),
        sparse=sparse(repository),
        exclude=_joined(
            _users_file(repository, "core.excludesFile", "ignore"), _text(repository.common_dir / "info" / "exclude")
        ),
        attributes=_text(repository.common_dir / "info" / "attributes"),
        global_attributes=_users_file(repository, "core.attributesFile", "attributes"),
        whole=wanted.whole,
    )


def heading(repository: Repository, known: config.Settings) -> Heading:
    """Where HEAD is."""
    branch = repository.maybe("symbolic-ref", "--quiet", "HEAD")
    branch = None if branch is None else branch.removesuffix(b"\n")
    head = repository.maybe("rev-parse", "--quiet", "--verify", "HEAD^{commit}")
    return Heading(
        head=None if head is None else head.decode().strip(),
        branch=branch,
        upstream=None if branch is None else config.upstream(known, branch.removeprefix(b"refs/heads/")),
    )


def sparse(repository: Repository) -> bytes | None:
    """The patterns of its sparse checkout, in use or not."""
    return _text_or_none(repository.git_dir / "info" / "sparse-checkout")


def status(repository: Repository) -> bytes:
    """What ``git status`` says, byte for byte as at a prompt."""
    return repository.out("status", "--porcelain=v2", "--branch", "--untracked-files=all", "-z")


def ignored(repository: Repository) -> frozenset[bytes]:
    """What git ignores: files, and with a slash at the end folders of which it ignores everything."""
    words = ("--porcelain=v2", "-z", "--no-renames", "--ignore-submodules=all", "--untracked-files=normal", "--ignored=matching")
    said = repository.out("status", *words)
    return frozenset(record[2:] for record in said.split(b"\0") if record.startswith(b"! "))


def matching(repository: Repository, lines: bytes, folder: Path) -> frozenset[bytes]:
    """Untracked paths, ignored or not, that match the lines of a gitignore file. ``folder`` is for a file of ours."""
    if not lines.strip():
        return frozenset()
    patterns = folder / "patterns"
    patterns.write_bytes(lines)
    said = repository.out("ls-files", "-z", "--others", "--ignored", f"--exclude-from={patterns}")
    return frozenset(said.split(b"\0")) - {b""}


def values(repository: Repository, names: Iterable[bytes]) -> dict[bytes, str | None]:
    """What refs of these names are now; None where there is none."""
    there = {name: oid for name, oid, _ in _all_refs(repository)}
    return {name: there.get(name) for name in names}


def submodules(parent: Repository, listed: Iterable[index.Entry]) -> list[Submodule]:
    """Those of its gitlinks that are a repository in its working tree. Raises ``RepositoryUnsupported`` for a broken one."""
    found = []
    for entry in listed:
        if entry.mode != index.GITLINK or not _is_folder(parent.worktree, entry.path):
            continue
        folder = parent.worktree / os.fsdecode(entry.path)
        if not os.path.lexists(folder / ".git"):
            continue
        try:
            repository = find(folder)
        except Exception as error:
            raise RepositoryUnsupported(f"The submodule {shown(entry.path)} is broken; repair or remove it.") from error
        found.append(Submodule(entry.path, repository, _module(parent, repository)))
    return found


def _refs(
    repository: Repository, known: config.Settings, wanted: Wanted, branch: bytes | None, head: str | None
) -> dict[bytes, str | None]:
    there = {name: (oid, symbolic) for name, oid, symbolic in _all_refs(repository)}
    branches = set() if branch is None else {branch}
    names = branches & there.keys()
    if wanted.refs == "branch":
        names |= _new_tags(repository, head, wanted)
    else:
        prefixes = (b"refs/heads/", b"refs/tags/", *((b"refs/remotes/",) if wanted.refs == "everything" else ()))
        names |= {
            name for name, (_, symbolic) in there.items() if name.startswith(prefixes) and not (symbolic and b"/remotes/" in name)
        }
    if STASH in there:
        names.add(STASH)
    refs: dict[bytes, str | None] = {name: there[name][0] for name in names}
    for followed in (name for name in names | branches if name.startswith(b"refs/heads/")):
        upstream = config.upstream(known, followed.removeprefix(b"refs/heads/"))
        if upstream is not None:
            refs[upstream] = there[upstream][0] if upstream in there else None
    return refs


def _symbolic(repository: Repository, refs: Mapping[bytes, str | None]) -> tuple[SymbolicState, ...]:
    return tuple(
        SymbolicState(name=name, target=target)
        for name, _, target in _all_refs(repository)
        if name.startswith(b"refs/remotes/") and refs.get(target) is not None and name not in refs
    )


def _all_refs(repository: Repository) -> list[tuple[bytes, str, bytes]]:
    """Name, object, and what other ref it is."""
    listed = repository.out("for-each-ref", f"--format={_FORMAT}")
    fields = (line.split(b"\0") for line in listed.split(b"\n") if line)
    return [(name, oid.decode(), symbolic) for name, oid, symbolic in fields]


def _new_tags(repository: Repository, head: str | None, wanted: Wanted) -> set[bytes]:
    """Tags at commits that the receiver does not have: so nobody else has told him of them."""
    if head is None:
        return set()
    here = [] if wanted.whole else known_commits(repository, wanted.have)
    without = [f"--no-merged={commit}" for commit in here]
    listed = repository.out("for-each-ref", "--format=%(refname)", f"--merged={head}", *without, "refs/tags")
    return set(listed.split(b"\n")) - {b""}


def known_commits(repository: Repository, names: Iterable[str]) -> list[str]:
    """Those of these objects that are commits here."""
    asked = "".join(f"{name}\n" for name in names).encode()
    if not asked:
        return []
    said = repository.out("cat-file", "--batch-check=%(objecttype) %(objectname)", stdin=asked)
    return [line.removeprefix(b"commit ").decode() for line in said.split(b"\n") if line.startswith(b"commit ")]


def stash(repository: Repository) -> tuple[StashState, ...]:
    """Its entries, the oldest first."""
    lines = _lines(repository.common_dir / "logs" / "refs" / "stash")
    if len(lines) > STASHES_MAX:
        raise RepositoryUnsupported(f"There are more than {STASHES_MAX} stash entries; drop some of them.")
    found = []
    for line in lines:
        parsed = _STASH_LINE.match(line)
        if parsed is None:
            raise RepositoryUnsupported("The log of the stash can't be read; look at it with `git stash list`.")
        commit, who, when, message = parsed.groups()
        found.append(StashState(commit=commit.decode(), who=who, when=when.decode(), message=message or b""))
    return tuple(found)


def _lines(path: Path) -> list[bytes]:
    try:
        return [line for line in path.read_bytes().split(b"\n") if line]
    except FileNotFoundError:
        return []


def _users_file(repository: Repository, setting: str, default: str) -> bytes:
    """A file of the user's that git reads for every repository of his."""
    said = repository.maybe("config", "--type=path", "--get", setting)
    if said is not None:
        path = repository.worktree / os.fsdecode(said.removesuffix(b"\n"))
    elif (home := os.environ.get("HOME")) is not None:
        path = Path(home) / ".config" / "git" / default
    else:
        return b""
    return _text(path) if path.is_file() else b""


def _text(path: Path) -> bytes:
    return _text_or_none(path) or b""


def _text_or_none(path: Path) -> bytes | None:
    try:
        with path.open("rb") as file:
            text = file.read(TEXT_BYTES_MAX + 1)
    except (FileNotFoundError, NotADirectoryError, PermissionError):
        return None
    if len(text) > TEXT_BYTES_MAX:
        raise RepositoryUnsupported(f"The file {path.name} of this repository is larger than {TEXT_BYTES_MAX} bytes.")
    return text


def _joined(first: bytes, second: bytes) -> bytes:
    mark = b"\xef\xbb\xbf"  # it counts at the beginning of a file only
    first, second = first.removeprefix(mark), second.removeprefix(mark)
    return first + (b"" if not first or first.endswith(b"\n") else b"\n") + second


def _is_folder(top: Path, path: bytes) -> bool:
    """Whether there is a folder, and no link on the way to it."""
    at = top
    for part in path.split(b"/"):
        at = at / os.fsdecode(part)
        if at.is_symlink() or not at.is_dir():
            return False
    return True


def _module(parent: Repository, repository: Repository) -> bytes | None:
    """Its name among the modules of its parent; None when its ``.git`` is elsewhere, such as in itself."""
    here = os.path.realpath(repository.git_dir)
    for folder in (parent.git_dir, parent.common_dir):
        modules = os.path.realpath(folder / "modules")
        if here.startswith(modules + os.sep):
            return os.fsencode(os.path.relpath(here, modules))
    return None


def _refuse_other_formats(known: config.Settings) -> None:
    values = config.last(known)
    if values.get(b"extensions.refstorage", b"files") != b"files":
        raise RepositoryUnsupported("This repository keeps its refs in another way than as files, which is not supported yet.")
