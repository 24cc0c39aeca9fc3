"""What we write to users: plain text, short, in one place. Pure."""

from dataclasses import dataclass

_SIGNED = "\n\n-- \nFactory Factory Cloud. This letter was written by a program; nobody reads answers.\n"


@dataclass(frozen=True, slots=True)
class Letter:
    """A letter. ``link`` is the one in its text, if it has one; whoever has it may do what the letter is about."""

    subject: str
    text: str
    link: str | None = None


def verify(link: str) -> Letter:
    """After a sign-up."""
    return _with_link(
        "Confirm your e-mail",
        "Somebody, hopefully you, opened an account with this e-mail. To confirm that it is yours open this within 24 hours:",
        link,
        "If it was not you, do nothing.",
    )


def have_account(link: str) -> Letter:
    """When somebody signs up, or moves an account, with an e-mail that has an account."""
    return _with_link(
        "You have an account already",
        "Somebody, hopefully you, wanted to use this e-mail for an account. It has one already: log in with it. "
        "To set a new password first open this within 15 minutes:",
        link,
        "If it was not you, do nothing.",
    )


def reset(link: str) -> Letter:
    """To somebody who forgot the password."""
    return _with_link(
        "Set a new password",
        "Somebody, hopefully you, asked for a new password. To set one open this within 15 minutes; it works once:",
        link,
        "If it was not you, do nothing: your password stays as it is.",
    )


def change_email(link: str) -> Letter:
    """To the address an account is to move to."""
    return _with_link(
        "Confirm your new e-mail",
        "You asked to use this e-mail for your account. To confirm it open this within 24 hours:",
        link,
        "If it was not you, do nothing.",
    )


def email_about_to_change(new: str) -> Letter:
    """To the present address, when a change is asked for."""
    return _plain(
        "Your e-mail is about to change",
        f"You asked to use {new} for your account. It counts as soon as that address is confirmed. "
        "If it was not you, change your password now: that ends all other sessions and makes the request void.",
    )


def email_changed(new: str) -> Letter:
    """To the old address, when it was changed."""
    return _plain(
        "Your e-mail was changed",
        f"Your account has the e-mail {new} now. If it was not you, tell whoever runs the server at once.",
    )


def password_changed() -> Letter:
    """After a change or a reset."""
    return _plain(
        "Your password was changed",
        "The password of your account was changed, and its other sessions were ended. If it was not you, set a new one "
        "at once (`forgot password`), and tell whoever runs the server.",
    )


def closing() -> Letter:
    """When an account is about to be deleted."""
    return _plain(
        "Your account is being deleted",
        "You asked to delete your account. Its workspaces, its data and this e-mail are being removed; that can't be undone.",
    )


def device_approved(device: str, place: str) -> Letter:
    """After a device login was approved: whoever was talked into it learns of it here."""
    return _plain(
        "Another machine was logged in",
        f"You let a program on {device!r} (a name it gave itself) at {place} into your account. "
        "If you did not start that login yourself, end it now: ff sessions ls, then ff sessions revoke ID.",
    )


def _with_link(subject: str, before: str, link: str, after: str) -> Letter:
    return Letter(subject, f"{before}\n\n{link}\n\n{after}{_SIGNED}", link)


def _plain(subject: str, text: str) -> Letter:
    return Letter(subject, text + _SIGNED)
