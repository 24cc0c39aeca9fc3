"""Looks at what of the things found is really there. Changes nothing."""

import asyncio
import os
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

from ff_core.errors import FFError
from ff_core.git import local
from ff_core.importing.found import Found
from ff_core.importing.plan import Checkout, Disk, Repository

LOOKS_MAX = 4
"""Folders that are looked at at a time."""
LOOK_TIMEOUT_S = 20.0
LOOK_BYTES_MAX = 64 * 1024

HasTranscript = Callable[[str], bool]
"""Whether the agent has a conversation of that name; may read the disk."""


async def look(found: Found, *, environment: Mapping[str, str], has_transcript: HasTranscript) -> Disk:
    """See which folders are repositories and checkouts, and which conversations have a transcript."""
    places = asyncio.Semaphore(LOOKS_MAX)

    async def repository(path: Path) -> tuple[Path, Repository | None]:
        async with places:
            return path, await _repository(path, environment)

    async def checkout(path: Path) -> tuple[Path, Checkout | None]:
        async with places:
            return path, await _checkout(path, environment)

    projects = sorted({project.path for project in found.projects})
    worktrees = sorted({workspace.worktree for workspace in found.workspaces if workspace.worktree})
    repositories = await asyncio.gather(*map(repository, projects))
    checkouts = await asyncio.gather(*map(checkout, worktrees))
    conversations = {session.provider_session_id for session in found.sessions if session.provider_session_id}
    return Disk(
        repositories={path: what for path, what in repositories if what is not None},
        checkouts={path: what for path, what in checkouts if what is not None},
        transcripts=await asyncio.to_thread(_those, has_transcript, conversations),
    )


async def _repository(path: Path, environment: Mapping[str, str]) -> Repository | None:
    folder = _folder(path)
    if folder is None:
        return None
    try:
        found = await local.find(folder, environment)
    except (OSError, FFError):
        return None
    top = _folder(found.path)
    words = None if top is None else await _ask(top, environment, "--git-common-dir")
    shared = _folder(Path(words[0])) if words else None
    return Repository(top, shared, found.origin) if top is not None and shared is not None else None


async def _checkout(path: Path, environment: Mapping[str, str]) -> Checkout | None:
    folder = _folder(path)
    words = None if folder is None else await _ask(folder, environment, "--show-toplevel", "--git-common-dir")
    if words is None or len(words) != 2:
        return None
    top, shared = _folder(Path(words[0])), _folder(Path(words[1]))
    return Checkout(top, shared) if top is not None and top == folder and shared is not None else None


async def _ask(folder: Path, environment: Mapping[str, str], *questions: str) -> list[str] | None:
    """What git says of a folder, a line for each question; None when it knows nothing of it."""
    try:
        done = await local.users_git(folder, environment).run(
            *("rev-parse", "--path-format=absolute", *questions), timeout_s=LOOK_TIMEOUT_S, output_bytes_max=LOOK_BYTES_MAX
        )
    except (OSError, FFError):
        return None
    return os.fsdecode(done.stdout).splitlines() if done.exit_code == 0 and not done.truncated else None


def _folder(path: Path) -> Path | None:
    """Where a folder really is. Paths from elsewhere may be anything, also too long for the system."""
    try:
        return path.resolve() if path.is_absolute() and path.is_dir() else None
    except (OSError, ValueError, RuntimeError):
        return None


def _those(has_transcript: HasTranscript, names: Iterable[str]) -> frozenset[str]:
    return frozenset(name for name in names if has_transcript(name))
