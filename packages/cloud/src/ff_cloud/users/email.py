"""One spelling per e-mail address."""

from email_validator import EmailNotValidError, validate_email

from ff_cloud.users.errors import EmailInvalid


def normalised(email: str) -> str:
    """The address in the one spelling we store and compare: checked, Unicode-normalised, in lower case.

    Strictly the part before the @ is case-sensitive; no provider treats it so, and two accounts that differ in case only
    would be a trap. Nothing is asked of DNS. Raises :class:`EmailInvalid`.
    """
    try:
        return validate_email(email, check_deliverability=False).normalized.lower()
    except (EmailNotValidError, UnicodeError) as error:
        why = str(error) if isinstance(error, EmailNotValidError) else "It has characters that are not allowed."
        raise EmailInvalid(why) from error
