"""The kinds of operations on VMs and workspaces as a worker builds them, to be looked at and never carried out."""

from dataclasses import fields
from typing import Any

from ff_cloud.operations.model import Kind
from ff_cloud.vms import steps as vm_steps
from ff_cloud.workspaces.operations import Outside
from ff_cloud.workspaces.operations import kinds as workspace_kinds
from ff_cloud.workspaces.settle import Settler


def kinds_to_look_at() -> dict[str, Kind]:
    """By name; a step or a kind that is new is here by itself."""
    nothing: Any = None
    outside = Outside(**{each.name: nothing for each in fields(Outside)})
    settler = Settler.__new__(Settler)
    common: Any = dict.fromkeys(("db", "engine", "daemons", "specs", "world"))
    made = [*vm_steps.kinds(**common), *workspace_kinds(**common, sealer=nothing, settler=settler, outside=outside)]
    return {kind.name: kind for kind in made}
