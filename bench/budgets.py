"""The numbers we promise (``make bench`` fails on them). Ratios are to a peer measured in the same run."""

from dataclasses import dataclass


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


COLD_START = ColdStart()
DAEMON = Daemon()
