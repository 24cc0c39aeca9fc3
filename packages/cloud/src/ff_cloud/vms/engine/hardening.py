"""From the wanted VM to what Docker is asked to create: pure, so that every line of defence can be read in one place."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ff_cloud.vms.engine.base import Limits, VmSpec
from ff_core.contract.daemon import ENV_GENERATION, ENV_TOKEN_SHA256, ENV_VM_ID
from ff_core.ids import VmId

LABEL_DEPLOYMENT = "ff.deployment"
LABEL_VM = "ff.vm"
LABEL_GENERATION = "ff.generation"
LABEL_FENCE = "ff.fence"
LABEL_TRIAL = "ff.trial"

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


SECCOMP = json.dumps(json.loads(Path(__file__).with_name("seccomp.json").read_text()), separators=(",", ":"))
"""The system calls that VMs may make: fewer than Docker's default. No io_uring, keyrings, user faults, performance counters,
BPF, namespaces, mounts, kernel modules or clock setting, and no 32-bit programs.
"""
SECURITY = ("no-new-privileges", f"seccomp={SECCOMP}")


@dataclass(frozen=True)
class Direct:
    """For a container that we connect to the network ourselves: the files that Docker makes for those it connects."""

    hosts: Path
    resolv_conf: Path
    ipv6: bool
    """Whether this kernel has IPv6, which is then turned off in VMs."""


@dataclass(frozen=True)
class Place:
    """Where a deployment's containers go, the same for all of them."""

    deployment: str
    network: str
    gateway: str | None
    runtime: str | None = None
    """Another OCI runtime that the Docker Engine knows, such as ``crun``; what the VM itself asks for goes first."""
    direct: Direct | None = None
    """Null: Docker connects them."""


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


def network_body(deployment: str, mtu: int | None = None) -> dict[str, Any]:
    """What Docker is asked for a deployment's network: its containers reach the outside but not each other."""
    options = {"com.docker.network.bridge.enable_icc": "false"}
    if mtu is not None:
        options["com.docker.network.driver.mtu"] = str(mtu)
    return {
        "Name": network_name_of(deployment),
        "CheckDuplicate": True,
        "Driver": "bridge",
        "Options": options,
        "Labels": {LABEL_DEPLOYMENT: deployment},
    }


def volume_labels(deployment: str, vm_id: VmId) -> dict[str, str]:
    """How a VM's volume is found without its container."""
    return {LABEL_DEPLOYMENT: deployment, LABEL_VM: str(vm_id)}


def hosts_of(place: Place, more: Mapping[str, str]) -> dict[str, str]:
    """Host name to address, as a VM resolves them."""
    return ({HOST_NAME: place.gateway} if place.gateway else {}) | dict(more)


def container_body(spec: VmSpec, place: Place) -> dict[str, Any]:
    """What Docker is asked to create for ``spec``, whose volume exists. Holds no secret.

    Ports are not published, and nothing restarts by itself: the control plane decides about that.
    """
    labels = {
        **volume_labels(place.deployment, spec.vm_id),
        LABEL_GENERATION: str(spec.generation),
        LABEL_FENCE: str(spec.fence),
    }
    environment = {
        **spec.environment,
        ENV_VM_ID: str(spec.vm_id),
        ENV_GENERATION: str(spec.generation),
        ENV_TOKEN_SHA256: spec.token_sha256,
    }
    body = walls(spec.image, spec.limits, place, runtime=spec.runtime, hosts=spec.extra_hosts)
    body |= {"Env": [f"{key}={value}" for key, value in environment.items()], "Labels": labels}
    body["HostConfig"]["Mounts"].append(_volume(spec.vm_id, place))
    return body


def trial_body(image: str, limits: Limits, place: Place, mounts: list[dict[str, Any]]) -> dict[str, Any]:
    """A container with the same walls that does nothing, to see whether this machine can make such. It ends by itself."""
    body = walls(image, limits, place, runtime=None, hosts={})
    body |= {"Cmd": ["sleep", "30"], "Labels": {LABEL_DEPLOYMENT: place.deployment, LABEL_TRIAL: "1"}}
    body["HostConfig"]["AutoRemove"] = True
    body["HostConfig"]["Mounts"] += mounts
    return body


def walls(image: str, limits: Limits, place: Place, *, runtime: str | None, hosts: Mapping[str, str]) -> dict[str, Any]:
    """What is the same for every container."""
    host: dict[str, Any] = {
        **limits_body(limits),
        "ReadonlyRootfs": True,
        "CapDrop": ["ALL"],
        "CapAdd": list(CAPABILITIES),
        "SecurityOpt": list(SECURITY),
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
        "Mounts": [],
    }
    if chosen := runtime or place.runtime:
        host["Runtime"] = chosen
    body = {"Image": image, "Hostname": "workspace", "StopTimeout": STOP_TIMEOUT_S, "HostConfig": host}
    if place.direct is None:
        host["NetworkMode"] = place.network
        host["ExtraHosts"] = [f"{name}:{address}" for name, address in hosts_of(place, hosts).items()]
        return body
    body["NetworkDisabled"] = True  # by Docker: a namespace of its own with nothing in it, until we connect it
    host["Mounts"] += [_file(place.direct.hosts, "/etc/hosts"), _file(place.direct.resolv_conf, "/etc/resolv.conf")]
    if place.direct.ipv6:
        host["Sysctls"] = {f"net.ipv6.conf.{name}.disable_ipv6": "1" for name in ("all", "default")}
    return body


def is_direct(info: Mapping[str, Any]) -> bool:
    """Whether a container, as Docker shows it, is one that we connect."""
    return bool(info["Config"].get("NetworkDisabled"))


def hole(info: Mapping[str, Any], network_id: str) -> str | None:
    """What is wrong with the walls of a container, as Docker shows it; null when they are as :func:`walls` asked for."""
    host, networks = info["HostConfig"], info["NetworkSettings"]["Networks"] or {}
    ports = [*(host.get("PortBindings") or {}).values(), *(info["NetworkSettings"].get("Ports") or {}).values()]
    names = {name.removeprefix("CAP_") for name in host.get("CapAdd") or ()}
    on = [network["NetworkID"] for network in networks.values()]
    own = host["PidMode"] == "" and host["UTSMode"] == "" and host["IpcMode"] in {"private", "none"}
    checks = {
        "it does not run": info["State"]["Running"] and not info["State"]["Paused"],
        "it is privileged": not host["Privileged"] and not host.get("Devices"),
        "it has capabilities that it must not have": host["CapDrop"] == ["ALL"] and names <= set(CAPABILITIES),
        "its root file system can be written": host["ReadonlyRootfs"],
        "its processes may gain privileges, or make other system calls": set(SECURITY) <= set(host["SecurityOpt"] or ()),
        "it shares a namespace with this machine or another VM": own,
        "a port of it is published": not any(ports) and not host["PublishAllPorts"],
        "it is not on exactly one network, that of VMs": not on if is_direct(info) else on == [network_id],
    }
    return next((problem for problem, fine in checks.items() if not fine), None)


def _volume(vm_id: VmId, place: Place) -> dict[str, Any]:
    """The mount of the VM's volume. A new one takes over the image's files below the path."""
    return {
        "Type": "volume",
        "Source": name_of(place.deployment, vm_id),
        "Target": WORKSPACE_PATH,
        # Should it have been removed since, Docker makes another, which is found by these.
        "VolumeOptions": {"Labels": volume_labels(place.deployment, vm_id)},
    }


def _file(source: Path, target: str) -> dict[str, Any]:
    return {"Type": "bind", "Source": str(source), "Target": target, "ReadOnly": True}
