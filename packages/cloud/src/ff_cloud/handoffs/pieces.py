"""The bundles of handoffs on their way, in pieces, in the store that checkpoints are kept in."""

from collections.abc import AsyncGenerator, AsyncIterable, Iterable, Sequence
from contextlib import aclosing, suppress
from datetime import timedelta

import structlog

from ff_cloud.handoffs.errors import PieceUnfit
from ff_cloud.handoffs.model import Handoff, Piece
from ff_cloud.handoffs.repository import SystemHandoffRepository
from ff_cloud.kit.blobs import Blobs
from ff_cloud.kit.db import Database
from ff_core.contract.handoff import PIECE_BYTES_MAX
from ff_core.errors import FFError
from ff_core.world import World

log = structlog.get_logger(__name__)

PIECES_MAX = 20_000
"""Of a bundle: the largest one has a fifth of that when its pieces are as large as they may be."""
STRAY_AGE_MIN = timedelta(hours=1)
"""What belongs to no row is removed when it is so old: younger, it may be on its way."""
BATCH = 500


class Pieces:
    """See the module; any number of processes may have one. ``deployment`` keeps those of several apart in one store."""

    def __init__(self, *, db: Database, blobs: Blobs, deployment: str, world: World) -> None:
        self._db = db
        self._blobs = blobs
        self._top = f"{deployment}/handoffs/"
        self._world = world

    async def put(self, handoff: Handoff, offset: int, chunks: AsyncIterable[bytes], *, bytes_max: int) -> Piece:
        """Store what is to follow ``offset``; it counts when its row is written.

        Raises :class:`PieceUnfit` when it is more than ``bytes_max``; what ``chunks`` and the store raise.
        """
        key = f"{self._top}{handoff.workspace_id}/{handoff.id}/{offset:020d}-{self._world.new_id().hex}"
        stored = await self._blobs.put(key, _bounded(chunks, bytes_max))
        return Piece(offset, key, stored)

    async def read(self, pieces: Sequence[Piece], offset: int) -> AsyncGenerator[bytes, None]:
        """What they hold from ``offset`` on; the first of them has it. Raises ``BlobMissing``, ``BlobDamaged``."""
        for piece in pieces:
            skip = max(0, offset - piece.offset)
            async with aclosing(self._blobs.get(piece.key, expected=piece.stored)) as found:
                async for chunk in found:
                    if skip < len(chunk):
                        yield chunk[skip:]
                    skip = max(0, skip - len(chunk))

    async def delete(self, keys: Iterable[str]) -> None:
        """Remove them as well as it can be done now; :meth:`gc` does the rest."""
        with suppress(FFError):
            for key in keys:
                await self._blobs.delete(key)

    async def gc(self) -> int:
        """Remove what belongs to no row, and has not for an hour; how much. May be repeated and raced."""
        before = self._world.now() - STRAY_AGE_MIN
        removed, batch = 0, list[str]()
        async with aclosing(self._blobs.list(self._top)) as found:
            async for blob in found:
                if blob.modified_at < before:
                    batch.append(blob.key)
                if len(batch) >= BATCH:
                    removed += await self._remove_unwanted(batch)
                    batch = []
        return removed + await self._remove_unwanted(batch)

    async def _remove_unwanted(self, keys: list[str]) -> int:
        if not keys:
            return 0
        async with self._db.system_transaction() as tx:
            wanted = await SystemHandoffRepository(tx).wanted_keys(keys)
        gone = [key for key in keys if key not in wanted]
        for key in gone:
            await self._blobs.delete(key)
        return len(gone)


async def _bounded(chunks: AsyncIterable[bytes], bytes_max: int) -> AsyncGenerator[bytes, None]:
    size = 0
    async for chunk in chunks:
        size += len(chunk)
        if size > bytes_max:
            raise PieceUnfit(f"This piece is longer than what is left of the bundle, or than {PIECE_BYTES_MAX} bytes.")
        yield chunk
