"""Where a workspace may live, and the two ways between."""

from enum import StrEnum


class Location(StrEnum):
    """The only place where sessions and ratchet of a workspace may run."""

    DESKTOP = "DESKTOP"
    CLOUD = "CLOUD"


class Direction(StrEnum):
    """SEND: desktop to cloud. PULL: cloud to desktop."""

    SEND = "SEND"
    PULL = "PULL"

    @property
    def destination(self) -> Location:
        """Where the workspace lives afterwards."""
        return Location.CLOUD if self is Direction.SEND else Location.DESKTOP

    @property
    def origin(self) -> Location:
        """Where it lives until then."""
        return Location.DESKTOP if self is Direction.SEND else Location.CLOUD
