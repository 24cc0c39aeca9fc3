"""What can go wrong with accounts."""

from typing import Any

from ff_cloud.errors import NotLoggedIn
from ff_core.errors import Conflict, InvalidInput


class EmailInvalid(InvalidInput):
    """That is not an e-mail address."""

    code = "email_invalid"

    def __init__(self, why: str) -> None:
        super().__init__(f"That is not an e-mail address. {why}", errors=[{"field": "email", "message": why}])


class EmailTaken(Conflict):
    """There is an account with this e-mail already; log in, or use another one."""

    code = "email_taken"


class AccountDisabled(NotLoggedIn):
    """This account is disabled, or is being deleted; ask whoever runs this server."""

    code = "account_disabled"


class LastAdministrator(Conflict):
    """This is the only administrator of the server; make somebody else one first."""

    code = "last_administrator"


class PlanUnknown(InvalidInput):
    """There is no such plan."""

    code = "plan_unknown"


class PlanLimitReached(Conflict):
    """The account's plan does not allow more of this; the message says which limit it is, what is used, and what frees some."""

    code = "limit_reached"

    def __init__(self, detail: str, *, limit: str, used: int, max: int, plan: str) -> None:  # noqa: A002
        facts: dict[str, Any] = {"limit": limit, "used": used, "max": max, "plan": plan}
        super().__init__(detail, **facts)
