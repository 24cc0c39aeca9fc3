"""A linked worktree that is to be filled: made beside whatever is there, and found again when its making was interrupted."""

import os
import shutil
from pathlib import Path

from ff_core.git.exact.errors import StateBroken
from ff_core.git.exact.run import Repository, find, find_any

MARK = "factory-factory"
"""In the folder that git has for a worktree: for what it was made."""
_NOBODY = ("-c", "user.name=Factory Factory", "-c", "user.email=agent@factory-factory.invalid")


def made_for(project: Path, purpose: str) -> Path | None:
    """The worktree of this project that was made for a purpose, if there is one."""
    for mark in sorted((find_any(project).common_dir / "worktrees").glob(f"*/{MARK}")):
        if mark.read_text() == purpose:
            place = Path((mark.parent / "gitdir").read_text().rstrip("\n")).parent
            if (place / ".git").exists():
                return place
    return None


def make_worktree(project: Path, place: Path, purpose: str) -> Repository | None:
    """A worktree at ``place`` with nothing in it; None when something else is there. For one ``purpose`` always the same."""
    known = made_for(project, purpose)
    if known is not None:
        return find(known)
    owner = find_any(project)
    if not _is_free(owner, place):
        return None
    place.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    owner.out("worktree", "add", "--quiet", "--detach", "--no-checkout", "--force", "--", str(place), _nothing(owner))
    made = find(place)
    mark = made.git_dir / MARK
    mark.with_suffix(".partial").write_text(purpose)
    mark.with_suffix(".partial").replace(mark)
    return made


def _is_free(owner: Repository, place: Path) -> bool:
    """Whether nothing is there, or only what an interrupted making left: that is removed."""
    if not place.exists() and not place.is_symlink():
        return True
    if place.is_symlink() or not place.is_dir():
        return False
    there = os.listdir(place)  # noqa: PTH208
    if not there:
        return True
    link = place / ".git"
    if there != [".git"] or not link.is_file():
        return False
    own = Path(os.fsdecode(link.read_bytes().removeprefix(b"gitdir:").strip()))
    if own.parent != owner.common_dir / "worktrees" or (own / MARK).exists() or (own / "index").exists():
        return False
    shutil.rmtree(place)
    shutil.rmtree(own, ignore_errors=True)
    return True


def _nothing(owner: Repository) -> str:
    """A commit that stands in until HEAD is set: in no branch, and forgotten then."""
    tree = owner.out("hash-object", "-t", "tree", "-w", "--stdin", stdin=b"").decode().strip()
    made = owner.out(*_NOBODY, "commit-tree", "-m", "Nothing yet", tree).decode().strip()
    if not made:
        raise StateBroken
    return made
