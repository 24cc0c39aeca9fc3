"""Whatever was there before: the rules end as they must, they let through what they may, and others keep theirs."""

import re
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ff_cloud.vms.host.egress import (
    NOT_PUBLIC,
    Allowed,
    Egress,
    Table,
    chains,
    chains_v6,
    parse,
    removal,
    script,
    standing,
)

SUBNETS = {"br-a": IPv4Network("172.20.0.0/16"), "br-b": IPv4Network("172.21.0.0/16"), "br-c": IPv4Network("203.0.0.0/20")}
RESOLVER = IPv4Address("10.255.255.53")
TERMINAL = {"ACCEPT", "DROP", "REJECT"}


class Kernel:
    """The filter table as ``iptables-restore`` changes it, all or nothing, and as a packet meets it."""

    def __init__(self, *, docker: bool = True) -> None:
        self.table: Table = {"INPUT": [], "FORWARD": [], "OUTPUT": []}
        if docker:
            self.table |= {"FORWARD": ["-j DOCKER-USER"], "DOCKER-USER": ["-j RETURN"]}

    def save(self) -> str:
        heads = [f":{name} {'ACCEPT' if name in {'INPUT', 'FORWARD', 'OUTPUT'} else '-'} [0:0]" for name in self.table]
        rules = [f"-A {name} {rule}" for name, lines in self.table.items() for rule in lines]
        return "\n".join(["# Generated", "*filter", *heads, *rules, "COMMIT", "# Completed"])

    def restore(self, text: str) -> None:
        table = {name: list(rules) for name, rules in self.table.items()}
        lines = text.splitlines()
        assert (lines[0], lines[-1]) == ("*filter", "COMMIT")
        for line in lines[1:-1]:
            match line.split(" ", 2):
                case [head, "-", "[0:0]"] if head.startswith(":"):
                    table[head[1:]] = []
                case ["-A", name, rule]:
                    table[name].append(rule)
                case ["-I", name, rule]:
                    assert rule.startswith("1 ")
                    table[name].insert(0, rule[2:])
                case ["-D", name, rule]:
                    table[name].remove(rule)
                case ["-F", name]:
                    table[name].clear()
                case ["-X", name]:
                    assert table.pop(name) == []
                    assert not any(rule.endswith(f"-j {name}") for rules in table.values() for rule in rules)
                case _:
                    pytest.fail(f"no such command: {line}")
        for rules in table.values():
            for rule in rules:
                target = rule.split(" -j ")[-1].removeprefix("-j ").split()[0]
                assert target in table or target in {*TERMINAL, "RETURN"}, f"{rule} leads nowhere"
        self.table = table

    def apply(self, wanted: Egress) -> None:
        text = self.save()
        if not standing(text, chains(wanted), wanted):
            self.restore(script(text, chains(wanted), wanted))

    def stands(self, wanted: Egress) -> bool:
        return standing(self.save(), chains(wanted), wanted)

    def remove(self, deployment: str) -> None:
        text = removal(self.save(), deployment)
        if text is not None:
            self.restore(text)

    def verdict(self, packet: "Packet", base: str) -> str:
        return self._walk(packet, base) or "ACCEPT"

    def _walk(self, packet: "Packet", chain: str) -> str | None:
        for rule in self.table[chain]:
            if not packet.matches(rule):
                continue
            target = rule.split("-j ", 1)[1].split()[0]
            if target == "RETURN":
                return None
            if target in TERMINAL:
                return target
            if (found := self._walk(packet, target)) is not None:
                return found
        return None


@dataclass(frozen=True)
class Packet:
    source: IPv4Address
    to: IPv4Address
    came: str
    goes: str | None
    protocol: str = "tcp"
    port: int = 80
    known: bool = False

    def matches(self, rule: str) -> bool:
        words = re.sub(r"-j \S+.*", "", rule)
        tests = {
            r"-i (\S+)": lambda name: name == self.came,
            r"-o (\S+)": lambda name: name == self.goes,
            r"! -s (\S+)": lambda network: self.source not in IPv4Network(network),
            r"-d (\S+)": lambda network: self.to in IPv4Network(network),
            r"-p (\S+)": lambda protocol: protocol == self.protocol,
            r"--dport (\d+)": lambda port: int(port) == self.port,
            r"--ctstate (\S+)": lambda _states: self.known,
        }
        found = {pattern: re.search(pattern, words) for pattern in tests}
        return all(test(found[pattern][1]) for pattern, test in tests.items() if found[pattern])


