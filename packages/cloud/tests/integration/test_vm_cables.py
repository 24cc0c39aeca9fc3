"""Connecting namespaces to a bridge, in a network namespace of the test's own: addresses are given once, races are harmless."""

import json
import os
import subprocess
import sys

import pytest

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="needs root")

HEAD = """
import json, os, socket, subprocess, sys, time
from concurrent.futures import ThreadPoolExecutor
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path
from ff_cloud.vms.engine.errors import NoCapacity
from ff_cloud.vms.host import network
from ff_cloud.vms.host.network import Bridge, BridgeMissing, Ended
from ff_cloud.vms.host.netlink import Netlink, netlink_of

def ip(*argv):
    subprocess.run(["ip", *argv], check=True)

def bridge(name="br0", subnet="10.1.0.0/28"):
    made = Bridge(name, IPv4Network(subnet), IPv4Network(subnet)[1], 1400)
    ip("link", "add", name, "address", "02:42:00:00:00:01", "type", "bridge")  # of its own, as Docker's bridges have
    ip("address", "add", f"{made.gateway}/{made.subnet.prefixlen}", "dev", name)
    ip("link", "set", name, "up")
    return made

def child():
    process = subprocess.Popen(["unshare", "--net", "sleep", "60"])
    while os.stat(f"/proc/{process.pid}/ns/net").st_ino == os.stat("/proc/self/ns/net").st_ino:
        time.sleep(0.005)
    return process

IN_EVERY_CGROUP = ":/"  # stands for the container's id, by which a process is known again

def attach(one, to):
    try:
        return str(network.attach(to, IN_EVERY_CGROUP, one.pid))
    except (NoCapacity, Ended, BridgeMissing) as error:
        return type(error).__name__

ip("link", "set", "lo", "up")
children = []
try:
"""
TAIL = """
finally:
    for one in children:
        one.kill()
        one.wait()
"""


def run(body: str) -> object:
    """What the body prints, as JSON."""
    script = HEAD + "\n".join(f"    {line}" for line in body.strip().splitlines()) + TAIL
    argv = ["unshare", "--net", sys.executable, "-c", script]
    done = subprocess.run(argv, check=False, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout.splitlines()[-1])


def test_each_gets_an_address_of_its_own_however_many_race():
    found = run("""
to = bridge()
children += [child() for _ in range(7)]
with ThreadPoolExecutor(14) as pool:
    first = list(pool.map(lambda one: attach(one, to), [*children, *children]))
with Netlink() as here:
    master = here.link("br0")
    ports = [link.name for link in here.links() if link.master == master.index]
print(json.dumps([first, len(ports)]))
""")
    addresses, ports = found
    assert addresses[:7] == addresses[7:], "whoever asks for the same one gets the same answer"
    assert len(set(addresses)) == 7
    assert all(address.startswith("10.1.0.") and int(address.rpartition(".")[2]) >= 8 for address in addresses)
    assert ports == 7


def test_no_address_left_is_said_and_one_that_came_back_is_given_again():
    found = run("""
to = bridge()
children += [child() for _ in range(8)]
given = [attach(one, to) for one in children]
late = children[given.index("NoCapacity")]
children[0].kill()
children[0].wait()
deadline = time.monotonic() + 20
while (again := attach(late, to)) == "NoCapacity" and time.monotonic() < deadline:
    time.sleep(0.05)
print(json.dumps([given, again]))
""")
    given, again = found
    assert given.count("NoCapacity") == 1
    assert again == given[0]


def test_both_ends_are_as_they_must_be():
    found = run("""
to = bridge(subnet="10.1.0.0/24")
children += [child(), child()]
one, two = (attach(each, to) for each in children)
enter = ["nsenter", "--target", str(children[0].pid), "--net"]
ask = lambda *argv: subprocess.run([*enter, *argv], check=True, capture_output=True, text=True).stdout
knock = "import socket, sys; s = socket.socket(); s.settimeout(1); print(s.connect_ex((sys.argv[1], 9)))"
reach = lambda address: int(ask(sys.executable, "-c", knock, address))
pinned = ["ip", "-j", "neigh", "show", "dev", "br0", "nud", "permanent"]
print(json.dumps({
    "route": ask("ip", "-j", "route", "show", "default"),
    "link": ask("ip", "-j", "link", "show", "eth0"),
    "gateway": reach("10.1.0.1"), "itself": reach("127.0.0.1"), "other": reach(two),
    "holes": [network.hole(to, IN_EVERY_CGROUP, each.pid) for each in children],
    "neighbours": subprocess.run(pinned, capture_output=True, text=True).stdout,
    "addresses": [one, two],
}))
""")
    refused = 111
    assert (found["gateway"], found["itself"]) == (refused, refused), "reached, and nobody listens"
    assert found["other"] != refused
    assert json.loads(found["route"])[0]["gateway"] == "10.1.0.1"
    assert json.loads(found["link"])[0]["mtu"] == 1400
    assert {each["dst"] for each in json.loads(found["neighbours"])} == set(found["addresses"])
    # Both pass for one container here, whose cables are two.
    assert all("exactly one cable" in hole for hole in found["holes"])


def test_a_bridge_that_is_not_there_and_a_process_that_is_another_are_told():
    found = run("""
to = bridge()
children += [child()]
gone = child()
gone.kill()
gone.wait()
stranger = Bridge("br9", to.subnet, to.gateway, 1500)
def other():
    try:
        network.attach(to, "0123456789abcdef", children[0].pid)
    except Ended:
        return "Ended"
def here():
    try:
        network.attach(to, IN_EVERY_CGROUP, os.getpid())
    except Ended:
        return "Ended"
print(json.dumps([attach(children[0], stranger), attach(gone, to), other(), here(), network.addresses(stranger)]))
""")
    assert found == ["BridgeMissing", "Ended", "Ended", "Ended", {}]


def test_after_its_network_was_removed_it_is_connected_anew():
    found = run("""
to = bridge()
children += [child()]
first = attach(children[0], to)
ip("link", "delete", "br0")
same = bridge()
again = attach(children[0], same)
ip("link", "delete", "br0")
other = bridge(subnet="10.2.0.0/28")
moved = attach(children[0], other)
cables = [link.name for link in Netlink().links() if link.name.startswith("ff-")]
print(json.dumps([first, again, moved, network.hole(other, IN_EVERY_CGROUP, children[0].pid), len(cables)]))
""")
    first, again, moved, hole, cables = found
    assert first == again
    assert moved.startswith("10.2.0.")
    assert (hole, cables) == (None, 1)


def test_among_many_others_that_come_and_go_it_is_seen_as_it_is():
    found = run("""
to = bridge(subnet="10.1.0.0/24")
children += [child()]
attach(children[0], to)
others = "".join(f"link add v{n} master br0 type veth peer name w{n}\\n" for n in range(100))
subprocess.run(["ip", "-batch", "-"], input=others, text=True, check=True)
turn = "".join("link add d0 type bridge\\nlink delete d0\\n" for _ in range(20))
ended = False
def churn():
    while not ended:
        subprocess.run(["ip", "-batch", "-"], input=turn, text=True, check=True)
with ThreadPoolExecutor(1) as pool:
    churning = pool.submit(churn)
    try:
        holes = {network.hole(to, IN_EVERY_CGROUP, children[0].pid) for _ in range(100)}
    finally:
        ended = True
    churning.result()
print(json.dumps(list(holes)))
""")
    assert found == [None]
