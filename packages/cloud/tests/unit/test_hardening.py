"""Each wall by itself; that Docker takes it at its word is in ``test_docker_engine``."""

import copy
from dataclasses import replace
from pathlib import Path
from uuid import UUID

import pytest

from ff_cloud.vms.engine import Limits, VmSpec
from ff_cloud.vms.engine.hardening import Direct, Place, container_body, hole, network_body
from ff_cloud.vms.token import token_sha256, vm_token
from ff_core.ids import VmId

VM = VmId(UUID("01890000-0000-7000-8000-000000000001"))
SECRET = bytes(range(32))
SPEC = VmSpec(VM, 2, 7, "ff-workspace:abc", Limits(512 * 1024 * 1024, 1.5, 256), token_sha256(vm_token(SECRET, VM, 2)))
PLACE = Place("prod", "net-id", "172.20.0.1")
DIRECT = replace(PLACE, direct=Direct(Path("/x/hosts-1"), Path("/x/resolv.conf-1"), ipv6=True))


def test_limits_leave_no_swap():
    host = container_body(SPEC, PLACE)["HostConfig"]
    assert host["Memory"] == host["MemorySwap"] == 512 * 1024 * 1024
    assert host["NanoCpus"] == 1_500_000_000
    assert host["PidsLimit"] == 256


def test_the_environment_can_not_pose_as_ours():
    body = container_body(
        VmSpec(VM, 2, 7, "i", SPEC.limits, SPEC.token_sha256, environment={"FF_GENERATION": "99", "LANG": "C.UTF-8"}), PLACE
    )
    assert sorted(body["Env"]) == [
        "FF_GENERATION=2",
        f"FF_TOKEN_SHA256={SPEC.token_sha256}",
        f"FF_VM_ID={VM}",
        "LANG=C.UTF-8",
    ]


def test_nothing_is_published_and_nothing_restarts_by_itself():
    body = container_body(SPEC, PLACE)
    assert "ExposedPorts" not in body
    assert "PortBindings" not in body["HostConfig"]
    assert body["HostConfig"]["RestartPolicy"] == {"Name": "no"}


def test_the_volume_is_labelled_so_that_it_is_found_without_its_container():
    [mount] = container_body(SPEC, PLACE)["HostConfig"]["Mounts"]
    assert (mount["Source"], mount["Target"]) == (f"ff-prod-{VM}", "/workspace")
    assert mount["VolumeOptions"]["Labels"] == {"ff.deployment": "prod", "ff.vm": str(VM)}


def test_only_a_chosen_runtime_is_named_and_the_vms_own_goes_first():
    assert "Runtime" not in container_body(SPEC, PLACE)["HostConfig"]
    crun = Place("prod", "n", None, runtime="crun")
    assert container_body(SPEC, crun)["HostConfig"]["Runtime"] == "crun"
    assert container_body(replace(SPEC, runtime="runsc"), crun)["HostConfig"]["Runtime"] == "runsc"


def test_a_container_that_we_connect_has_no_network_of_dockers_and_no_ipv6():
    body = container_body(replace(SPEC, extra_hosts={"git.example": "192.0.2.7"}), DIRECT)
    assert body["NetworkDisabled"] is True
    host = body["HostConfig"]
    assert not {"NetworkMode", "ExtraHosts", "Dns"} & set(host)
    assert host["Sysctls"] == {"net.ipv6.conf.all.disable_ipv6": "1", "net.ipv6.conf.default.disable_ipv6": "1"}
    files = [mount for mount in host["Mounts"] if mount["Type"] == "bind"]
    assert [(mount["Source"], mount["Target"], mount["ReadOnly"]) for mount in files] == [
        ("/x/hosts-1", "/etc/hosts", True),
        ("/x/resolv.conf-1", "/etc/resolv.conf", True),
    ]


def test_the_other_walls_are_the_same_whoever_connects():
    one, other = container_body(SPEC, PLACE), container_body(SPEC, DIRECT)
    for body in (one, other):
        body.pop("NetworkDisabled", None)
        body["HostConfig"]["Mounts"] = [mount for mount in body["HostConfig"]["Mounts"] if mount["Type"] == "volume"]
        for name in ("NetworkMode", "ExtraHosts", "Sysctls"):
            body["HostConfig"].pop(name, None)
    assert one == other


