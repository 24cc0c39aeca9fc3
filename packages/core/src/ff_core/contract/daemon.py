"""The daemon's door (DESIGN.md section 9): what the control plane asks of a VM, and what it hears.

=======  ======================  ===========================================================================
GET      ``/v1/health``          :class:`Health`; needs neither a bound daemon nor a generation
POST     ``/v1/probe``           :class:`Probe`, or 503 ``probe_failed``; works unbound
POST     ``/v1/bind``            :class:`Bind` -> :class:`Health`
POST     ``/v1/rest``            :class:`Rest` -> :class:`Health`, or 409 ``vm_in_use``
DELETE   ``/v1/rest``            -> :class:`Health`; the daemon takes work again
PUT      ``/v1/repository/seed``  the stream of ``ff_core.git.seed.pack`` -> :class:`Seeded`
PUT      ``/v1/repository``      :class:`PrepareRepository` -> :class:`Repository`
GET      ``/v1/repository``      -> :class:`Repository`
GET      ``/v1/events``          server-sent events; ``after=SEQ``, and ``copy=1`` when nobody watches
=======  ======================  ===========================================================================

A daemon that rests refuses new work with 409 ``vm_resting`` and goes on answering reads. What it is asked when a workspace moves
is in :mod:`ff_core.contract.daemon_handoff`.
"""

import re
from datetime import datetime
from typing import Annotated

from pydantic import Field, SecretStr, field_validator

from ff_core.contract import plain
from ff_core.contract.base import Label, Request, View
from ff_core.contract.places import Location
from ff_core.contract.plain import (
    BEARER_TOKEN_PATTERN,
    GATEWAY_URL_PATTERN,
    GIT_HOST_PATTERN,
    GIT_HOSTS_MAX,
    URL_CHARS_MAX,
    URL_PATTERN,
)
from ff_core.ids import HandoffId, VmId, WorkspaceId

PORT = plain.PORT
GENERATION_HEADER = plain.GENERATION_HEADER
REQUEST_ID_HEADER = plain.REQUEST_ID_HEADER
REQUEST_ID_PATTERN = plain.REQUEST_ID_PATTERN
ENV_VM_ID = plain.ENV_VM_ID
ENV_GENERATION = plain.ENV_GENERATION
ENV_TOKEN_SHA256 = plain.ENV_TOKEN_SHA256

COPY_PARAMETER = "copy"
"""Of ``/v1/events``: with ``1`` the stream belongs to the control plane's copier, and is no client who keeps the VM awake."""
SEED_BYTES_MAX = 8 << 30
"""Of the body of ``/v1/repository/seed``."""

GitHost = Annotated[str, Field(pattern=GIT_HOST_PATTERN)]
"""A git server as repository addresses begin, such as ``https://github.com``; a port only where it is not the scheme's own."""


class Use(View):
    """What goes on in a VM now, and when something last did. Nothing of it: the VM may be suspended."""

    turns: int
    """Sessions in the middle of something, waits for the user included."""
    commands: int
    """``exec`` calls that run, and the preparation of the checkout."""
    processes: int
    """Of the workspace's user, without agents and without those commands: what was put into the background lives."""
    followers: int
    """Event streams that clients have open; without the control plane's copier (``copy=1``)."""
    active_at: datetime
    """The last moment one of these was seen not to be zero, or a request but ``health``, ``probe``, ``rest``, ``events`` came."""

    @property
    def any(self) -> bool:
        """Whether something goes on."""
        return (self.turns, self.commands, self.processes, self.followers) != (0, 0, 0, 0)


class Health(View):
    """The daemon is alive. ``bound`` is false until the control plane said whose it is, and again after a restart."""

    vm_id: VmId
    generation: int
    version: str
    uptime_s: float
    bound: bool
    workspace_id: WorkspaceId | None
    journal_seq: int
    working: int
    """Sessions in the middle of a turn; the same as ``use.turns``."""
    use: Use
    resting: bool = False
    """No new work is taken; see :class:`Rest`. A daemon that was restarted does not rest."""
    moving: HandoffId | None = None
    """The handoff that has frozen the workspace."""


