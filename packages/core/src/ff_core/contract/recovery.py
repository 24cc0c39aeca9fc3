"""Accounts by mail: verification, forgotten passwords, changes of password and e-mail, the end of an account."""

from typing import Annotated

from pydantic import Field, SecretStr

from ff_core.contract.account import PASSWORD_CHARS_MAX, PASSWORD_CHARS_MIN
from ff_core.contract.base import Label, Request, View

_Email = Annotated[str, Field(min_length=3, max_length=254)]
_Present = Annotated[SecretStr, Field(max_length=PASSWORD_CHARS_MAX)]
_New = Annotated[SecretStr, Field(min_length=PASSWORD_CHARS_MIN, max_length=PASSWORD_CHARS_MAX)]
_LinkToken = Annotated[SecretStr, Field(min_length=1, max_length=200)]


class AskByMail(Request):
    """Ask for a letter with a link. The answer is the same whether the e-mail has an account or not."""

    email: _Email


class ConfirmMail(Request):
    """The token of a link that was mailed: proof that the letter was read."""

    token: _LinkToken


class ResetPassword(Request):
    """A new password, with the token of the link that was mailed."""

    token: _LinkToken
    password: _New


class ChangePassword(Request):
    """A new password, with the present one."""

    current_password: _Present
    password: _New


class ChangeEmail(Request):
    """A new e-mail, with the present password. It counts when the link that is mailed to it was opened."""

    current_password: _Present
    email: _Email


class ChangeAccount(Request):
    """What an account is called."""

    name: Label


class CloseAccount(Request):
    """Delete the account that asks; an account with a password has to give it."""

    current_password: _Present | None = None


class AcceptedView(View):
    """It is under way; ``message`` says what to expect."""

    message: str


class EmailView(View):
    """An e-mail that was just confirmed."""

    email: str
