"""The audit log, as its users read it."""

from datetime import datetime
from typing import Literal
from uuid import UUID

from ff_core.contract.base import Json, View
from ff_core.ids import UserId

Outcome = Literal["ok", "refused"]


class AuditEventView(View):
    """One security event: whom it concerns, what was done or refused, when and from where. ``detail`` holds no secret."""

    id: UUID
    user_id: UserId | None
    """None when nobody was known, as at a login with an unknown e-mail."""
    at: datetime
    action: str
    outcome: Outcome
    address: str | None
    user_agent: str | None
    request_id: str | None
    detail: Json
