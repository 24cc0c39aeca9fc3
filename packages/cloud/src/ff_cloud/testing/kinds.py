"""The kinds of operations on VMs, workspaces and handoffs as a worker builds them, to be looked at and never carried out."""

from dataclasses import fields
from typing import Any

from ff_cloud.handoffs.operations import kinds as handoff_kinds
from ff_cloud.handoffs.settle import HandoffSettler
from ff_cloud.operations.model import Kind
from ff_cloud.vms import steps as vm_steps
from ff_cloud.workspaces.operations import Outside
from ff_cloud.workspaces.operations import kinds as workspace_kinds
from ff_cloud.workspaces.settle import Settler

_NOTHING: Any = None
_COMMON: Any = dict.fromkeys(("db", "engine", "daemons", "specs", "world"))


def _outside() -> Outside:
    return Outside(**{each.name: _NOTHING for each in fields(Outside)})


def kinds_to_look_at() -> dict[str, Kind]:
    """Those on VMs and workspaces, by name; a step or a kind that is new is here by itself."""
    settler = Settler.__new__(Settler)
    made = [*vm_steps.kinds(**_COMMON), *workspace_kinds(**_COMMON, sealer=_NOTHING, settler=settler, outside=_outside())]
    return {kind.name: kind for kind in made}


def handoff_kinds_to_look_at() -> dict[str, Kind]:
    """Those on handoffs, likewise."""
    settler = HandoffSettler.__new__(HandoffSettler)
    rest: Any = dict.fromkeys(("sealer", "pieces", "expires_s"))
    return {kind.name: kind for kind in handoff_kinds(**_COMMON, **rest, settler=settler, outside=_outside())}
