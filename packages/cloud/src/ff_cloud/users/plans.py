"""What an account may use. Plans are rows of a table: changing one counts for the next request, without a restart."""

from enum import StrEnum

from ff_cloud.kit.db import SystemTx, Tx
from ff_cloud.users import repository
from ff_cloud.users.errors import PlanLimitReached
from ff_cloud.users.model import Plan
from ff_core.errors import NotFound
from ff_core.ids import UserId


class Countable(StrEnum):
    """What is counted against a plan."""

    WORKSPACES = "workspaces"
    RUNNING_VMS = "running_vms"


_WORDS = {Countable.WORKSPACES: "workspaces", Countable.RUNNING_VMS: "running VMs"}
_FREED_BY = "delete a workspace with `ff rm NAME` first, or ask whoever runs this server for another plan"


async def of(tx: Tx | SystemTx, user_id: UserId) -> Plan:
    """The plan of an account. Raises ``NotFound`` when the account is gone."""
    plan = await repository.plan_of(tx, user_id)
    if plan is None:
        raise NotFound
    return plan


async def hold(tx: Tx) -> Plan:
    """The plan of the transaction's user. Whoever else holds it waits until ``tx`` ends, so that what is counted stays true."""
    plan = await repository.hold_plan(tx, tx.user_id)
    if plan is None:
        raise NotFound
    return plan


def limit(plan: Plan, what: Countable) -> int:
    """How many of these a plan allows. Pure."""
    return {Countable.WORKSPACES: plan.workspaces_max, Countable.RUNNING_VMS: plan.running_vms_max}[what]


def require_room(plan: Plan, what: Countable, used: int) -> None:
    """Raise :class:`PlanLimitReached` unless there is room for one more beside the ``used`` ones. Pure; :func:`hold` first."""
    most = limit(plan, what)
    if used >= most:
        detail = f"Your plan `{plan.name}` allows {most} {_WORDS[what]} and you have {used}; {_FREED_BY}."
        raise PlanLimitReached(detail, limit=what, used=used, max=most, plan=plan.name)


async def everything(tx: SystemTx) -> list[Plan]:
    """All plans there are."""
    return await repository.all_plans(tx)