def test_the_host_has_a_name_where_it_has_an_address():
    assert container_body(SPEC, PLACE)["HostConfig"]["ExtraHosts"] == ["ff-host:172.20.0.1"]
    assert container_body(SPEC, Place("prod", "n", None))["HostConfig"]["ExtraHosts"] == []


def test_the_network_parts_its_containers():
    assert network_body("prod")["Options"] == {"com.docker.network.bridge.enable_icc": "false"}
    assert network_body("prod", 1400)["Options"]["com.docker.network.driver.mtu"] == "1400"


def test_tokens_are_one_per_vm_and_generation():
    other = VmId(UUID("01890000-0000-7000-8000-000000000002"))
    tokens = {vm_token(SECRET, vm, generation) for vm in (VM, other) for generation in (1, 2)}
    assert len(tokens) == 4
    assert vm_token(SECRET, VM, 1) == vm_token(SECRET, VM, 1)
    assert vm_token(b"x" * 32, VM, 1) not in tokens
    with pytest.raises(ValueError, match="32 bytes"):
        vm_token(b"short", VM, 1)


def shown(**host) -> dict:
    """A container that is as it should be, as Docker shows it."""
    config = {
        "Privileged": False,
        "Devices": [],
        "CapDrop": ["ALL"],
        "CapAdd": ["CAP_CHOWN", "CAP_KILL"],
        "ReadonlyRootfs": True,
        "SecurityOpt": container_body(SPEC, PLACE)["HostConfig"]["SecurityOpt"],
        "PidMode": "",
        "UTSMode": "",
        "IpcMode": "private",
        "PortBindings": {},
        "PublishAllPorts": False,
    }
    return {
        "State": {"Running": True, "Paused": False},
        "Config": {},
        "HostConfig": config | host,
        "NetworkSettings": {"Ports": {"8430/tcp": None}, "Networks": {"ff-prod": {"NetworkID": "net-id"}}},
    }


def test_walls_that_stand_have_no_hole():
    assert hole(shown(), "net-id") is None


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"Privileged": True}, "privileged"),
        ({"Devices": [{"PathOnHost": "/dev/sda"}]}, "privileged"),
        ({"CapAdd": ["CAP_CHOWN", "CAP_NET_RAW"]}, "capabilities"),
        ({"CapDrop": None}, "capabilities"),
        ({"ReadonlyRootfs": False}, "root file system"),
        ({"SecurityOpt": []}, "gain privileges"),
        ({"PidMode": "host"}, "namespace"),
        ({"IpcMode": "shareable"}, "namespace"),
        ({"UTSMode": "host"}, "namespace"),
        ({"PortBindings": {"8430/tcp": [{"HostPort": "80"}]}}, "published"),
        ({"PublishAllPorts": True}, "published"),
    ],
)
def test_a_wall_with_a_hole_is_named(change, problem):
    assert problem in hole(shown(**change), "net-id")


def test_networks_that_are_not_ours_are_holes():
    assert "exactly one network" in hole(shown(), "another")
    two, none, direct = (copy.deepcopy(shown()) for _ in range(3))
    two["NetworkSettings"]["Networks"]["bridge"] = {"NetworkID": "docker0"}
    none["NetworkSettings"]["Networks"] = {}
    direct["Config"]["NetworkDisabled"] = True
    assert "exactly one network" in hole(two, "net-id")
    assert "exactly one network" in hole(none, "net-id")
    assert "exactly one network" in hole(direct, "net-id"), "Docker has connected it too"
    published = copy.deepcopy(shown())
    published["NetworkSettings"]["Ports"]["8430/tcp"] = [{"HostIp": "0.0.0.0", "HostPort": "49153"}]
    assert "published" in hole(published, "net-id")


def test_a_container_that_rests_is_not_looked_at():
    resting = copy.deepcopy(shown())
    resting["State"]["Paused"] = True
    assert "does not run" in hole(resting, "net-id")
