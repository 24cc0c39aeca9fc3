"""What makes VMs: a protocol, and Docker behind it."""

from ff_cloud.vms.engine.base import (
    Capacity,
    ContainerSeen,
    Endpoint,
    Engine,
    EngineEvent,
    EngineReport,
    ImageSeen,
    Limits,
    Observed,
    VmSpec,
)

__all__ = [
    "Capacity",
    "ContainerSeen",
    "Endpoint",
    "Engine",
    "EngineEvent",
    "EngineReport",
    "ImageSeen",
    "Limits",
    "Observed",
    "VmSpec",
]
