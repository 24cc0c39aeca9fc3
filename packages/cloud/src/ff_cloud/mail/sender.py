"""The loop that empties the outbox. Any number of workers may run it: each letter is held by one at a time."""

from datetime import timedelta
from email.headerregistry import Address
from email.message import EmailMessage
from email.utils import format_datetime

import structlog

from ff_cloud.errors import SealBroken
from ff_cloud.kit.db import Database
from ff_cloud.kit.errors import DatabaseUnavailable
from ff_cloud.kit.heartbeats import UNHEARD, Pulse
from ff_cloud.mail import repository
from ff_cloud.mail.errors import MailRefused, MailUndelivered
from ff_cloud.mail.letters import Letter
from ff_cloud.mail.repository import Posted
from ff_cloud.mail.service import Post
from ff_cloud.mail.transport import SMTP_TIMEOUT_S, Transport
from ff_core.errors import FFError
from ff_core.world import World

log = structlog.get_logger(__name__)

EVERY_S = 1.0
BATCH_MAX = 10
ATTEMPTS_MAX = 12
_BACKOFF_S = 5.0
_BACKOFF_MAX_S = 3600.0
_HOLD = timedelta(seconds=BATCH_MAX * (SMTP_TIMEOUT_S + 5))
"""Longer than a whole batch takes when every letter runs into its time limit."""


class Sender:
    """Sends what is due. A letter whose sender dies in between may be sent twice, with one ``Message-ID``."""

    def __init__(
        self, *, db: Database, post: Post, transport: Transport, sender: str, world: World, pulse: Pulse = UNHEARD
    ) -> None:
        self._db = db
        self._post = post
        self._transport = transport
        self._from = sender
        self._world = world
        self._pulse = pulse

    async def run(self) -> None:
        """Send until cancelled."""
        while True:
            try:
                while await self.once() == BATCH_MAX:
                    pass
                self._pulse.ok()
            except DatabaseUnavailable as error:
                log.warning("mail.cannot_look", reason=error.detail)
                self._pulse.failed(error)
            await self._world.sleep(EVERY_S)

    async def once(self) -> int:
        """One batch; how many letters it had."""
        async with self._db.system_transaction() as tx:
            batch = await repository.claim(tx, self._world.now(), hold=_HOLD, rows_max=BATCH_MAX)
        for posted in batch:
            await self._deliver(posted)
        return len(batch)

    async def _deliver(self, posted: Posted) -> None:
        if posted.expires_at > self._world.now():
            try:
                letter = self._post.open_posted(posted)
                await self._transport.send(message_of(posted, letter, self._from), letter.link)
            except (SealBroken, MailRefused) as error:
                self._give_up(posted, error)
            except MailUndelivered as error:
                if posted.attempts < ATTEMPTS_MAX:
                    log.warning("mail.retried", mail=str(posted.id), attempts=posted.attempts, reason=error.detail)
                    await self._later(posted, error)
                    return
                self._give_up(posted, error)
        async with self._db.system_transaction() as tx:
            await repository.remove(tx, posted.id)

    def _give_up(self, posted: Posted, error: FFError) -> None:
        log.error("mail.given_up", mail=str(posted.id), code=error.code, reason=error.detail)

    async def _later(self, posted: Posted, error: MailUndelivered) -> None:
        delay_s = min(_BACKOFF_S * 2 ** (posted.attempts - 1), _BACKOFF_MAX_S)
        async with self._db.system_transaction() as tx:
            await repository.put_back(tx, posted, self._world.now() + timedelta(seconds=delay_s), error.detail)


def message_of(posted: Posted, letter: Letter, sender: str) -> EmailMessage:
    """The message; the same every time it is made. Pure."""
    message = EmailMessage()
    message["From"] = sender
    message["To"] = Address(addr_spec=posted.recipient)
    message["Subject"] = letter.subject
    message["Date"] = format_datetime(posted.created_at)
    message["Message-ID"] = f"<{posted.id}@{sender.rpartition('@')[2].rstrip('>')}>"
    message["Auto-Submitted"] = "auto-generated"
    message.set_content(letter.text, charset="utf-8")
    return message
