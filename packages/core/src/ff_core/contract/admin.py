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
    """The warm pool, and the VMs of all users counted by status (a status without any is left out)."""

    vms: dict[VmStatus, int]
    target: int
    """How many warm VMs are wanted now."""
    warm: int
    """How many wait for a claim, probed and of the present image."""
    warming: int
    """How many are being made."""
    hits: int
    """Claims of the last hour that found a warm VM."""
    misses: int
    """Claims of the last hour for which one had to be made."""
    hit_rate: float | None
    """Of the last hour; null without any claim."""
    oldest_age_s: float | None
    """Since the oldest warm VM was ready; null without any."""
    draining: bool
    """An operator is emptying the server: nothing new is made."""
    waiting: int
    """Requests that wait for room."""
