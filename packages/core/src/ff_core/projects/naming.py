"""Names that are made from what people typed: slugs, branches, folders. Pure."""

import re
import unicodedata
from collections.abc import Collection
from itertools import chain, count
from pathlib import Path

from ff_core.ids import WorkspaceId

SLUG_CHARS_MAX = 50


def slug(text: str, chars_max: int = SLUG_CHARS_MAX) -> str:
    """Letters, digits and single dashes, in lower case; empty when nothing of ``text`` is left."""
    plain = unicodedata.normalize("NFKD", text).encode("ascii", "ignore").decode().lower()
    return re.sub(r"[^a-z0-9]+", "-", plain).strip("-")[:chars_max].rstrip("-")


def free(wanted: str, taken: Collection[str]) -> str:
    """``wanted``, or the first of ``wanted-1``, ``wanted-2`` … that is not taken; case does not count."""
    known = {name.casefold() for name in taken}
    return next(name for name in chain([wanted], (f"{wanted}-{n}" for n in count(1))) if name.casefold() not in known)


def branch(prefix: str, name: str, fallback: str, taken: Collection[str]) -> str:
    """``prefix/name`` as a branch that git can make beside those that are taken.

    ``fallback`` stands in for a name of which nothing is left. Git keeps branches as files: ``a`` and ``a/b`` exclude each other.
    """
    known = {each.casefold() for each in taken}
    parents = {each.rsplit("/", depth)[0] for each in known for depth in range(1, each.count("/") + 1)}
    joint = "-" if prefix.casefold() in known else "/"
    words = f"{prefix}{joint}{slug(name) or fallback}" if prefix else slug(name) or fallback
    return free(words, known | parents)


def worktree(root: Path, project_slug: str, workspace_id: WorkspaceId) -> Path:
    """The folder of a workspace."""
    return root / project_slug / f"workspace-{workspace_id}"
