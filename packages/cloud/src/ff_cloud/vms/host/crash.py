"""Places where a death would hurt, so that tests can die there."""

from collections.abc import Callable

Crash = Callable[[str], None]
"""Called with the name of each such place, such as ``ensure:created``."""


def no_crash(_place: str) -> None:
    """What is called in earnest."""
