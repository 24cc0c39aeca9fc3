"""The daemon's door (DESIGN.md section 9): what the control plane asks of a VM, and what it hears."""

import re
from typing import Annotated

from pydantic import Field, SecretStr, field_validator

from ff_core.contract.base import Label, Request, View
from ff_core.contract.workspace import URL_CHARS_MAX
from ff_core.ids import VmId, WorkspaceId

PORT = 8430
GENERATION_HEADER = "FF-Generation"
"""Every call but ``health`` carries the VM's generation; an older one than the daemon's is refused (409)."""

ENV_VM_ID = "FF_VM_ID"
ENV_GENERATION = "FF_GENERATION"
ENV_TOKEN_SHA256 = "FF_TOKEN_SHA256"  # noqa: S105  (a verifier: the hash of a 256-bit random token reveals nothing)
"""The daemon knows only the hash of its bearer token, so that neither ``docker inspect`` nor the VM holds the token."""


GIT_HOSTS_MAX = 32
GitHost = Annotated[str, Field(pattern=r"^https?://[a-z0-9.\-\[\]:]{1,260}$")]
"""A git server as repository addresses begin, such as ``https://github.com``; a port only where it is not the scheme's own."""


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
    """Sessions in the middle of a turn."""


class ModelAccess(Request):
    """How the agent reaches the model. Lives in the memory of daemon and agent only."""

    base_url: Annotated[str, Field(max_length=URL_CHARS_MAX, pattern=r"^https?://")] | None = None
    api_key: SecretStr | None = None


class GitAccess(Request):
    """How git in the VM reaches repositories: those on ``hosts`` through the gateway, which adds the owner's credential.

    ``token`` is the VM's own and good for nothing but the gateway. It is the one thing here that lies on the VM's disk.
    """

    gateway_url: Annotated[str, Field(max_length=URL_CHARS_MAX, pattern=r"^https?://[A-Za-z0-9.\-\[\]:]+(/[A-Za-z0-9._~-]+)*$")]
    token: SecretStr
    hosts: Annotated[tuple[GitHost, ...], Field(max_length=GIT_HOSTS_MAX)]

    @field_validator("token")
    @classmethod
    def _fits_a_header(cls, token: SecretStr) -> SecretStr:
        if not re.fullmatch(r"[A-Za-z0-9._~+/=-]{1,4096}", token.get_secret_value()):
            msg = "must be a bearer token"
            raise ValueError(msg)
        return token


class Bind(Request):
    """Give the VM to a workspace. May be repeated for the same workspace (it replaces ``model`` and ``git``).

    Another workspace is refused. Without ``git`` repositories are reached without the gateway.
    """

    workspace_id: WorkspaceId
    name: Label
    model: ModelAccess
    git: GitAccess | None = None


class PrepareRepository(Request):
    """Make the checkout: clone ``url``, or an empty repository. May be repeated; a finished one is left as it is."""

    url: Annotated[str, Field(max_length=URL_CHARS_MAX)] | None = None
    branch: Annotated[str, Field(max_length=250)] | None = None
    token: SecretStr | None = None
    timeout_s: Annotated[float, Field(gt=0, le=3600)] = 600.0


class Repository(View):
    """The checkout as it stands. ``head`` is null in an empty repository, ``branch`` when HEAD is detached."""

    branch: str | None
    head: str | None
    staged: int
    unstaged: int
    untracked: int
    conflicted: int
