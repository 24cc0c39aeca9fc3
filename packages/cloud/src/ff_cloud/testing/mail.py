"""A mailbox for tests: what the outbox would send, and the links in it."""

from dataclasses import dataclass
from email.message import EmailMessage
from urllib.parse import parse_qs, urlsplit

from ff_cloud.kit.crypto import Sealer
from ff_cloud.kit.db import Database
from ff_cloud.kit.secrets import Secrets
from ff_cloud.mail.errors import MailUndelivered
from ff_cloud.mail.sender import Sender
from ff_cloud.mail.service import Post
from ff_core.world import World


@dataclass(frozen=True, slots=True)
class Received:
    """A letter that came."""

    to: str
    subject: str
    link: str | None

    @property
    def token(self) -> str:
        """The token of its link."""
        return parse_qs(urlsplit(self.link or "").query)["token"][0]


class Mailbox:
    """A ``Transport`` that keeps what it gets; the next deliveries raise what is put into ``failures``."""

    def __init__(self, db: Database, world: World, master: bytes) -> None:
        self.messages: list[EmailMessage] = []
        self.letters: list[Received] = []
        self.failures: list[MailUndelivered] = []
        post = Post(Sealer(Secrets(master).sealing_key), world)
        self.sender = Sender(db=db, post=post, transport=self, sender="Factory <no-reply@cloud.example>", world=world)

    async def send(self, message: EmailMessage, link: str | None) -> None:
        """See ``Transport``."""
        if self.failures:
            raise self.failures.pop(0)
        self.messages.append(message)
        self.letters.append(Received(str(message["To"]), str(message["Subject"]), link))

    async def collect(self) -> list[Received]:
        """Let the outbox be sent; the letters that came by that."""
        before = len(self.letters)
        while await self.sender.once():
            pass
        return self.letters[before:]

    async def link(self, to: str) -> str:
        """The token of the newest link that came to ``to``, now or before."""
        await self.collect()
        return [letter for letter in self.letters if letter.to == to and letter.link][-1].token
