"""How a letter leaves: by SMTP, or, where no mail server is set, into a folder of this machine."""

import asyncio
import ipaddress
import os
import ssl
from dataclasses import dataclass
from email.message import EmailMessage
from pathlib import Path
from typing import Protocol, Self
from urllib.parse import unquote, urlsplit

import aiosmtplib
import structlog

from ff_cloud.mail.errors import MailRefused, MailUndelivered

log = structlog.get_logger(__name__)

SMTP_TIMEOUT_S = 30.0
FILES_MAX = 1000
_PORTS = {"smtp": 587, "smtps": 465}


class Transport(Protocol):
    """Something that takes letters. A letter may come twice, then with the same ``Message-ID``."""

    async def send(self, message: EmailMessage, link: str | None) -> None:
        """Hand over one letter. Raises :class:`MailUndelivered`, :class:`MailRefused`."""
        ...


@dataclass(frozen=True, slots=True)
class SmtpServer:
    """A mail server. ``smtps`` speaks TLS from the first byte, ``smtp`` after STARTTLS, without which it gets nothing from us."""

    host: str
    port: int
    user: str | None
    password: str | None
    implicit_tls: bool

    @classmethod
    def parse(cls, url: str) -> Self:
        """Take ``smtp://user:password@host:587`` or ``smtps://…`` apart; the settings have checked its form."""
        parts = urlsplit(url)
        user, password = (unquote(text) if text else None for text in (parts.username, parts.password))
        return cls(parts.hostname or "", parts.port or _PORTS[parts.scheme], user, password, parts.scheme == "smtps")

    @property
    def require_tls(self) -> bool:
        """Whether a plain connection will not do: everywhere but on this machine."""
        return not is_loopback(self.host)


class SmtpTransport:
    """One connection per letter: letters are rare, and there is nothing to keep alive."""

    def __init__(self, server: SmtpServer, *, tls: ssl.SSLContext | None = None, require_tls: bool | None = None) -> None:
        self._server = server
        self._tls = tls
        self._require_tls = server.require_tls if require_tls is None else require_tls

    async def send(self, message: EmailMessage, link: str | None) -> None:  # noqa: ARG002
        """See :class:`Transport`."""
        server = self._server
        try:
            async with asyncio.timeout(SMTP_TIMEOUT_S):
                await aiosmtplib.send(
                    message,
                    hostname=server.host,
                    port=server.port,
                    username=server.user,
                    password=server.password,
                    use_tls=server.implicit_tls,
                    start_tls=None if server.implicit_tls or not self._require_tls else True,
                    tls_context=self._tls or ssl.create_default_context(),
                    timeout=SMTP_TIMEOUT_S,
                )
        except aiosmtplib.SMTPRecipientsRefused as error:
            _refuse([refused.code for refused in error.recipients], error)
        except aiosmtplib.SMTPResponseException as error:
            # 530, 534, 535: our own login is wrong; whoever runs the server will set that right.
            _refuse([error.code if error.code not in {530, 534, 535} else 400], error)
        except (aiosmtplib.SMTPException, OSError, TimeoutError) as error:
            raise MailUndelivered(f"The mail server {server.host}:{server.port} failed: {type(error).__name__}.") from error


class FolderTransport:
    """A file per letter, for this user's eyes only; the newest :data:`FILES_MAX` are kept. ``tell``: log the link too."""

    def __init__(self, folder: Path, *, tell: bool) -> None:
        self._folder = folder
        self._tell = tell

    async def send(self, message: EmailMessage, link: str | None) -> None:
        """See :class:`Transport`."""
        try:
            file = await asyncio.to_thread(self._write, message)
        except OSError as error:
            raise MailUndelivered(f"The outbox folder can't be written: {error.strerror}.") from error
        shown = {"link": link} if self._tell and link else {}
        log.info("mail.written", to=message["To"], subject=message["Subject"], file=str(file), **shown)

    def _write(self, message: EmailMessage) -> Path:
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        file = self._folder / f"{message['Message-ID'].strip('<>').partition('@')[0]}.eml"
        temporary = file.with_suffix(".part")
        with os.fdopen(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as writer:
            writer.write(message.as_bytes())
        temporary.replace(file)
        # Ids sort by age.
        for old in sorted(self._folder.glob("*.eml"))[:-FILES_MAX]:
            old.unlink(missing_ok=True)
        return file


def is_loopback(host: str) -> bool:
    """Whether a host to listen on or to connect to is this machine only."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _refuse(codes: list[int], error: aiosmtplib.SMTPException) -> None:
    kind = MailRefused if all(code >= 500 for code in codes) else MailUndelivered
    raise kind(f"The mail server answered {', '.join(map(str, codes))}.") from error
