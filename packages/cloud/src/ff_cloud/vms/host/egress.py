"""What VMs may reach, as rules of a packet filter: pure. The kernel is told by :mod:`ff_cloud.vms.host.firewall`.

The public internet, the gateway, the host's resolvers and what the operator names; of this host, of its networks and of
other VMs nothing else. All of it hangs on the name of the VMs' bridge, so several deployments stand side by side. Those that
share a bridge have each a chain of what they permit, before the one of the bridge that ends it.
"""

import hashlib
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, collapse_addresses
from itertools import takewhile
from typing import Self

NOT_PUBLIC = tuple(
    IPv4Network(text)
    for text in (
        "0.0.0.0/8",
        "10.0.0.0/8",
        "100.64.0.0/10",
        "127.0.0.0/8",
        "169.254.0.0/16",  # where clouds answer for metadata and credentials
        "172.16.0.0/12",
        "192.0.0.0/24",
        "192.0.2.0/24",
        "192.88.99.0/24",
        "192.168.0.0/16",
        "198.18.0.0/15",
        "198.51.100.0/24",
        "203.0.113.0/24",
        "224.0.0.0/4",
        "240.0.0.0/4",
    )
)
"""Private, shared, link-local, reserved and multicast addresses (RFC 6890)."""

DNS_PORT = 53
_BRIDGE = re.compile(r"[A-Za-z0-9_.-]{1,15}")
_INPUT = "INPUT"
_OURS = re.compile(r"FF-[DB][0-9a-f]{10}-(OUT|HOST|BACK)")
_JUMP = re.compile(r"-([io]) (\S+) -j (\S+)")


@dataclass(frozen=True, order=True)
class Allowed:
    """Addresses that VMs may reach although they are not public; ``port`` null: every port and protocol."""

    network: IPv4Network
    port: int | None = None

    @classmethod
    def parse(cls, text: str) -> Self:
        """``10.1.0.0/16``, ``10.1.2.3:8080`` or ``10.1.0.0/16:443``. Raises ``ValueError``."""
        address, colon, port = text.strip().partition(":")
        number = int(port) if colon else None
        if number is not None and not 1 <= number <= 65535:
            raise ValueError(f"{port} is no port")
        return cls(IPv4Network(address), number)

    def __str__(self) -> str:
        return str(self.network) if self.port is None else f"{self.network}:{self.port}"


@dataclass(frozen=True)
class Egress:
    """What is wanted for the VMs of one deployment, whose network is ``bridge`` with ``subnet``."""

    deployment: str
    bridge: str
    subnet: IPv4Network
    resolvers: Sequence[IPv4Address] = ()
    allowed: Sequence[Allowed] = ()
    """The gateway among them. Of this host's own addresses too nothing else is reached."""

    def __post_init__(self) -> None:
        if _BRIDGE.fullmatch(self.bridge) is None:
            raise ValueError(f"{self.bridge!r} is no name of an interface")


Table = dict[str, list[str]]
"""Name of a chain to its rules, as ``iptables-save`` prints them but without the leading ``-A CHAIN``."""


@dataclass(frozen=True)
class Chains:
    """The names of chains; at most 28 characters, and nobody else's."""

    permitted_out: str
    """A deployment's, for packets of VMs on their way through this host."""
    permitted_host: str
    """A deployment's, for packets of VMs to this host itself."""
    out: str
    host: str
    """The bridge's, which those come to that were not permitted."""
    back: str
    """The bridge's, for packets to VMs from anywhere but this host."""

    @classmethod
    def of(cls, deployment: str, bridge: str) -> Self:
        """Those of a deployment whose VMs are on ``bridge``."""
        own, shared = f"FF-D{_mark(deployment)}", f"FF-B{_mark(bridge)}"
        return cls(f"{own}-OUT", f"{own}-HOST", f"{shared}-OUT", f"{shared}-HOST", f"{shared}-BACK")


def chains(wanted: Egress) -> Table:
    """What our chains hold. Every packet of a VM ends in a verdict of ours or goes on as one to a public address."""
    names = Chains.of(wanted.deployment, wanted.bridge)
    spoofed = f"! -s {wanted.subnet} -j DROP"
    known = "-m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT"
    between = f"-o {wanted.bridge} {_REJECT}"
    permitted = [rule for one in _permitted(wanted) for rule in _accept(one)]
    return {
        names.permitted_out: [spoofed, between, known, *permitted],
        names.permitted_host: [spoofed, known, *permitted],
        names.out: [f"-d {network} {_REJECT}" for network in NOT_PUBLIC],
        names.host: [_REJECT],
        names.back: ["-m conntrack --ctstate RELATED,ESTABLISHED -j RETURN", "-j DROP"],
    }


def chains_v6(wanted: Egress) -> Table:
    """VMs have no IPv6; what they say in it all the same goes nowhere."""
    names = Chains.of(wanted.deployment, wanted.bridge)
    nothing: Table = {names.permitted_out: [], names.permitted_host: []}
    return nothing | {name: ["-j DROP"] for name in (names.out, names.host, names.back)}


def standing(saved: str, table: Table, wanted: Egress) -> bool:
    """Whether ``iptables-save -t filter`` shows exactly these rules, and the ways into them before all other rules."""
    seen = parse(saved)
    if any(seen.get(name) != rules for name, rules in table.items()):
        return False
    ways = _ways(seen, wanted)
    for base, rules in seen.items():
        ours = [rule for rule in rules if _concerns(rule, wanted)]
        leading = list(takewhile(lambda rule: _OURS.fullmatch(rule.rpartition(" ")[2]), rules))
        if ours != ways.get(base, []) or not set(ours) <= set(leading):
            return False
    return set(ways) <= set(seen)


