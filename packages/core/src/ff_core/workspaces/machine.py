"""The life of a workspace (DOMAIN.md, section 2)."""

from ff_core.contract.plain import WorkspaceStatus as Status
from ff_core.machine import Machine

MACHINE = Machine(
    "workspace",
    {
        Status.NEW: frozenset({Status.PROVISIONING}),
        Status.PROVISIONING: frozenset({Status.READY, Status.FAILED}),
        Status.READY: frozenset({Status.ARCHIVING, Status.PROVISIONING}),
        Status.FAILED: frozenset({Status.PROVISIONING, Status.NEW, Status.ARCHIVING}),
        Status.ARCHIVING: frozenset({Status.ARCHIVED, Status.READY, Status.FAILED}),
        Status.ARCHIVED: frozenset(),
    },
)
