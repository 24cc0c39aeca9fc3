"""What can go wrong with accounts."""

from ff_core.errors import Conflict, InvalidInput


class EmailInvalid(InvalidInput):
    """That is not an e-mail address."""

    code = "email_invalid"

    def __init__(self, why: str) -> None:
        super().__init__(f"That is not an e-mail address. {why}", errors=[{"field": "email", "message": why}])


class EmailTaken(Conflict):
    """There is an account with this e-mail already; log in, or use another one."""

    code = "email_taken"
