"""What the program that packs is told; light, so that whoever starts it need not load what it needs."""

from datetime import datetime
from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, PlainSerializer, PlainValidator

from ff_core.contract.checkpoint import CheckpointRef

Hex = Annotated[bytes, PlainValidator(bytes.fromhex), PlainSerializer(lambda value: value.hex())]


class PackOrder(BaseModel):
    """What the daemon orders. Paths that the user made are in hexadecimal digits: they need not be text."""

    root: Path
    lists: Path
    number: int
    base: CheckpointRef | None
    made_at: datetime
    ignored: list[Hex]
