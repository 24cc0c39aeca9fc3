"""From the wanted VM to what Docker is asked to create: pure, so that every line of defence can be read in one place."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from ff_cloud.vms.engine.base import Limits, VmSpec
from ff_core.contract.daemon import ENV_GENERATION, ENV_TOKEN_SHA256, ENV_VM_ID
from ff_core.ids import VmId

LABEL_DEPLOYMENT = "ff.deployment"
LABEL_VM = "ff.vm"
LABEL_GENERATION = "ff.generation"
LABEL_FENCE = "ff.fence"

HOST_NAME = "ff-host"
"""How a VM names the machine it runs on: the gateway of its network."""
WORKSPACE_PATH = "/workspace"
STOP_TIMEOUT_S = 10
TMP_BYTES_MAX = 512 * 1024 * 1024
RUN_BYTES_MAX = 16 * 1024 * 1024
LOG_FILE_BYTES_MAX = 10 * 1024 * 1024
LOG_FILES_MAX = 3

CAPABILITIES = ("CHOWN", "DAC_OVERRIDE", "KILL", "SETGID", "SETUID")
"""What the daemon, root without them, needs to prepare files for ``dev`` and to start and end processes as ``dev``."""


@dataclass(frozen=True)
class Place:
    """Where a deployment's containers go, the same for all of them."""

    deployment: str
    network: str
    gateway: str | None
    runtime: str | None = None
    """Another OCI runtime that the Docker Engine knows, such as ``runsc``."""
    volume_options: Mapping[str, str] = field(default_factory=dict)
    """Options of Docker's ``local`` volume driver, such as ``{"type": "tmpfs", "device": "tmpfs", "o": "size=64m"}``."""


def name_of(deployment: str, vm_id: VmId) -> str:
    """The name of a VM's container and of its volume: the same for everybody who asks, so that racing calls meet."""
    return f"ff-{deployment}-{vm_id}"


def network_name_of(deployment: str) -> str:
    """The name of a deployment's own network."""
    return f"ff-{deployment}"


def limits_body(limits: Limits) -> dict[str, Any]:
    """The members of Docker's ``HostConfig`` (and of its update call) that say what a container may use."""
    return {
        "Memory": limits.memory_bytes,
        "MemorySwap": limits.memory_bytes,  # memory and swap together, so: no swap
        "NanoCpus": round(limits.cpus * 1_000_000_000),
        "PidsLimit": limits.pids,
    }


def network_body(deployment: str) -> dict[str, Any]:
    """What Docker is asked for a deployment's network: its containers reach the outside but not each other."""
    return {
        "Name": network_name_of(deployment),
        "CheckDuplicate": True,
        "Driver": "bridge",
        "Options": {"com.docker.network.bridge.enable_icc": "false"},
        "Labels": {LABEL_DEPLOYMENT: deployment},
    }


def container_body(spec: VmSpec, place: Place) -> dict[str, Any]:
    """What Docker is asked to create for ``spec``, the labelled volume included. Holds no secret.

    Docker's default seccomp profile stays, ports are not published, and nothing restarts by itself: the control
    plane decides about that.
    """
    identity = {LABEL_DEPLOYMENT: place.deployment, LABEL_VM: str(spec.vm_id)}
    labels = {**identity, LABEL_GENERATION: str(spec.generation), LABEL_FENCE: str(spec.fence)}
    environment = {
        **spec.environment,
        ENV_VM_ID: str(spec.vm_id),
        ENV_GENERATION: str(spec.generation),
        ENV_TOKEN_SHA256: spec.token_sha256,
    }
    hosts = ({HOST_NAME: place.gateway} if place.gateway else {}) | dict(spec.extra_hosts)
    return {
        "Image": spec.image,
        "Hostname": "workspace",
        "Env": [f"{key}={value}" for key, value in environment.items()],
        "Labels": labels,
        "StopTimeout": STOP_TIMEOUT_S,
        "HostConfig": {
            **limits_body(spec.limits),
            "ReadonlyRootfs": True,
            "CapDrop": ["ALL"],
            "CapAdd": list(CAPABILITIES),
            "SecurityOpt": ["no-new-privileges"],
            "Init": True,
            "RestartPolicy": {"Name": "no"},
            "LogConfig": {
                "Type": "json-file",
                "Config": {"max-size": str(LOG_FILE_BYTES_MAX), "max-file": str(LOG_FILES_MAX)},
            },
            "Tmpfs": {
                # Docker adds noexec by itself; builds and test runs execute what they wrote to /tmp.
                "/tmp": f"rw,exec,nosuid,nodev,mode=1777,size={TMP_BYTES_MAX}",  # noqa: S108  (a mount point in the VM)
                "/run": f"rw,noexec,nosuid,nodev,mode=755,size={RUN_BYTES_MAX}",
            },
            "Mounts": [_volume(spec.vm_id, identity, place)],
            "NetworkMode": place.network,
            "ExtraHosts": [f"{name}:{address}" for name, address in hosts.items()],
            **({"Runtime": runtime} if (runtime := spec.runtime or place.runtime) else {}),
        },
    }


def _volume(vm_id: VmId, labels: Mapping[str, str], place: Place) -> dict[str, Any]:
    """The mount that makes the volume when it is not there. A new one takes over the image's files below the path."""
    return {
        "Type": "volume",
        "Source": name_of(place.deployment, vm_id),
        "Target": WORKSPACE_PATH,
        "VolumeOptions": {
            "Labels": dict(labels),
            "DriverConfig": {"Name": "local", "Options": dict(place.volume_options)},
        },
    }
