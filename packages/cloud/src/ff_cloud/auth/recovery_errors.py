"""What can go wrong with links in mails and with changes of password and e-mail."""

from ff_cloud.errors import CloudError
from ff_core.errors import Conflict, InvalidInput


class LinkInvalid(InvalidInput):
    """This link is not good any more: it was used, is too old, or a newer one was sent. Ask for another one."""

    code = "link_invalid"


class EmailUnverified(CloudError):
    """Confirm your e-mail first: open the link that was mailed to you, or ask for another one."""

    code = "email_unverified"
    status = 403


class PasswordWrong(CloudError):
    """The present password is wrong."""

    code = "password_wrong"
    status = 403


class PasswordMissing(Conflict):
    """This account has no password; ask for a link to set one (`forgot password`)."""

    code = "password_missing"
