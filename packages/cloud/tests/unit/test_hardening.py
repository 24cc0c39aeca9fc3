"""Each wall by itself; that Docker takes it at its word is in ``test_docker_engine``."""

from uuid import UUID

import pytest

from ff_cloud.vms.engine import Limits, VmSpec
from ff_cloud.vms.engine.hardening import Place, container_body, network_body
from ff_cloud.vms.token import token_sha256, vm_token
from ff_core.ids import VmId

VM = VmId(UUID("01890000-0000-7000-8000-000000000001"))
SECRET = bytes(range(32))
SPEC = VmSpec(VM, 2, 7, "ff-workspace:abc", Limits(512 * 1024 * 1024, 1.5, 256), token_sha256(vm_token(SECRET, VM, 2)))
PLACE = Place("prod", "net-id", "172.20.0.1")


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


def test_only_a_chosen_runtime_is_named():
    assert "Runtime" not in container_body(SPEC, PLACE)["HostConfig"]
    assert container_body(SPEC, Place("prod", "n", None, runtime="runsc"))["HostConfig"]["Runtime"] == "runsc"


def test_the_host_has_a_name_where_it_has_an_address():
    assert container_body(SPEC, PLACE)["HostConfig"]["ExtraHosts"] == ["ff-host:172.20.0.1"]
    assert container_body(SPEC, Place("prod", "n", None))["HostConfig"]["ExtraHosts"] == []


def test_the_network_parts_its_containers():
    assert network_body("prod")["Options"] == {"com.docker.network.bridge.enable_icc": "false"}


def test_tokens_are_one_per_vm_and_generation():
    other = VmId(UUID("01890000-0000-7000-8000-000000000002"))
    tokens = {vm_token(SECRET, vm, generation) for vm in (VM, other) for generation in (1, 2)}
    assert len(tokens) == 4
    assert vm_token(SECRET, VM, 1) == vm_token(SECRET, VM, 1)
    assert vm_token(b"x" * 32, VM, 1) not in tokens
    with pytest.raises(ValueError, match="32 bytes"):
        vm_token(b"short", VM, 1)
