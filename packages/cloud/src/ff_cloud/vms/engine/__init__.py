"""What makes VMs: a protocol, and Docker behind it."""

from ff_cloud.vms.engine.base import (
    ContainerSeen,
    Endpoint,
    Engine,
    EngineEvent,
    EngineReport,
    Limits,
    Observed,
    VmSpec,
)

__all__ = [
    "ContainerSeen",
    "Endpoint",
    "Engine",
    "EngineEvent",
    "EngineReport",
    "Limits",
    "Observed",
    "VmSpec",
]
