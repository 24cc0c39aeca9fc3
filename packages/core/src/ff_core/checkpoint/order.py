"""What the program that packs is told; light, so that whoever starts it need not load what it needs."""

from datetime import datetime
from pathlib import Path

from pydantic import BaseModel

from ff_core.contract.checkpoint import CheckpointRef


class PackOrder(BaseModel):
    """What the daemon orders. ``ignored`` are paths in hexadecimal digits: what the user made need not be text."""

    root: Path
    lists: Path
    number: int
    base: CheckpointRef | None
    made_at: datetime
    ignored: list[str]
