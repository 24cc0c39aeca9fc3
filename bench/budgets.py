"""The numbers we promise (``make bench`` fails on them). Ratios are to a peer measured in the same run."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Warm:
    """From ordering a workspace to the first output of a command in it, through the API, one after the other, a warm VM waiting.

    Ratios are to medians of the same run.
    """

    docker_run_ratio_max: float = 0.15
    """Its median, to `docker run` of the same image to its first output."""
    docker_run_p95_ratio_max: float = 0.4
    """Its 95th percentile, to the *median* of `docker run`."""
    peers_ratio_max: float = 1 / 15
    """Its median, to SWE-ReX and to JupyterHub with DockerSpawner."""


@dataclass(frozen=True)
class Burst:
    """As many orders at once as warm VMs wait, each to its first output."""

    at_once: int = 20
    p95_ms_max: float = 750.0
    success_min: float = 1.0


@dataclass(frozen=True)
class ColdStart:
    """From ordering a workspace, no VM waiting, to the first output of a command in it, through the API."""

    ratio_max: float = 1.6
    """Of medians, to ``docker run`` of the same image to its first output."""


@dataclass(frozen=True)
class Daemon:
    """The daemon in a container of its own, with the default hardening, before it is bound."""

    listening_s_max: float = 0.25
    """Median, from the container's start."""
    idle_megabytes_max: float = 40.0
    """Median of the whole container, without page cache; 10^6 bytes."""


@dataclass(frozen=True)
class Gateway:
    """The gateway between an agent and the model, on one machine with both."""

    added_ms_per_token_max: float = 3.0
    """Median of what it adds to a token's way, at 100 tokens per second."""
    stream_ratio_max: float = 1.1
    """Of medians: a whole stream of 100 tokens per second through it, to the same one without it."""
    cpu_percent_per_stream_max: float = 6.0
    """Of one processor, for a stream of 100 tokens per second."""


@dataclass(frozen=True)
class Auth:
    """One request at a time, one process over PostgreSQL on the same machine; medians.

    Three times what two busy cores measured; a login, of four at once, took 50 to 133 ms.
    """

    token_ms_max: float = 6.0
    """One signature (0.1 ms) and one round trip for session, account and rate limit."""
    api_key_ms_max: float = 6.0
    """A hash in place of the signature; five round trips, since the key is compared before anything is counted."""
    limit_ms_max: float = 5.0
    """A transaction with one statement that writes two rows of an unlogged table."""
    login_ms_max: float = 400.0
    """Argon2id with OWASP's parameters is most of it, and meant to be."""


@dataclass(frozen=True)
class Request:
    """What the API takes by itself: its own process over PostgreSQL on the same machine, one request at a time; medians.

    Three times what two quiet cores measured.
    """

    me_ms_max: float = 7.5
    """`GET /v1/me` with an access token."""
    warm_ms_max: float = 21.0
    """`POST /v1/workspaces` that claims and binds a warm VM, and `exec` to its first output, with a VM that answers at once."""


@dataclass(frozen=True)
class Mirrors:
    """From the order to the checkout through a daemon, when the machine has a mirror of the repository.

    Ratios of medians, to a clone from its server. Writing the working tree is the same for both, so the less of it there is
    beside the history, the smaller the ratio.
    """

    ratio_max: float = 0.8
    """A repository of about 50 MB."""
    large_ratio_max: float = 0.6
    """One of about 500 MB."""


@dataclass(frozen=True)
class Handoff:
    """A dirty workspace of a repository of about 50 MB, sent to the cloud; medians."""

    ratio_max: float = 1.5
    """From the order to READY in the cloud, to a plain clone of the repository."""


AUTH = Auth()
BURST = Burst()
COLD_START = ColdStart()
GATEWAY = Gateway()
HANDOFF = Handoff()
DAEMON = Daemon()
MIRRORS = Mirrors()
REQUEST = Request()
WARM = Warm()