addresses = st.integers(0, 2**32 - 1).map(IPv4Address)
ports = st.sampled_from([22, 53, 80, 443, 8425, 8430, 65535])
allowed = st.builds(
    lambda address, length, port: Allowed(IPv4Network((address, length), strict=False), port),
    addresses,
    st.integers(4, 32),
    st.none() | ports,
)


@st.composite
def egresses(draw: st.DrawFn) -> Egress:
    bridge = draw(st.sampled_from(sorted(SUBNETS)))
    deployment = draw(st.sampled_from(["one", "two", "three"]))
    extra = tuple(draw(st.lists(allowed, max_size=3)))
    return Egress(deployment, bridge, SUBNETS[bridge], draw(st.sampled_from([(), (RESOLVER,)])), extra)


changes = st.lists(
    st.one_of(
        st.tuples(st.just("apply"), egresses()),
        st.tuples(st.just("remove"), st.sampled_from(["one", "two", "three"])),
        st.tuples(st.just("flush"), st.sampled_from(["INPUT", "DOCKER-USER"])),
        st.tuples(st.just("insert"), st.sampled_from(["INPUT", "DOCKER-USER"])),
    ),
    max_size=12,
)


@given(changes, st.booleans())
def test_rules_stand_after_any_history_and_nothing_is_left_of_those_that_went(history, docker):
    kernel = Kernel(docker=docker)
    present: dict[str, Egress] = {}
    for what, value in history:
        if what == "apply":
            before = {name: kernel.stands(egress) for name, egress in present.items() if name != value.deployment}
            kernel.apply(value)
            present[value.deployment] = value
            assert kernel.stands(value)
            same_subnet = all(kernel.stands(present[name]) for name, stood in before.items() if stood)
            assert same_subnet, "another deployment's rules were disturbed"
        elif what == "remove":
            kernel.remove(value)
            present.pop(value, None)
        elif value in kernel.table and what == "flush":
            kernel.table[value] = []
        elif value in kernel.table:
            kernel.table[value].insert(0, "-j ACCEPT")
    for egress in present.values():
        kernel.apply(egress)
    assert all(kernel.stands(egress) for egress in present.values())
    for name in list(present):
        kernel.remove(name)
    assert not [name for name in kernel.table if name.startswith("FF-")]
    assert "FF-" not in kernel.save()


@given(egresses(), addresses, ports, st.sampled_from(["tcp", "udp"]), st.booleans())
def test_a_vm_reaches_the_public_internet_and_what_is_allowed_and_nothing_else(wanted, to, port, protocol, through):
    kernel = Kernel()
    kernel.apply(wanted)
    packet = Packet(wanted.subnet[9], to, wanted.bridge, "eth0" if through else None, protocol, port)
    verdict = kernel.verdict(packet, "FORWARD" if through else "INPUT")
    permitted = any(
        to in one.network and (one.port is None or (one.port == port and (protocol == "tcp" or port == 53)))
        for one in (*wanted.allowed, *(Allowed(IPv4Network(resolver), 53) for resolver in wanted.resolvers))
    )
    public = not any(to in network for network in NOT_PUBLIC)
    assert (verdict == "ACCEPT") == (permitted or (public and through))


@given(egresses(), addresses, st.booleans())
def test_vms_never_reach_each_other_nor_does_anybody_begin_to_talk_to_one(wanted, other, known):
    kernel = Kernel()
    kernel.apply(wanted)
    between = Packet(wanted.subnet[9], wanted.subnet[10], wanted.bridge, wanted.bridge, known=known)
    assert kernel.verdict(between, "FORWARD") != "ACCEPT"
    stranger = Packet(other, wanted.subnet[9], "eth0", wanted.bridge, port=8430, known=known)
    assert (kernel.verdict(stranger, "FORWARD") == "ACCEPT") == known
    if other not in wanted.subnet:
        for base, goes in (("FORWARD", "eth0"), ("INPUT", None)):
            spoofed = Packet(other, IPv4Address("1.1.1.1"), wanted.bridge, goes)
            assert kernel.verdict(spoofed, base) == "DROP"


