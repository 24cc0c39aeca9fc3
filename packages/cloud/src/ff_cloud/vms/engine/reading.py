"""From what Docker shows to what we know: pure."""

import json
from collections.abc import Mapping
from datetime import UTC, datetime
from ipaddress import IPv4Address, IPv4Network
from typing import Any, get_args
from uuid import UUID

from ff_cloud.vms.engine.base import ContainerSeen, ContainerState, Endpoint, EngineEvent, ImageSeen
from ff_cloud.vms.engine.errors import EngineFailed, NoCapacity, RuntimeMissing, VolumeMissing
from ff_cloud.vms.engine.hardening import LABEL_FENCE, LABEL_GENERATION, LABEL_VM
from ff_cloud.vms.errors import DockerUnreachable, ImageMissing
from ff_cloud.vms.host.network import Bridge
from ff_core.contract.daemon import PORT
from ff_core.errors import FFError
from ff_core.ids import VmId

Json = Mapping[str, Any]

UNREACHABLE_STATUS = 900  # aiodocker's own, for "no connection"
MESSAGE_CHARS_MAX = 300
MTU_OF_DOCKER = 1500
"""Of its networks, where nothing else was asked for."""
FULL = (
    "no space left on device",
    "cannot allocate memory",
    "disk quota exceeded",
    "address pool",
    "no available ip",
    "adding interface",  # the bridge of a Linux kernel takes 1023 containers: "exchange full"
    "too many open files",
)
STATES: Mapping[str, ContainerState] = {
    **{state: state for state in get_args(ContainerState)},
    "paused": "running",  # by somebody else's hand; its daemon is silent, which health will find
    "restarting": "running",
    "removing": "dead",
}


class Refused(Exception):
    """The Docker Engine said no, in its own words. Leaves the engine's modules only as what :func:`translate` makes of it."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(f"{status}: {message}")
        self.status = status
        self.message = message


def translate(error: Refused) -> FFError:
    """What a refusal of the Docker Engine means to us."""
    if error.status == UNREACHABLE_STATUS:
        return DockerUnreachable()
    low = " ".join(error.message.split()).lower()
    message = " ".join(error.message.split())[:MESSAGE_CHARS_MAX]
    if error.status == 404 and "no such image" in low:
        return ImageMissing()
    if "unknown runtime" in low:
        return RuntimeMissing(f"{message}. Install it and tell the Docker Engine of it, or correct FF_VM_RUNTIME.")
    if "failed to mount local volume" in low and "no such file" in low:
        return VolumeMissing()
    if any(sign in low for sign in FULL):
        return NoCapacity(f"The machine that runs VMs is full ({message}). Delete workspaces, or ask its operator for more room.")
    return EngineFailed(f"The Docker Engine refused: {message}. If it stays so, run `ff-cloud doctor` on the server.")


def vm_id_of(labels: Json | None) -> VmId | None:
    """Whose container or volume this is; null when the label is none of ours."""
    try:
        return VmId(UUID((labels or {})[LABEL_VM]))
    except (KeyError, ValueError):
        return None


def container_seen(info: Json) -> ContainerSeen:
    """A container, from Docker's ``inspect``."""
    labels, state = info["Config"]["Labels"] or {}, info["State"]
    now = STATES.get(state["Status"], "dead")
    addresses = [network["IPAddress"] for network in info["NetworkSettings"]["Networks"].values() if network["IPAddress"]]
    started_at = datetime.fromisoformat(state["StartedAt"])
    return ContainerSeen(
        id=info["Id"],
        state=now,
        address=addresses[0] if now == "running" and addresses else None,
        generation=int(labels.get(LABEL_GENERATION, 0)),
        fence=int(labels.get(LABEL_FENCE, 0)),
        exit_code=state["ExitCode"] if now in {"exited", "dead"} else None,
        oom_killed=state["OOMKilled"],
        started_at=started_at if started_at.year > 1 else None,  # Docker's zero time: never
        image=info["Config"]["Image"],
    )


def endpoint_of(seen: ContainerSeen, *, started: bool) -> Endpoint | None:
    """Where a running container is; null when it has to be started (and was not just ``started`` in vain)."""
    if seen.address is not None:
        return Endpoint(seen.id, seen.address, PORT)
    if seen.state == "running":
        raise EngineFailed("The VM lost its network. Remove its container, so that it is made anew over the same files.")
    if started and seen.state == "exited":
        why = "out of memory" if seen.oom_killed else f"exit code {seen.exit_code}"
        raise EngineFailed(f"The VM ended right after its start ({why}). `docker logs {seen.id[:12]}` on the server may say why.")
    return None


def gateway_of(network: Json) -> str | None:
    """The host's own address on a network; null when Docker gave it none."""
    configs = network["IPAM"]["Config"] or []
    return next((config["Gateway"].partition("/")[0] for config in configs if config.get("Gateway")), None)


def bridge_of(network: Json) -> Bridge | None:
    """A network as the kernel of its machine knows it; null when it is no bridge with IPv4 addresses and a gateway."""
    gateway = gateway_of(network)
    subnet = next((config["Subnet"] for config in network["IPAM"]["Config"] or [] if ":" not in config["Subnet"]), None)
    if network["Driver"] != "bridge" or gateway is None or subnet is None:
        return None
    options = network["Options"] or {}
    name = options.get("com.docker.network.bridge.name") or f"br-{network['Id'][:12]}"
    mtu = int(options.get("com.docker.network.driver.mtu", MTU_OF_DOCKER))
    return Bridge(name, IPv4Network(subnet), IPv4Address(gateway), mtu)


def image_seen(image: Json) -> ImageSeen:
    """An image, from Docker's list."""
    made_at = datetime.fromtimestamp(image["Created"], UTC)
    return ImageSeen(image["Id"], tuple(image["RepoTags"] or ()), made_at, image["Size"])


def event_of(line: bytes) -> EngineEvent | None:
    """One line of Docker's event stream; null when it is not about a VM."""
    event = json.loads(line)
    vm_id = vm_id_of(event.get("Actor", {}).get("Attributes"))
    match event.get("Action"):
        case "start" | "oom" | "die" | "destroy" as kind if vm_id is not None:
            return EngineEvent(vm_id, kind)
        case _:
            return None
