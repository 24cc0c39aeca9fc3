"""What of the contract is needed without its models: words, limits, and what the models of a new VM's first calls look like.

Importing Pydantic takes a daemon longer than all else until its first command ran, so what is imported until then knows the
models by these protocols only. They are the same things: each name here is also where it always was.
"""

from enum import StrEnum
from typing import Protocol

from ff_core.contract.places import Location
from ff_core.ids import HandoffId, WorkspaceId

PORT = 8430
GENERATION_HEADER = "FF-Generation"
"""Every call but ``health`` carries the VM's generation; an older one than the daemon's is refused (409)."""
REQUEST_ID_HEADER = "X-Request-Id"
"""Of any call; the daemon logs it and answers with it."""
REQUEST_ID_PATTERN = r"[A-Za-z0-9._-]{1,64}"

ENV_VM_ID = "FF_VM_ID"
ENV_GENERATION = "FF_GENERATION"
ENV_TOKEN_SHA256 = "FF_TOKEN_SHA256"  # noqa: S105  (a verifier: the hash of a 256-bit random token reveals nothing)
"""The daemon knows only the hash of its bearer token, so that neither ``docker inspect`` nor the VM holds the token."""

URL_CHARS_MAX = 2048
URL_PATTERN = r"^https?://"
GIT_HOSTS_MAX = 32
GIT_HOST_PATTERN = r"^https?://[a-z0-9.\-\[\]:]{1,260}$"
GATEWAY_URL_PATTERN = r"^https?://[A-Za-z0-9.\-\[\]:]+(/[A-Za-z0-9._~-]+)*$"
BEARER_TOKEN_PATTERN = r"[A-Za-z0-9._~+/=-]{1,4096}"  # noqa: S105

EXEC_MEDIA_TYPE = "application/x-ndjson"
EXEC_TIMEOUT_S_MAX = 3600.0
EXEC_TIMEOUT_S = 600.0
ARGUMENTS_MAX = 1000
ARGUMENT_CHARS_MAX = 131_072
CWD_CHARS_MAX = 4096
ENV_MAX = 100
ENV_NAME_PATTERN = r"^[A-Za-z_][A-Za-z0-9_]*$"
ENV_NAME_CHARS_MAX = 200
STDIN_CHARS_MAX = 1_000_000


class WorkspaceStatus(StrEnum):
    """Where a workspace is in its life; legal moves are in ``ff_core.workspaces.machine``."""

    NEW = "NEW"
    PROVISIONING = "PROVISIONING"
    READY = "READY"
    FAILED = "FAILED"
    ARCHIVING = "ARCHIVING"
    ARCHIVED = "ARCHIVED"


class Secret(Protocol):
    """Pydantic's ``SecretStr``."""

    def get_secret_value(self) -> str:
        """What it is."""
        ...


class ModelWay(Protocol):
    """:class:`ff_core.contract.daemon.ModelAccess`."""

    @property
    def base_url(self) -> str | None:
        """Where the model is asked."""
        ...

    @property
    def api_key(self) -> Secret | None:
        """With what."""
        ...


class GitWay(Protocol):
    """:class:`ff_core.contract.daemon.GitAccess`."""

    @property
    def gateway_url(self) -> str:
        """Where git goes."""
        ...

    @property
    def token(self) -> Secret:
        """What it shows there."""
        ...

    @property
    def hosts(self) -> tuple[str, ...]:
        """On the way to which servers."""
        ...


class Binding(Protocol):
    """:class:`ff_core.contract.daemon.Bind`."""

    @property
    def workspace_id(self) -> WorkspaceId:
        """Whose VM this is."""
        ...

    @property
    def name(self) -> str:
        """What he calls it."""
        ...

    @property
    def model(self) -> ModelWay:
        """How agents reach the model."""
        ...

    @property
    def git(self) -> GitWay | None:
        """How git reaches repositories."""
        ...

    @property
    def existing(self) -> bool:
        """It has been here before."""
        ...

    @property
    def location(self) -> Location:
        """Where it lives."""
        ...

    @property
    def epoch(self) -> int:
        """How often that changed."""
        ...

    @property
    def handoff_id(self) -> HandoffId | None:
        """The last handoff of it that is over."""
        ...


class Command(Protocol):
    """:class:`ff_core.contract.execution.ExecRequest`."""

    @property
    def argv(self) -> list[str]:
        """The words."""
        ...

    @property
    def cwd(self) -> str | None:
        """Where."""
        ...

    @property
    def env(self) -> dict[str, str]:
        """With what besides the usual."""
        ...

    @property
    def stdin(self) -> str | None:
        """What it reads."""
        ...

    @property
    def timeout_s(self) -> float:
        """How long at most."""
        ...
