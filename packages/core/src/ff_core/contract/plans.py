"""What an account may use, and uses."""

from ff_core.contract.base import View


class CountLimitView(View):
    """How many there may be, and are."""

    used: int
    max: int


class LimitsView(View):
    """The limits of the account's plan. ``vm_…`` are those of one VM; the server may give less."""

    plan: str
    workspaces: CountLimitView
    running_vms: CountLimitView
    vm_cpus: float
    vm_memory_bytes: int
    vm_disk_bytes: int
