"""VMs on the bridge of their network, connected by us: 2 ms, where the Docker Engine takes 150.

Nothing is kept about it anywhere but in the kernel. The host's end of a VM's cable is named by the VM's address and carries
the container's id as its alias, so the name gives an address to one VM at a time; the cable goes with the container.
"""

import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from errno import EXFULL
from ipaddress import IPv4Address, IPv4Interface, IPv4Network
from pathlib import Path

from ff_cloud.vms.engine.errors import EngineFailed, NoCapacity
from ff_cloud.vms.host.crash import Crash, no_crash
from ff_cloud.vms.host.errors import HostFailed
from ff_cloud.vms.host.netlink import Link, Netlink, netlink_of

ADDRESSES_MAX = 2048
"""Per network, from the middle of its subnet upwards: the Docker Engine gives out addresses from below."""
CABLE = "ff-"
"""How the host's ends of the cables begin; the address in hexadecimal follows."""
INSIDE = "eth0"
_LOOPBACK = 1


@dataclass(frozen=True)
class Bridge:
    """The network of a deployment as the kernel knows it."""

    name: str
    subnet: IPv4Network
    gateway: IPv4Address
    mtu: int


class Ended(EngineFailed):
    """The VM ended while it was connected to its network; try again."""


class BridgeMissing(HostFailed):
    """The VMs' network was removed from this machine; it is made again with the next VM."""


def attach(bridge: Bridge, container_id: str, pid: int, *, crash: Crash = no_crash) -> IPv4Address:
    """Connect the container whose first process is ``pid``, or find it connected. Safe to repeat and to race.

    Raises ``BridgeMissing``, ``NoCapacity`` when all addresses or ports are taken, ``Ended``.
    """
    try:
        with _namespace(container_id, pid) as namespace, Netlink() as here:
            master = here.link(bridge.name)
            if master is None:
                raise BridgeMissing
            cable, address = _plug_in(here, bridge, master, namespace)
            crash("connect:plugged")
            if cable.master != master.index:
                here.enslave(cable.index, master.index)
            if cable.alias != container_id:
                here.set_alias(cable.index, container_id)
            here.isolate(cable.index)
            here.pin_neighbour(master.index, address, _mac(address))
            crash("connect:outside")
            with netlink_of(namespace) as there:
                _configure(there, bridge, address)
            return address
    except OSError as error:
        if error.errno == EXFULL:
            raise NoCapacity("The VMs' network has no room for another VM. Delete workspaces that are done with.") from error
        raise HostFailed(f"The VM could not be connected to its network ({error.strerror}). Try again.") from error


def is_here(bridge: Bridge) -> bool:
    """Whether the bridge is one of this machine, which then has the gateway's address on it."""
    with Netlink() as here:
        link = here.link(bridge.name)
        return link is not None and any(address.ip == bridge.gateway for address in here.addresses(link.index))


def addresses(bridge: Bridge) -> dict[str, IPv4Address]:
    """Where each connected container is, by its id."""
    with Netlink() as here:
        master = here.link(bridge.name)
        if master is None:
            return {}
        ours = [link for link in here.links() if link.master == master.index and link.name.startswith(CABLE)]
    return {link.alias: found for link in ours if link.alias and (found := _address_of(link.name)) in bridge.subnet}


def hole(bridge: Bridge, container_id: str, pid: int) -> str | None:
    """What is wrong with the network of a container; null when it is just as :func:`attach` made it."""
    try:
        with _namespace(container_id, pid) as namespace, Netlink() as here, netlink_of(namespace) as there:
            return _hole_outside(here, bridge, container_id) or _hole_inside(here, there, bridge, container_id)
    except OSError as error:
        return f"its network can't be looked at ({error.strerror})"


def _hole_outside(here: Netlink, bridge: Bridge, container_id: str) -> str | None:
    master, links = here.link(bridge.name), here.links()
    cables = [link for link in links if link.alias == container_id]
    if master is None or len(cables) != 1 or cables[0].master != master.index:
        return "it is not connected to the VMs' network by exactly one cable"
    namespace = cables[0].peer_namespace
    if namespace is None or [link for link in links if link.peer_namespace == namespace] != cables:
        return "it shares its network with another VM or with this machine"
    if not here.isolated(cables[0].index):
        return "its port lets it reach other VMs"
    return None


