"""What administrators of a server see and do."""

from datetime import datetime
from typing import Annotated

from pydantic import Field

from ff_core.contract.base import Request, View
from ff_core.contract.workspace import VmStatus
from ff_core.ids import UserId


class AccountView(View):
    """An account as an administrator sees it."""

    id: UserId
    email: str
    name: str
    plan: str
    is_admin: bool
    disabled_at: datetime | None
    closing_at: datetime | None
    """Since when it is being deleted."""
    email_verified_at: datetime | None
    created_at: datetime


class ChangeByAdmin(Request):
    """Move an account to another plan."""

    plan: Annotated[str, Field(min_length=1, max_length=40)]


class PoolView(View):
    """The VMs of all users, counted by status; a status without any is left out."""

    vms: dict[VmStatus, int]