@given(egresses(), addresses)
def test_traffic_of_others_is_left_alone(wanted, address):
    kernel = Kernel()
    kernel.apply(wanted)
    assert kernel.verdict(Packet(address, address, "eth1", "eth0"), "FORWARD") == "ACCEPT"
    assert kernel.verdict(Packet(address, address, "eth1", None), "INPUT") == "ACCEPT"


@given(egresses())
def test_in_version_six_of_the_protocol_nothing_goes(wanted):
    kernel = Kernel(docker=False)
    kernel.restore(script(kernel.save(), chains_v6(wanted), wanted))
    assert standing(kernel.save(), chains_v6(wanted), wanted)
    packet = Packet(wanted.subnet[9], IPv4Address("1.1.1.1"), wanted.bridge, "eth0")
    assert kernel.verdict(packet, "FORWARD") == kernel.verdict(packet, "INPUT") == "DROP"


def test_a_rule_that_was_tampered_with_does_not_stand():
    wanted = Egress("one", "br-a", SUBNETS["br-a"], (RESOLVER,), (Allowed.parse("172.20.0.1:8425"),))
    kernel = Kernel()
    kernel.apply(wanted)
    for name in chains(wanted):
        for tampered in (kernel.table[name][:-1], [*kernel.table[name], "-j ACCEPT"]):
            changed = Kernel()
            changed.table = kernel.table | {name: tampered}
            assert not changed.stands(wanted)


def test_rules_that_another_stands_before_do_not_stand():
    wanted = Egress("one", "br-a", SUBNETS["br-a"])
    for base in ("INPUT", "DOCKER-USER"):
        kernel = Kernel()
        kernel.apply(wanted)
        kernel.table[base].insert(0, "-s 172.20.0.0/16 -j ACCEPT")
        assert not kernel.stands(wanted)


@pytest.mark.parametrize(
    "address",
    [
        "0.0.0.1",
        "10.0.0.1",
        "100.64.0.1",
        "100.127.255.254",
        "127.0.0.1",
        "169.254.169.254",
        "172.16.0.1",
        "172.31.255.254",
        "192.168.1.1",
        "198.18.0.1",
        "224.0.0.1",
        "239.255.255.250",
        "255.255.255.255",
    ],
)
def test_addresses_that_are_nobodys_business(address):
    kernel = Kernel()
    wanted = Egress("one", "br-a", SUBNETS["br-a"], (RESOLVER,))
    kernel.apply(wanted)
    assert kernel.verdict(Packet(wanted.subnet[9], IPv4Address(address), "br-a", "eth0"), "FORWARD") == "REJECT"


@pytest.mark.parametrize(
    ("text", "network", "port"),
    [("10.1.0.0/16", "10.1.0.0/16", None), ("10.1.2.3", "10.1.2.3/32", None), (" 10.1.2.3:8080 ", "10.1.2.3/32", 8080)],
)
def test_what_is_allowed_is_read(text, network, port):
    assert Allowed.parse(text) == Allowed(IPv4Network(network), port)
    assert Allowed.parse(str(Allowed.parse(text))) == Allowed.parse(text)


@pytest.mark.parametrize("text", ["", "10.1.0.1/16", "example.com", "10.1.2.3:0", "10.1.2.3:99999", "10.1.2.3:x", "fd00::1"])
def test_what_is_no_address_is_refused(text):
    with pytest.raises(ValueError, match=r".*"):
        Allowed.parse(text)


def test_names_of_chains_are_short_enough_for_the_kernel():
    long = Egress("d" * 40, "b" * 15, SUBNETS["br-a"])
    assert all(len(name) <= 28 for name in chains(long))
    assert parse(Kernel().save())["DOCKER-USER"] == ["-j RETURN"]
    with pytest.raises(ValueError, match="no name of an interface"):
        Egress("one", "br a; -j ACCEPT", SUBNETS["br-a"])
