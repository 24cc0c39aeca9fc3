"""What can go wrong on the way to a mail server."""

from typing import ClassVar

from ff_core.errors import FFError


class MailUndelivered(FFError):
    """The mail server could not be reached or asked to try later; the letter stays in the outbox."""

    code = "mail_undelivered"
    status = 503
    retriable: ClassVar[bool] = True


class MailRefused(MailUndelivered):
    """The mail server refused the letter for good."""

    code = "mail_refused"
    retriable: ClassVar[bool] = False