def _hole_inside(here: Netlink, there: Netlink, bridge: Bridge, container_id: str) -> str | None:
    up = [link for link in there.links() if link.up and link.index != _LOOPBACK]
    if [link.name for link in up] != [INSIDE]:
        return f"its interfaces are {', '.join(link.name for link in up) or 'none'}"
    given = {_address_of(link.name) for link in here.links() if link.alias == container_id}
    found = there.addresses(up[0].index)
    if {address.ip for address in found} != given or any(address.network != bridge.subnet for address in found):
        return "its addresses are not the one it was given"
    return None


def default_mtu() -> int | None:
    """The largest packet on the host's way out; null when there is no way out."""
    for line in Path("/proc/net/route").read_text().splitlines()[1:]:
        name, destination, *_ = line.split()
        if destination == "00000000":
            return int(Path(f"/sys/class/net/{name}/mtu").read_text())
    return None


def _plug_in(here: Netlink, bridge: Bridge, master: Link, namespace: int) -> tuple[Link, IPv4Address]:
    """The container's cable: a new one, or the one that it has. What tells whose a cable is is where its other end is."""
    for address in _candidates(bridge, namespace):
        name, mac = f"{CABLE}{int(address):08x}", _mac(address)
        made = here.add_veth(name, master=master.index, mtu=bridge.mtu, peer=INSIDE, peer_mac=mac, namespace_fd=namespace)
        cable = here.link(name)
        if cable is not None and (made or cable.peer_namespace == here.namespace_number(namespace)):
            return cable, address
        if cable is None and not made:  # then the other end is there already, and this one has another address
            number = here.namespace_number(namespace)
            old = next((link for link in here.links() if number is not None and link.peer_namespace == number), None)
            if old is not None and old.name.startswith(CABLE) and (found := _address_of(old.name)) in bridge.subnet:
                return old, found
            if old is not None:
                here.remove(old.name)  # of a network that was removed meanwhile
    raise NoCapacity("The VMs' network has no free address. Delete workspaces that are done with.")


def _configure(there: Netlink, bridge: Bridge, address: IPv4Address) -> None:
    own = there.link(INSIDE)
    if own is None:
        raise Ended
    there.add_address(own.index, IPv4Interface((address, bridge.subnet.prefixlen)))
    there.set_up(_LOOPBACK)
    there.set_up(own.index)
    there.add_default_route(own.index, bridge.gateway)


def _candidates(bridge: Bridge, namespace: int) -> Iterator[IPv4Address]:
    """Addresses to try, each once, in an order of the container's own."""
    half = bridge.subnet.num_addresses // 2
    count = min(half - 1, ADDRESSES_MAX)  # the last one is for broadcast
    first = int.from_bytes(hashlib.sha256(b"%d" % os.fstat(namespace).st_ino).digest()[:4], "big")
    for step in range(count):
        address = bridge.subnet.network_address + half + (first + step) % count
        if address != bridge.gateway:
            yield address


def _address_of(name: str) -> IPv4Address:
    return IPv4Address(int(name.removeprefix(CABLE), 16))


def _mac(address: IPv4Address) -> bytes:
    """Follows from the address, so that nobody remembers a former one: locally administered, as Docker's."""
    return b"\x02\x42" + address.packed


@contextmanager
def _namespace(container_id: str, pid: int) -> Iterator[int]:
    """The network namespace of a container's process. The process is made sure of: its number may be another's by now."""
    try:
        namespace = os.open(f"/proc/{pid}/ns/net", os.O_RDONLY | os.O_CLOEXEC)
        groups = Path(f"/proc/{pid}/cgroup").read_text()
    except (FileNotFoundError, ProcessLookupError) as error:
        raise Ended from error
    try:
        if container_id not in groups or os.fstat(namespace).st_ino == Path("/proc/self/ns/net").stat().st_ino:
            raise Ended
        yield namespace
    finally:
        os.close(namespace)