class Probe(View):
    """What an agent works with is there and works: each program was started as the workspace's user."""

    git: str
    node: str
    claude: str
    """Versions, as the programs say them."""
    volume_writable: bool
    """A file was written to the volume, flushed to the disk and read back."""
    volume_free_bytes: int
    took_ms: float


class Rest(Request):
    """Take no more work, so that the VM can be stopped. In one moment with the look whether it is in use.

    Refused with ``vm_in_use`` while something goes on (:class:`Use`) or when something did in the last ``idle_s``;
    ``force`` skips both: turns and commands that run go on, nothing new begins. May be repeated.
    """

    idle_s: Annotated[float, Field(ge=0)] = 0.0
    force: bool = False


class ModelAccess(Request):
    """How the agent reaches the model. Lives in the memory of daemon and agent only."""

    base_url: Annotated[str, Field(max_length=URL_CHARS_MAX, pattern=URL_PATTERN)] | None = None
    api_key: SecretStr | None = None


class GitAccess(Request):
    """How git in the VM reaches repositories: those on ``hosts`` through the gateway, which adds the owner's credential.

    ``token`` is the VM's own and good for nothing but the gateway. It is the one thing here that lies on the VM's disk.
    """

    gateway_url: Annotated[str, Field(max_length=URL_CHARS_MAX, pattern=GATEWAY_URL_PATTERN)]
    token: SecretStr
    hosts: Annotated[tuple[GitHost, ...], Field(max_length=GIT_HOSTS_MAX)]

    @field_validator("token")
    @classmethod
    def _fits_a_header(cls, token: SecretStr) -> SecretStr:
        if not re.fullmatch(BEARER_TOKEN_PATTERN, token.get_secret_value()):
            msg = "must be a bearer token"
            raise ValueError(msg)
        return token


class Bind(Request):
    """Give the VM to a workspace. May be repeated for the same workspace (it replaces ``model`` and ``git``).

    Another workspace is refused. Without ``git`` repositories are reached without the gateway. Where the workspace lives is the
    control plane's word: with CLOUD a copy that came with a handoff begins to work, and one that was frozen by ``handoff_id``
    goes on; with DESKTOP nothing runs in it. Refused with ``stale_epoch`` when the workspace has been moved since.
    """

    workspace_id: WorkspaceId
    name: Label
    model: ModelAccess
    git: GitAccess | None = None
    existing: bool = False
    """The workspace has been here before: a VM that knows nothing of it lost its files, and refuses (``workspace_missing``)."""
    location: Location = Location.CLOUD
    epoch: Annotated[int, Field(ge=0, lt=2**31)] = 1
    handoff_id: HandoffId | None = None
    """The last handoff that is over: the one by which it came, or one that was given up."""


class PrepareRepository(Request):
    """Make the checkout: clone ``url``, or an empty repository. May be repeated; a finished one is left as it is."""

    url: Annotated[str, Field(max_length=URL_CHARS_MAX)] | None = None
    branch: Annotated[str, Field(max_length=250)] | None = None
    token: SecretStr | None = None
    timeout_s: Annotated[float, Field(gt=0, le=3600)] = 600.0
    bare: bool = False
    """Bring the commits and write no files: a bundle is to be unpacked over them."""


class Seeded(View):
    """A seed was taken; the next :class:`PrepareRepository` of the same address fetches only what it has not."""

    url: str
    size_bytes: int
    took_ms: float


class Repository(View):
    """The checkout as it stands. ``head`` is null in an empty repository, ``branch`` when HEAD is detached."""

    branch: str | None
    head: str | None
    staged: int
    unstaged: int
    untracked: int
    conflicted: int
