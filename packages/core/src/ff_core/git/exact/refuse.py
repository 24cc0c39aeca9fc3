"""Why a repository can't be carried elsewhere as it is, in words that say what to do."""

import os
from collections.abc import Iterable
from pathlib import Path

from ff_core.errors import FFError
from ff_core.git.exact import config
from ff_core.git.exact.errors import (
    FilterDriverMissing,
    HistoryIncomplete,
    IndexLocked,
    OperationInProgress,
    UnmergedIndex,
)
from ff_core.git.exact.index import GITLINK, LINK, Entry
from ff_core.git.exact.run import Repository
from ff_core.git.exact.words import shown

LFS = b"lfs"
LFS_POINTER = b"version https://git-lfs.github.com/spec/v1\n"
LFS_POINTER_BYTES_MAX = 1024

_OPERATIONS = (
    ("rebase-merge", "rebase", "git rebase --continue", "git rebase --abort"),
    ("rebase-apply/applying", "git am", "git am --continue", "git am --abort"),
    ("rebase-apply", "rebase", "git rebase --continue", "git rebase --abort"),
    ("MERGE_HEAD", "merge", "git commit", "git merge --abort"),
    ("CHERRY_PICK_HEAD", "cherry-pick", "git cherry-pick --continue", "git cherry-pick --abort"),
    ("REVERT_HEAD", "revert", "git revert --continue", "git revert --abort"),
    ("sequencer", "series of cherry-picks or reverts", "git cherry-pick --continue", "git cherry-pick --abort"),
    ("BISECT_LOG", "bisect", "git bisect reset", "git bisect reset"),
)
"""In the folder of a worktree; the first that is there is what goes on."""


def refusals(repository: Repository, where: str, *, unmerged: bool, whole: bool, known: config.Settings) -> list[FFError]:
    """What stands in the way, in all but its files; ``where`` names the repository at the end of a sentence, or is empty."""
    found: list[FFError] = []
    if unmerged:
        found.append(UnmergedIndex(f"A merge left conflicts{where}; resolve them and `git add` the files, then try again."))
    if (repository.git_dir / "index.lock").exists():
        found.append(
            IndexLocked(
                f"Another git command works{where}; wait until it has ended."
                f" If none does, remove {repository.git_dir}/index.lock."
            )
        )
    for name, what, on, off in _OPERATIONS:
        if (repository.git_dir / name).exists():
            ending = f"finish it with `{on}`" + (f" or end it with `{off}`" if on != off else "")
            found.append(OperationInProgress(f"A {what} is in progress{where}; {ending}, then try again."))
            break
    if whole and any(name.startswith(b"remote.") and name.endswith(b".promisor") for name, _ in known):
        found.append(HistoryIncomplete(f"A partial clone lacks parts of its history{where}; run `git fetch --refetch` first."))
    return found


def filtered(repository: Repository, entries: Iterable[Entry], known: config.Settings) -> list[FFError]:
    """Files in the working tree that went through a filter (``clean``) which a receiver without it would find changed.

    The files of Git LFS may travel as long as they are the little pointers that git itself has.
    """
    drivers = {
        name.split(b".", 1)[1].rpartition(b".")[0]
        for name, value in known
        if name.startswith(b"filter.") and name.endswith((b".clean", b".process")) and value
    }
    if not drivers:
        return []
    paths = [entry.path for entry in entries if entry.mode not in {LINK, GITLINK}]
    asked = b"".join(path + b"\0" for path in paths)
    said = repository.out("check-attr", "-z", "--stdin", "filter", stdin=asked).split(b"\0")
    affected: dict[bytes, list[bytes]] = {}
    for path, driver in zip(said[0::3], said[2::3], strict=False):
        if driver in drivers and _is_converted(repository.worktree / os.fsdecode(path), driver):
            affected.setdefault(driver, []).append(path)
    return [
        FilterDriverMissing(
            f"{shown(paths[0])}{_and_more(len(paths) - 1)} went through git's filter '{shown(driver)}', which the other side"
            " lacks."
            f" Put the stored form in place: git -c filter.{shown(driver)}.process= -c filter.{shown(driver)}.smudge="
            f" -c filter.{shown(driver)}.required=false checkout-index --force -- PATH; or stop using the filter."
        )
        for driver, paths in sorted(affected.items())
    ]


def _and_more(count: int) -> str:
    return "" if count == 0 else f" and {count} more file{'s' if count > 1 else ''}"


def _is_converted(path: Path, driver: bytes) -> bool:
    """Whether the file can be something else than what git has of it."""
    if not path.is_file() or path.is_symlink():
        return False
    if driver != LFS:
        return True
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            return size > LFS_POINTER_BYTES_MAX or (size > 0 and file.read(len(LFS_POINTER)) != LFS_POINTER)
    except OSError:
        return False  # it is seen and refused as unreadable
