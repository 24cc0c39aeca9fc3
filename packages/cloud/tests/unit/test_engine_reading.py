import dataclasses
import json
from datetime import UTC, datetime
from ipaddress import IPv4Address, IPv4Network
from uuid import UUID

import pytest

from ff_cloud.vms.engine import ContainerSeen, Endpoint, EngineEvent
from ff_cloud.vms.engine.errors import EngineFailed, NoCapacity, RuntimeMissing, VolumeMissing
from ff_cloud.vms.engine.reading import Refused, bridge_of, container_seen, endpoint_of, event_of, gateway_of, translate, vm_id_of
from ff_cloud.vms.errors import DockerUnreachable, ImageMissing
from ff_cloud.vms.host.network import Bridge
from ff_core.ids import VmId

VM = VmId(UUID("01890000-0000-7000-8000-000000000001"))
INFO = {
    "Id": "c0ffee",
    "Config": {"Labels": {"ff.vm": str(VM), "ff.generation": "3", "ff.fence": "9"}, "Image": "ff-workspace:abc"},
    "State": {"Status": "running", "ExitCode": 0, "OOMKilled": False, "StartedAt": "2026-02-03T04:05:06.123456789Z"},
    "NetworkSettings": {"Networks": {"ff-x": {"IPAddress": "172.20.0.2"}}},
}
RUNNING = ContainerSeen(
    "c0ffee", "running", "172.20.0.2", 3, 9, None, False, datetime(2026, 2, 3, 4, 5, 6, 123456, UTC), "ff-workspace:abc"
)


def ended(**state) -> ContainerSeen:
    return container_seen({**INFO, "State": {**INFO["State"], "Status": "exited", **state}})


def test_a_running_container():
    assert container_seen(INFO) == RUNNING


@pytest.mark.parametrize(
    ("docker", "ours"),
    [("created", "created"), ("paused", "running"), ("restarting", "running"), ("removing", "dead"), ("dead", "dead")],
)
def test_the_states_of_docker(docker, ours):
    assert container_seen({**INFO, "State": {**INFO["State"], "Status": docker}}).state == ours


def test_a_container_that_never_ran_has_no_start():
    info = {**INFO, "State": {**INFO["State"], "Status": "created", "StartedAt": "0001-01-01T00:00:00Z"}}
    assert container_seen(info).started_at is None


def test_where_a_container_is():
    assert endpoint_of(RUNNING, started=False) == Endpoint("c0ffee", "172.20.0.2", 8430)
    assert endpoint_of(ended(), started=False) is None
    with pytest.raises(EngineFailed, match="exit code 3"):
        endpoint_of(ended(ExitCode=3), started=True)
    with pytest.raises(EngineFailed, match="out of memory"):
        endpoint_of(ended(ExitCode=137, OOMKilled=True), started=True)
    with pytest.raises(EngineFailed, match="lost its network"):
        endpoint_of(dataclasses.replace(RUNNING, address=None), started=False)


@pytest.mark.parametrize(
    ("status", "message", "expected"),
    [
        (900, "Cannot connect to Docker Engine", DockerUnreachable),
        (404, "No such image: ff-workspace:latest", ImageMissing),
        (404, "No such container: x", EngineFailed),
        (500, "mkdir /var/lib/docker/overlay2/x: no space left on device", NoCapacity),
        (500, "fork/exec runc: cannot allocate memory", NoCapacity),
        (500, "error while mounting volume 'x': failed to mount local volume: mount y: no such file or directory", VolumeMissing),
        (403, "could not find an available, non-overlapping IPv4 address pool among the defaults", NoCapacity),
        (400, "Unknown runtime specified runsc", RuntimeMissing),
    ],
)
def test_refusals_are_translated(status, message, expected):
    error = translate(Refused(status, message))
    assert type(error) is expected
    assert len(error.detail) > 20


def test_a_long_refusal_is_cut():
    assert len(translate(Refused(500, "x\n" * 5000)).detail) < 500


def test_labels_of_others_are_not_ours():
    assert vm_id_of({"ff.vm": str(VM)}) == VM
    assert vm_id_of({"ff.vm": "nonsense"}) is None
    assert vm_id_of(None) is None


def test_the_bridge():
    shown = {
        "Id": "0123456789abcdef",
        "Driver": "bridge",
        "Options": {"com.docker.network.driver.mtu": "1400"},
        "IPAM": {"Config": [{"Subnet": "172.20.0.0/16", "Gateway": "172.20.0.1"}]},
    }
    bridge = Bridge("br-0123456789ab", IPv4Network("172.20.0.0/16"), IPv4Address("172.20.0.1"), 1400)
    assert bridge_of(shown) == bridge
    assert bridge_of({**shown, "Options": {"com.docker.network.bridge.name": "vms"}}).name == "vms"
    assert bridge_of({**shown, "Options": None}).mtu == 1500
    assert bridge_of({**shown, "Driver": "macvlan"}) is None
    assert bridge_of({**shown, "IPAM": {"Config": [{"Subnet": "fd00::/64", "Gateway": "fd00::1"}]}}) is None


def test_the_gateway():
    assert gateway_of({"IPAM": {"Config": [{"Subnet": "172.20.0.0/16", "Gateway": "172.20.0.1"}]}}) == "172.20.0.1"
    assert gateway_of({"IPAM": {"Config": [{"Subnet": "172.20.0.0/16"}]}}) is None
    assert gateway_of({"IPAM": {"Config": None}}) is None


def test_events():
    line = {"Action": "die", "Actor": {"Attributes": {"ff.vm": str(VM), "exitCode": "1"}}}
    assert event_of(json.dumps(line).encode()) == EngineEvent(VM, "die")
    assert event_of(json.dumps({**line, "Action": "exec_create: sh"}).encode()) is None
    assert event_of(json.dumps({"Action": "die", "Actor": {"Attributes": {}}}).encode()) is None