def script(saved: str, table: Table, wanted: Egress) -> str:
    """Input of ``iptables-restore --noflush`` that leads from ``saved`` to what is wanted in one step."""
    seen = parse(saved)
    lines = [f":{name} - [0:0]" for name in table]
    lines += [f"-D {base} {rule}" for base, rules in seen.items() for rule in rules if _concerns(rule, wanted)]
    lines += [f"-A {name} {rule}" for name, rules in table.items() for rule in rules]
    lines += [f"-I {base} 1 {rule}" for base, rules in _ways(seen, wanted).items() for rule in reversed(rules)]
    kept = {wanted.bridge} | {bridge for _, bridge, target in _jumps(seen) if target.startswith("FF-D") and target not in table}
    return _whole([*lines, *_without_bridges(seen, kept)])


def removal(saved: str, deployment: str) -> str | None:
    """Input of ``iptables-restore --noflush`` that takes a deployment's rules away; null when there are none.

    A bridge that other deployments are on keeps its own.
    """
    seen, mark = parse(saved), f"FF-D{_mark(deployment)}-"
    names = [name for name in seen if name.startswith(mark)]
    if not names:
        return None
    lines = [f":{name} - [0:0]" for name in names]
    lines += [f"-D {base} {rule}" for base, rules in seen.items() for rule in rules if rule.rpartition(" ")[2] in names]
    lines += [f"-X {name}" for name in names]
    kept = {bridge for _, bridge, target in _jumps(seen) if target.startswith("FF-D") and target not in names}
    return _whole([*lines, *_without_bridges(seen, kept)])


def parse(saved: str) -> Table:
    """The chains of what ``iptables-save`` prints, and their rules."""
    seen: Table = {name: [] for name in re.findall(r"^:(\S+) ", saved, re.MULTILINE)}
    for chain, rule in re.findall(r"^-A (\S+) (.*)$", saved, re.MULTILINE):
        seen[chain].append(" ".join(rule.split()))
    return seen


_REJECT = "-j REJECT --reject-with icmp-port-unreachable"


def _mark(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:10]


def _permitted(wanted: Egress) -> list[Allowed]:
    dns = collapse_addresses(IPv4Network(address) for address in wanted.resolvers)
    return [*sorted(set(wanted.allowed), key=str), *(Allowed(network, DNS_PORT) for network in dns)]


def _accept(one: Allowed) -> list[str]:
    to = f"-d {one.network} " if one.network.prefixlen else ""  # as iptables-save prints it
    if one.port is None:
        return [f"{to}-j ACCEPT"]
    protocols = ("udp", "tcp") if one.port == DNS_PORT else ("tcp",)
    return [f"{to}-p {name} -m {name} --dport {one.port} -j ACCEPT" for name in protocols]


def _ways(seen: Table, wanted: Egress) -> Table:
    """The ways into the chains of the bridge, by the chain they stand in and in order: all that is permitted goes first."""
    names = Chains.of(wanted.deployment, wanted.bridge)
    # Docker keeps DOCKER-USER first, and whole when it restarts.
    forward = "DOCKER-USER" if "DOCKER-USER" in seen else "FORWARD"
    permitted = [
        (target.endswith("-HOST"), f"-{way} {bridge} -j {target}")
        for way, bridge, target in _jumps(seen)
        if bridge == wanted.bridge and target.startswith("FF-D")
    ]
    into = f"-i {wanted.bridge} -j "
    out = [*sorted({rule for host, rule in permitted if not host} | {into + names.permitted_out}), into + names.out]
    host = [*sorted({rule for host, rule in permitted if host} | {into + names.permitted_host}), into + names.host]
    return {forward: [*out, f"-o {wanted.bridge} -j {names.back}"], _INPUT: host}


def _jumps(seen: Table) -> list[tuple[str, str, str]]:
    """Direction, bridge and target of every way into a chain of ours or of another deployment."""
    found = (_JUMP.fullmatch(rule) for rules in seen.values() for rule in rules)
    return [(one[1], one[2], one[3]) for one in found if one and _OURS.fullmatch(one[3])]


def _concerns(rule: str, wanted: Egress) -> bool:
    """Whether a rule is a way into a chain of this deployment, or of this bridge."""
    one, names = _JUMP.fullmatch(rule), Chains.of(wanted.deployment, wanted.bridge)
    if one is None or not _OURS.fullmatch(one[3]):
        return False
    return one[2] == wanted.bridge or one[3] in {names.permitted_out, names.permitted_host}


def _without_bridges(seen: Table, kept: set[str]) -> list[str]:
    """Take the chains of bridges away that no deployment is on any more."""
    marks = {_mark(bridge) for bridge in kept}
    gone = {name for name in seen if name.startswith("FF-B") and name[4:14] not in marks}
    ways = [f"-D {base} {rule}" for base, rules in seen.items() for rule in rules if rule.rpartition(" ")[2] in gone]
    return [*ways, *(f"-F {name}" for name in sorted(gone)), *(f"-X {name}" for name in sorted(gone))]


def _whole(lines: Iterable[str]) -> str:
    return "\n".join(["*filter", *lines, "COMMIT", ""])
