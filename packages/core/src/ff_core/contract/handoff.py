"""Handoffs: moving a workspace between a desktop and the server (DESIGN.md section 11).

The server's row of the workspace decides where it lives. A handoff prepares everything beside it and then changes that row in one
transaction, *commit*; whatever comes before can be undone, whatever comes after only goes on.

=======  ============================================  =====================================================================
POST     ``/v1/handoffs``                              :class:`NewHandoff` -> :class:`HandoffView`; repeated with its ``id``
GET      ``/v1/handoffs``                              the caller's, newest first; ``workspace_id``, ``open=true``
GET      ``/v1/handoffs/{id}``                         -> :class:`HandoffView`
POST     ``/v1/handoffs/{id}/bundle``                  :class:`Announced` -> :class:`HandoffView`: what will be uploaded (send)
PUT      ``/v1/handoffs/{id}/bundle?offset=N``         the next piece of the bundle (send), at most :data:`PIECE_BYTES_MAX`
GET      ``/v1/handoffs/{id}/bundle?offset=N``         the bundle from there to its end (pull)
POST     ``/v1/handoffs/{id}/commit``                  :class:`CommitHandoff` -> :class:`HandoffView`; may be repeated
POST     ``/v1/handoffs/{id}/abort``                   -> :class:`HandoffView`; may be repeated; 409 ``handoff_committed`` after
POST     ``/v1/workspaces/{id}/takeover``              :class:`Takeover` -> ``WorkspaceView``: a desktop says what it did by force
=======  ============================================  =====================================================================

A send is begun before its bundle is packed: the server makes a VM for it and has the repository cloned there meanwhile.
"""

from datetime import datetime
from enum import StrEnum
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from ff_core.contract.base import ErrorView, Label, Request, View
from ff_core.contract.places import Direction
from ff_core.contract.plain import URL_CHARS_MAX
from ff_core.ids import DesktopId, HandoffId, OperationId, SessionId, WorkspaceId

MEDIA_TYPE = "application/vnd.factory-factory.bundle"
BUNDLE_BYTES_MAX = 64 << 30
PIECE_BYTES_MAX = 16 << 20
HAVE_MAX = 1_000
"""Commits a receiver may name as known to it."""
INCLUDE_MAX = 200
"""Lines of a project's list and of a command's, ``contract.local.INCLUDE_MAX`` each."""
LEFT_BEHIND_SHOWN_MAX = 500
DIFFERENCES_SHOWN_MAX = 20

Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
ObjectName = Annotated[str, Field(pattern=r"^([0-9a-f]{40}|[0-9a-f]{64})$")]
"""Of a git object."""
Epoch = Annotated[int, Field(ge=0, lt=2**31)]
"""Raised by every change of location; 0 for a workspace that the server never heard of."""


class HandoffStatus(StrEnum):
    """How far a handoff is, as the server knows. READY: what was asked for is verified, and ``commit`` decides."""

    UPLOADING = "UPLOADING"
    """A send whose bundle is not all there. Its VM is made meanwhile."""
    RESTORING = "RESTORING"
    """A send whose bundle is unpacked in a VM and compared."""
    EXPORTING = "EXPORTING"
    """A pull: the workspace is frozen and its bundle is made."""
    READY = "READY"
    COMMITTED = "COMMITTED"
    ABORTED = "ABORTED"
    FAILED = "FAILED"
    EXPIRED = "EXPIRED"

    @property
    def open(self) -> bool:
        """Whether it may still become something else."""
        return self in {HandoffStatus.UPLOADING, HandoffStatus.RESTORING, HandoffStatus.EXPORTING, HandoffStatus.READY}


class RepositoryPrint(View):
    """What one repository with its working tree is, whoever looks. The first of a fingerprint is the workspace's own.

    Of lists it has the SHA-256; what the lists are is said in ``ff_core.handoff.fingerprint``.
    """

    path: str
    """Below the workspace, percent-encoded where it is not plain ASCII; empty for the workspace's own."""
    object_format: Literal["sha1", "sha256"]
    head: ObjectName | None
    """Null before the first commit."""
    branch: str | None
    """Null when HEAD is detached."""
    upstream: str | None
    refs: Sha256
    index: Sha256
    tree: Sha256
    files: int
    stash: Sha256
    status: Sha256
    """Of ``git status --porcelain=v2 --branch --untracked-files=all -z``."""
    sparse: Sha256


class ConversationPrint(View):
    """The transcript of a session with the files beside it; paths of this host in them count as one and the same word."""

    session_id: SessionId
    files: int
    sha256: Sha256


class Fingerprint(View):
    """Hashes of everything in a workspace. Two that are equal: nothing was lost, nothing was added."""

    version: Literal[1] = 1
    repositories: tuple[RepositoryPrint, ...]
    conversations: tuple[ConversationPrint, ...]
    records: Sha256
    """Of sessions, queued prompts, pull request, ratchet record, and the journal up to the freeze."""


class BundleFacts(View):
    """A bundle that is whole: of what it is made, and what unpacking it must yield."""

    size: Annotated[int, Field(gt=0, le=BUNDLE_BYTES_MAX)]
    sha256: Sha256
    fingerprint: Fingerprint


