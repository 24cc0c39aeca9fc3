"""What the packing process is asked, and what it answers: one JSON object in, one out (``python -m ff_core.handoff``).

It runs as the workspace's user, so it can read and write what he can and nothing else. Whoever calls it has put into *spool* what
only he knows (:mod:`ff_core.handoff.records`).
"""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from ff_core.contract.base import ErrorView, Request, View
from ff_core.contract.handoff import Contents, ConversationPrint, Fingerprint, ObjectName, Sha256
from ff_core.ids import SessionId

RECORDS = "records.json"
JOURNAL = "journal.jsonl"
"""In the spool: ``WorkspaceRecord``; the events up to its ``last_seq``, one JSON object a line."""
REPOSITORY = "repository"
CONVERSATIONS = "conversations"
SPOOL = "spool"
"""In the folder that is unpacked into: the checkout, whole and by itself; transcripts, by session; the spool as it was packed."""


class Conversation(Request):
    """A session with a transcript."""

    session_id: SessionId
    provider_session_id: str


class Survey(Request):
    """Look at a workspace as if it were to be packed."""

    act: Literal["survey"] = "survey"
    repository: Path
    config_dir: Path
    """``CLAUDE_CONFIG_DIR`` of its agents."""
    conversations: tuple[Conversation, ...] = ()
    have: tuple[ObjectName, ...] = ()
    """Commits the receiver has, or can fetch by itself."""
    whole: bool = False
    """Take all of the history along; ``have`` counts for nothing."""
    refs: Literal["branch", "all"] = "branch"
    """Which branches belong to the workspace: HEAD's, in a worktree; all of them, in a clone of its own."""
    include: tuple[str, ...] = ()
    """Ignored files that travel, as lines of a gitignore file; beside the repository's ``.worktreeinclude``."""
    credentials: bool = False
    """Files that look like credentials travel too."""


class Surveyed(View):
    """What would travel."""

    contents: Contents
    credentials: tuple[str, ...]
    refusals: tuple[ErrorView, ...]


class Pack(Survey):
    """Make a bundle."""

    act: Literal["pack"] = "pack"  # type: ignore[assignment]
    spool: Path
    bundle: Path
    """Is made, or replaced; when there is no answer it is worth nothing."""


class Packed(View):
    """A bundle that is whole and on the disk."""

    size: int
    sha256: Sha256
    fingerprint: Fingerprint
    contents: Contents


class Unpack(Request):
    """Make of a bundle what was packed, in a folder that does not exist yet, and look whether it is the same."""

    act: Literal["unpack"] = "unpack"
    bundle: Path
    size: int
    sha256: Sha256
    into: Path
    """Has :data:`REPOSITORY`, :data:`CONVERSATIONS` and :data:`SPOOL` afterwards, or is not there."""
    base: Path | None = None
    """A repository that has the commits the bundle builds on; it is read only and may be removed afterwards."""


class Unpacked(View):
    """What there is now. Of its ``fingerprint`` the caller knows that it is the bundle's: otherwise there is no answer."""

    fingerprint: Fingerprint
    contents: Contents


class Settle(Request):
    """Put unpacked transcripts where the agents of this host look for them. May be repeated."""

    act: Literal["settle"] = "settle"
    conversations: Path
    """The folder :data:`CONVERSATIONS` of what was unpacked."""
    sessions: tuple[Conversation, ...]
    config_dir: Path
    cwd: Path


class Settled(View):
    """What lies there now."""

    conversations: tuple[ConversationPrint, ...]


class Look(Survey):
    """Take the fingerprint of a worktree as it is now."""

    act: Literal["look"] = "look"  # type: ignore[assignment]


class Looked(View):
    """What its repositories are. ``conversations`` and ``records`` are not looked at."""

    fingerprint: Fingerprint


class Obstacles(Request):
    """What would be overwritten, if what was unpacked came into the worktree that it was sent from?"""

    act: Literal["obstacles"] = "obstacles"
    staging: Path
    """The repository that was unpacked."""
    sent_as: Survey
    """The worktree, with the rules by which it was sent."""


class Obstructed(View):
    """The first files that did not travel and would be overwritten."""

    paths: tuple[str, ...]


class Land(Request):
    """Take what was unpacked into a worktree of the user's project. May be repeated, and only goes forward."""

    act: Literal["land"] = "land"
    purpose: Annotated[str, Field(pattern=r"^[0-9a-f-]{36}$")]
    """The handoff's id: by it a landing that was interrupted finds what is its own."""
    staging: Path
    """The repository that was unpacked."""
    project: Path
    worktree: Path
    fresh: bool
    """The worktree is made, and must not be there."""
    branch: str | None = None
    """What HEAD's branch is called here; null: as it was called there."""
    aside: Annotated[str, Field(pattern=r"^[0-9a-f-]{36}$")]
    """The workspace's id: refs that are others here are kept below ``refs/ff/`` it."""
    sent: Fingerprint | None = None
    """Of the last send from here; null: there was none."""
    sent_as: Survey | None = None
    """Of one that lands where it was sent from: the worktree, with the rules of that send."""
    arrived: Fingerprint


class Landed(View):
    """It is there. ``differences``: in what it is not what came, which should be nothing."""

    worktree: str
    differences: tuple[str, ...]
    aside: tuple[str, ...] = ()
    """Branches and tags that are others here, and where they are kept."""
    kept: tuple[str, ...] = ()
    """Submodules that are gone on the other side, and stay here because their repositories lie in them."""

    def words(self) -> str:
        """What the user should know of it; empty when there is nothing."""
        told = []
        if self.aside:
            told.append(f"These branches and tags are others here, and were kept beside: {'; '.join(self.aside)}.")
        if self.kept:
            told.append(f"These submodules were removed in the cloud and stay here: {', '.join(self.kept)}.")
        if self.differences:
            told.append(f"The worktree is not quite what came: {' '.join(self.differences)}")
        return " ".join(told)


class Progress(View):
    """A line on standard error while it works."""

    step: str
    done_bytes: int = 0
    total_bytes: int = 0


class Failed(View):
    """The answer when it could not be done."""

    error: ErrorView


Order = Annotated[Survey | Pack | Unpack | Settle | Look | Obstacles | Land, Field(discriminator="act")]
