"""Accounts and plans as the server sees them."""

from dataclasses import dataclass
from datetime import datetime

from ff_core.ids import UserId


@dataclass(frozen=True, slots=True)
class Account:
    """An account as the server sees it."""

    id: UserId
    email: str
    name: str
    plan: str
    is_admin: bool
    disabled_at: datetime | None
    closing_at: datetime | None
    """Since when it is being deleted; then it is disabled too, and nobody can enable it again."""
    email_verified_at: datetime | None
    created_at: datetime


@dataclass(frozen=True, slots=True)
class Plan:
    """What an account may use; the ``vm_…`` are limits of one VM."""

    name: str
    workspaces_max: int
    running_vms_max: int
    vm_cpus: float
    vm_memory_bytes: int
    vm_disk_bytes: int
    vm_runtime: str | None = None
    """The OCI runtime of its VMs, such as ``runsc``; None: the usual one, which the warm pool has."""