class LeftBehind(View):
    """Something that did not travel, and why."""

    path: str
    reason: str
    """``ignored``, ``special`` (pipe, socket, device), ``unreadable``, ``credential`` (looks like one, and nobody said yes),
    ``temporary`` (of an agent or of git), ``other_filesystem``, ``worktree`` (of a repository that is elsewhere), ``name`` (some
    file system takes it for ``.git``)."""
    size: int | None = None


class Contents(View):
    """What a bundle holds, in numbers for people."""

    commits: int
    """That the receiver did not have."""
    files: int
    """Changed, added or untracked, with their content."""
    file_bytes: int
    deleted: int
    stashes: int
    submodules: int
    sessions: int
    queued: int
    events: int
    included: tuple[str, ...] = ()
    """Ignored files that travel by rule; the first of them."""
    whole: bool = False
    """All of the history, because there is no remote to fetch it from."""
    left_behind: tuple[LeftBehind, ...] = ()
    left_behind_count: int = 0


class Receipt(View):
    """Proof of a handoff, the same on both sides: both fingerprints, and what was left behind."""

    handoff_id: HandoffId
    workspace_id: WorkspaceId
    name: str
    direction: Direction
    epoch: Epoch
    """The workspace's, from then on."""
    committed_at: datetime
    bundle_bytes: int
    bundle_sha256: Sha256
    sent: Fingerprint
    arrived: Fingerprint
    contents: Contents

    @property
    def equal(self) -> bool:
        """Nothing was lost on the way."""
        return self.sent == self.arrived


class SentWorkspace(Request):
    """The workspace as a desktop knows it. Without ``repo_url`` the bundle holds the whole history."""

    name: Label
    repo_url: Annotated[str, Field(min_length=1, max_length=URL_CHARS_MAX)] | None = None
    branch: Annotated[str, Field(max_length=250)] | None = None
    github_issue_url: Annotated[str, Field(max_length=URL_CHARS_MAX)] | None = None
    pr_url: Annotated[str, Field(max_length=URL_CHARS_MAX)] | None = None


class NewHandoff(Request):
    """Begin a handoff, or find the one of this ``id`` as it stands.

    ``epoch`` is what the desktop knows of the workspace: an old one is refused with ``stale_epoch``, saying where it is now.
    A send may come without ``bundle`` and ``contents``, which are announced when it is packed.
    """

    id: HandoffId
    direction: Direction
    workspace_id: WorkspaceId
    epoch: Epoch
    desktop_id: DesktopId
    desktop_name: Label
    workspace: SentWorkspace | None = None
    bundle: BundleFacts | None = None
    contents: Contents | None = None
    have: Annotated[tuple[ObjectName, ...], Field(max_length=HAVE_MAX)] = ()
    """Pull: commits this desktop has, so that they need not travel."""
    include: Annotated[tuple[str, ...], Field(max_length=INCLUDE_MAX)] = ()
    """Ignored files that travel, as lines of a gitignore file; beside the repository's ``.worktreeinclude``. A send says it so
    that they find their way home: a pull takes what its own list and that of the last send name."""
    interrupt: bool = False
    """Pull: stop a turn that runs; otherwise it is refused."""

    @model_validator(mode="after")
    def _whole(self) -> Self:
        sent = (self.workspace, self.bundle, self.contents)
        if self.direction is Direction.SEND and (self.workspace is None or (self.bundle is None) != (self.contents is None)):
            msg = "a send needs workspace, and bundle and contents only together"
            raise ValueError(msg)
        if self.direction is Direction.PULL and sent != (None, None, None):
            msg = "a pull has no workspace, bundle or contents"
            raise ValueError(msg)
        return self


class Announced(Request):
    """What a send will upload. May be repeated; until all of it is there, with something else, which is then uploaded anew.

    Other facts than those of a bundle that is whole are refused with ``handoff_differs``.
    """

    bundle: BundleFacts
    contents: Contents


class CommitHandoff(Request):
    """Decide. ``arrived`` is what the receiver found after unpacking; for a send the server knows it itself."""

    arrived: Fingerprint | None = None


class Takeover(Request):
    """A desktop that could not reach the server took its copy back by force; from now on the cloud's is frozen."""

    epoch: Epoch
    """The one the desktop went on under: that of its last handoff, plus one."""
    desktop_id: DesktopId


class HandoffView(View):
    """A handoff as the server knows it."""

    id: HandoffId
    workspace_id: WorkspaceId
    direction: Direction
    status: HandoffStatus
    desktop_id: DesktopId
    desktop_name: str
    epoch: Epoch
    """The workspace's: before the commit the one it was begun under, afterwards the new one."""
    received_bytes: int
    """Of a send's bundle: where to go on."""
    bundle: BundleFacts | None
    """Null while it is packed."""
    contents: Contents | None
    receipt: Receipt | None
    error: ErrorView | None
    operation_id: OperationId | None
    """What works on it now."""
    expires_at: datetime
    created_at: datetime
    updated_at: datetime


class DesktopRef(View):
    """A desktop that holds a workspace."""

    id: DesktopId
    name: str
