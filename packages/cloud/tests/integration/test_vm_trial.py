"""What is tried at the start, what follows from it, and what the doctor says of it."""

import os
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from ff_cloud.doctor import Finding, examine
from ff_cloud.settings import CloudSettings, load_settings
from ff_cloud.testing.vm_image import image_running
from ff_cloud.testing.vm_network import VmNetwork, vm_network
from ff_cloud.vms.engine import Limits, VmSpec
from ff_cloud.vms.engine.docker import docker_engine
from ff_cloud.vms.engine.errors import RuntimeMissing
from ff_cloud.vms.engine.options import EngineOptions
from ff_cloud.vms.errors import ImageMissing
from ff_cloud.vms.host.errors import HostFailed
from ff_cloud.vms.image import LATEST
from ff_core.ids import VmId
from ff_core.world import SystemWorld

pytestmark = pytest.mark.docker

AS_ROOT = pytest.mark.skipif(os.geteuid() != 0, reason="needs root")


@pytest.fixture(scope="module")
def image() -> Iterator[str]:
    with image_running(["sleep", "infinity"]) as tag:
        yield tag


@pytest.fixture
async def network() -> AsyncIterator[VmNetwork]:
    async with vm_network() as made:
        yield made


@pytest.fixture
def options(tmp_path: Path) -> EngineOptions:
    return EngineOptions(place=tmp_path / "place")


@pytest.mark.parametrize(
    ("change", "lacks"),
    [
        ({"networking": "docker"}, {"direct"}),
        ({"disk_quota": "off"}, {"quota"}),
        ({"volume_options": {"type": "tmpfs", "device": "tmpfs", "o": "size=1m"}}, {"quota"}),
        ({"networking": "docker", "disk_quota": "off"}, {"direct", "quota"}),
    ],
)
@AS_ROOT
async def test_what_is_turned_off_is_not_used(
    network: VmNetwork, options: EngineOptions, image: str, change: dict, lacks: set[str]
):
    async with docker_engine(network.deployment, options=replace(options, **change)) as engine:
        able, _ = await engine.abilities(image)
        assert set(able.lacks) - {"runtime"} == lacks
        assert (able.direct, able.quota) == ("direct" not in lacks, "quota" not in lacks)


@AS_ROOT
async def test_disks_that_the_docker_engine_does_not_see_are_not_used(network: VmNetwork, options: EngineOptions, image: str):
    hidden = replace(options, place=Path("/proc/self/ff"))  # nothing can be made there
    async with docker_engine(network.deployment, options=replace(hidden, networking="docker", egress="off")) as engine:
        able, _ = await engine.abilities(image)
        assert not able.quota
        assert able.lacks["quota"]
        end = await engine.ensure(
            VmSpec(VmId(SystemWorld().new_id()), 1, 1, image, Limits(128 << 20, 0.5, 64, 64 << 20), "0" * 64)
        )
        assert end.address
    async with docker_engine(network.deployment, options=replace(hidden, networking="docker", disk_quota="on")) as engine:
        with pytest.raises(HostFailed, match="FF_VM_DISK_QUOTA"):
            await engine.prepare(image)


async def test_a_network_of_somebody_elses_is_left_to_docker(network: VmNetwork, options: EngineOptions, image: str):
    async with docker_engine("other", options=replace(options, network=network.name, networking="direct")) as engine:
        with pytest.raises(HostFailed, match="FF_VM_NETWORKING=direct"):
            await engine.prepare(image)


async def test_a_runtime_that_was_asked_for_and_is_not_there_is_an_error(network: VmNetwork, options: EngineOptions, image: str):
    async with docker_engine(network.deployment, options=replace(options, runtime="ff-no-such-runtime")) as engine:
        with pytest.raises(RuntimeMissing):
            await engine.prepare(image)


async def test_without_the_image_nothing_is_decided(network: VmNetwork, options: EngineOptions, image: str):
    async with docker_engine(network.deployment, options=options) as engine:
        with pytest.raises(ImageMissing):
            await engine.prepare("ff-no-such-image:1")
        await engine.prepare(image)


def mounted_below(place: Path) -> list[str]:
    return [line for line in Path("/proc/mounts").read_text().splitlines() if str(place) in line]


async def test_a_trial_leaves_nothing(network: VmNetwork, options: EngineOptions, image: str):
    async with docker_engine(network.deployment, options=options) as engine:
        await engine.prepare(image)
        assert await engine.observe_all() == []
        assert not list(options.place.rglob("trial-*"))
        assert mounted_below(options.place) == []


async def findings(settings: CloudSettings) -> dict[str, Finding]:
    return {found.part: found for found in await examine(settings)}


@AS_ROOT
async def test_the_doctor_tells_what_this_machine_does_and_leaves_nothing(tmp_path: Path):
    settings = load_settings(data_dir=tmp_path, vm_dir=tmp_path / "vms", vm_image=LATEST)
    found = await findings(settings)
    assert all(found[part].ok for part in ("docker", "image", "network", "runtime", "disks", "egress"))
    assert (found["disks"].message, found["egress"].message) == ("limited", "public addresses only")
    off = await findings(settings.model_copy(update={"vm_egress": "off", "vm_disk_quota": "off", "vm_networking": "docker"}))
    assert "OPEN" in off["egress"].message
    assert "NOT limited" in off["disks"].message
    assert "the Docker Engine" in off["network"].message
    async with docker_engine("nobody") as engine:
        assert not [name for name in await engine.deployments() if name.startswith("doctor-")]
    assert not list((tmp_path / "vms").glob("*"))


async def test_the_doctor_finds_what_was_asked_for_and_does_not_work(tmp_path: Path):
    settings = load_settings(data_dir=tmp_path, vm_dir=tmp_path / "vms", vm_image=LATEST, vm_runtime="ff-no-such-runtime")
    found = await findings(settings)
    assert not found["vms"].ok
    assert "FF_VM_RUNTIME" in found["vms"].message
