"""How many warm VMs there should be, and when the next is made: decisions without effects."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta

from ff_cloud.vms.fleet_repository import Demand


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolRules:
    """The settings of the pool. ``vms_min == vms_max`` is a pool of fixed size."""

    vms_min: int
    vms_max: int
    at_once_max: int
    """How many are made at the same time."""
    quiet_s: float = 0.25
    """So long after a claim the next one is not begun: claims come first on a small machine."""
    age_max: timedelta = timedelta(hours=6)
    """An older one is replaced, though nobody took it."""
    demand_minutes: int = 10
    """How far back demand is looked at."""


def target(rules: PoolRules, demand: Sequence[Demand]) -> int:
    """How many warm VMs are wanted: those of the busiest of the last minutes, within the bounds.

    A minute's claims may come all at once, and what refills takes time; so a pool that held the busiest minute would have met
    every claim of it. Without demand it shrinks to the minimum as the busy minutes grow old.
    """
    busiest = max((minute.claims for minute in demand), default=0)
    return max(rules.vms_min, min(rules.vms_max, busiest))


def keep(*, wanted: int, warm: int, leaving: int, waiting: int, room: int) -> int:
    """How many warm VMs to keep: whoever waits for room gets that of one of them, unless there is some, or is about to be."""
    given_up = max(0, waiting - leaving - room)
    return max(0, min(wanted, warm - given_up)) if given_up else wanted


def refill(rules: PoolRules, *, wanted: int, warm: int, warming: int, cold: int, room: int, since_claim_s: float | None) -> int:
    """How many to begin to make now.

    None while a workspace waits for its own VM (``cold``), nor right after a claim, whose user is about to run his first
    command. ``room`` is how many more the machine takes.
    """
    if cold or (since_claim_s is not None and since_claim_s < rules.quiet_s):
        return 0
    return max(0, min(wanted - warm - warming, rules.at_once_max - warming, room))
