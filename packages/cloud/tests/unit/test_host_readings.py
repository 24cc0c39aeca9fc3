"""What is read of this machine: its room, its resolvers."""

from ipaddress import IPv4Address
from pathlib import Path

import pytest

from ff_cloud.vms.host.capacity import containers_max, measure
from ff_cloud.vms.host.resolving import hosts, resolv_conf


@pytest.fixture
def proc(tmp_path: Path) -> Path:
    (tmp_path / "sys/kernel").mkdir(parents=True)
    (tmp_path / "meminfo").write_text("MemTotal:  1000 kB\nMemFree:  1 kB\nMemAvailable:  400 kB\nHugePages_Total:  7\n")
    (tmp_path / "loadavg").write_text("0.1 0.2 0.3 2/345 6789\n")
    (tmp_path / "sys/kernel/pid_max").write_text("32768\n")
    return tmp_path


def test_the_room_of_a_machine(proc: Path):
    seen = measure([proc / "not/there/yet"], proc=proc)
    assert (seen.memory_total_bytes, seen.memory_available_bytes) == (1000 * 1024, 400 * 1024)
    assert (seen.pids, seen.pids_max) == (345, 32768)
    assert 0 < seen.disk_free_bytes <= seen.disk_total_bytes


def test_what_can_not_be_read_is_not_guessed(proc: Path):
    (proc / "loadavg").write_text("nonsense")
    (proc / "sys/kernel/pid_max").unlink()
    (proc / "meminfo").write_text("MemTotal:  1000 kB\n")
    seen = measure([], proc=proc)
    assert (seen.pids, seen.pids_max, seen.memory_available_bytes, seen.disk_free_bytes) == (None, None, None, None)


@pytest.mark.parametrize(
    ("running", "pids", "pids_max", "most"),
    [(0, 100, 4_194_304, 1023), (10, 100, 500, 110), (10, 600, 500, 10), (None, 1, 2, 1023), (3, None, None, 1023)],
)
def test_how_many_containers_there_may_be(running, pids, pids_max, most):
    assert containers_max(running, pids, pids_max) == most


@pytest.mark.parametrize(
    ("first", "second", "text", "resolvers"),
    [
        (
            "nameserver 10.0.0.2\nsearch a.example\noptions ndots:2\n",
            None,
            "nameserver 10.0.0.2\nsearch a.example\noptions ndots:2\n",
            ["10.0.0.2"],
        ),
        ("nameserver 127.0.0.53\n", "# real\nnameserver 10.0.0.3\n", "nameserver 10.0.0.3\n", ["10.0.0.3"]),
        ("nameserver 127.0.0.1\n", "nameserver ::1\n", "nameserver 8.8.8.8\nnameserver 8.8.4.4\n", ["8.8.8.8", "8.8.4.4"]),
        (None, None, "nameserver 8.8.8.8\nnameserver 8.8.4.4\n", ["8.8.8.8", "8.8.4.4"]),
        ("nameserver fd00::1\nnameserver 10.0.0.2 # x\nnameserver\nnonsense\n", None, "nameserver 10.0.0.2\n", ["10.0.0.2"]),
        (
            "".join(f"nameserver 10.0.0.{n}\n" for n in range(9)),
            None,
            "".join(f"nameserver 10.0.0.{n}\n" for n in range(3)),
            ["10.0.0.0", "10.0.0.1", "10.0.0.2"],
        ),
    ],
    ids=["plain", "stub", "loopback only", "none", "odd lines", "many"],
)
def test_vms_ask_the_resolvers_that_they_can_reach(tmp_path: Path, first, second, text, resolvers):
    sources = [tmp_path / "first", tmp_path / "second"]
    for source, content in zip(sources, (first, second), strict=True):
        if content is not None:
            source.write_text(content)
    assert resolv_conf(sources) == (text, tuple(IPv4Address(each) for each in resolvers))


def test_hosts():
    assert hosts({"ff-host": "172.20.0.1"}) == "127.0.0.1\tlocalhost\n172.20.0.1\tff-host\n"
