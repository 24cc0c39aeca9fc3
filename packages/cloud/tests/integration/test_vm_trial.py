"""What is tried at the start, what follows from it, and what the doctor says of it."""

import asyncio
import os
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing, suppress
from dataclasses import replace
from pathlib import Path

import pytest

from ff_cloud.doctor import Finding, examine
from ff_cloud.settings import CloudSettings, load_settings
from ff_cloud.testing.vm_network import VmNetwork
from ff_cloud.vms.engine import Limits, VmSpec
from ff_cloud.vms.engine.docker import docker_engine
from ff_cloud.vms.engine.errors import RuntimeMissing
from ff_cloud.vms.engine.options import EngineOptions
from ff_cloud.vms.errors import ImageMissing
from ff_cloud.vms.host.errors import EgressUnavailable, HostFailed
from ff_cloud.vms.host.volumes import Volumes
from ff_cloud.vms.image import LATEST
from ff_core.ids import VmId
from ff_core.world import SystemWorld

pytestmark = pytest.mark.docker

AS_ROOT = pytest.mark.skipif(os.geteuid() != 0, reason="needs root")


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


@asynccontextmanager
async def docker_over_tcp() -> AsyncIterator[str]:
    """The Docker Engine of this machine as one elsewhere is reached."""
    tasks: set[asyncio.Task[None]] = set()

    async def pipe(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError), closing(writer):
            while data := await reader.read(65536):
                writer.write(data)
                await writer.drain()
        with suppress(OSError):
            await writer.wait_closed()

    async def meet(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there_reader, there_writer = await asyncio.open_unix_connection("/var/run/docker.sock")
        for way in (pipe(reader, there_writer), pipe(there_reader, writer)):
            task = asyncio.create_task(way)
            tasks.add(task)
            task.add_done_callback(tasks.discard)

    server = await asyncio.start_server(meet, "127.0.0.1", 0)
    try:
        yield f"tcp://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    finally:
        server.close()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


@pytest.mark.skipif(not Path("/var/run/docker.sock").exists(), reason="the Docker Engine is elsewhere already")
async def test_an_engine_elsewhere_does_what_it_can_alone(network: VmNetwork, options: EngineOptions, image: str):
    limits = Limits(128 << 20, 0.5, 64, 64 << 20)
    wanted = VmSpec(VmId(SystemWorld().new_id()), 1, 1, image, limits, "0" * 64)
    async with docker_over_tcp() as url, docker_engine(network.deployment, url=url, options=options) as engine:
        able, problem = await engine.abilities(image)
        assert (able.direct, able.quota) == (False, False)
        assert {"direct", "quota"} <= set(able.lacks)
        assert "root on the machine of the Docker Engine" in problem
        end = await engine.ensure(wanted)
        [seen] = await engine.observe_all()
        assert (seen.volume, seen.container.address) == (True, end.address)
        await engine.isolation(wanted.vm_id)
        room = await engine.capacity()
        assert (room.memory_available_bytes, room.disk_free_bytes, room.pids, room.disk_quota) == (None, None, None, False)
        assert room.memory_total_bytes > 0
        await engine.remove(wanted.vm_id)
        assert not options.place.exists()
    strict = replace(options, egress="on")
    async with docker_over_tcp() as url, docker_engine(network.deployment, url=url, options=strict) as engine:
        with pytest.raises(EgressUnavailable):
            await engine.ensure(wanted)


def mounted_below(place: Path) -> list[str]:
    return [line for line in Path("/proc/mounts").read_text().splitlines() if str(place) in line]


async def test_a_trial_leaves_nothing(network: VmNetwork, options: EngineOptions, image: str):
    async with docker_engine(network.deployment, options=options) as engine:
        await engine.prepare(image)
        assert await engine.observe_all() == []
        assert not list(options.place.rglob("trial-*"))
        assert mounted_below(options.place) == []


@AS_ROOT
async def test_a_trial_removes_what_another_left_that_was_killed(network: VmNetwork, options: EngineOptions, image: str):
    labels = ["--label", f"ff.deployment={network.deployment}", "--label", "ff.trial=1"]
    argv = ["docker", "run", "--detach", *labels, image]
    left = await asyncio.to_thread(subprocess.run, argv, check=True, capture_output=True, text=True, timeout=60)
    disk = Volumes(options.place / network.deployment / "trial-0123")
    await asyncio.to_thread(disk.make, VmId(SystemWorld().new_id()), 16 << 20)
    async with (
        docker_engine(network.deployment, options=options) as one,
        docker_engine(network.deployment, options=options) as two,
    ):
        found = await asyncio.gather(one.abilities(image), two.abilities(image))
        assert all(able.direct and able.quota for able, _ in found), "those that race do not disturb each other"
    argv = ["docker", "ps", "-aq", "--no-trunc", "--filter", f"label=ff.deployment={network.deployment}"]
    shown = await asyncio.to_thread(subprocess.run, argv, check=True, capture_output=True, text=True, timeout=60)
    assert left.stdout.strip() not in shown.stdout
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
