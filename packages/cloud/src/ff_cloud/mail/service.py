"""Posting letters, in the transaction of whatever they are about."""

import json
from datetime import timedelta
from uuid import UUID

from ff_cloud.kit.crypto import Sealer
from ff_cloud.kit.db import SystemTx
from ff_cloud.mail import repository
from ff_cloud.mail.letters import Letter
from ff_cloud.mail.repository import Posted
from ff_core.ids import UserId
from ff_core.world import World

LETTER_LIFE = timedelta(hours=24)
"""A letter that could not be sent for so long is dropped: what it says is old by then."""


class Post:
    """The outbox. One per process; each call is one part of the caller's transaction."""

    def __init__(self, sealer: Sealer, world: World) -> None:
        self._sealer = sealer
        self._world = world

    async def post(self, tx: SystemTx, to: str, letter: Letter, *, user_id: UserId | None, life: timedelta = LETTER_LIFE) -> None:
        """Have ``letter`` sent as soon as ``tx`` has committed. With its user an unsent letter goes too, unless that is None."""
        await self._put(tx, to, letter, user_id, life)

    async def pretend(self, tx: SystemTx, to: str, letter: Letter) -> None:
        """Do the work of :meth:`post` for a letter that must not be sent, so that the time does not tell who has an account."""
        await self._put(tx, to, letter, None, timedelta(0))

    def open_posted(self, posted: Posted) -> Letter:
        """The letter in a row. Raises ``SealBroken``."""
        return Letter(**json.loads(self._sealer.open_sealed(posted.content_sealed, _context(posted.id))))

    async def _put(self, tx: SystemTx, to: str, letter: Letter, user_id: UserId | None, life: timedelta) -> None:
        id_, now = self._world.new_id(), self._world.now()
        content = json.dumps({"subject": letter.subject, "text": letter.text, "link": letter.link})
        sealed = self._sealer.seal(content, _context(id_))
        await repository.add(tx, id=id_, user_id=user_id, recipient=to, content_sealed=sealed, now=now, expires_at=now + life)


def _context(id_: UUID) -> str:
    return f"outbox:{id_}"
