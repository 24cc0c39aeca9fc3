"""Volumes with a limit, on the real kernel: what is written stays, what is too much is refused, what is removed is gone."""

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from ff_cloud.testing.vm_network import VmNetwork
from ff_cloud.vms.engine import Limits, VmSpec
from ff_cloud.vms.engine.docker import DockerEngine, docker_engine
from ff_cloud.vms.engine.errors import NoCapacity, VolumeMissing
from ff_cloud.vms.engine.options import EngineOptions
from ff_cloud.vms.host import mounts
from ff_cloud.vms.host.volumes import Volumes
from ff_core.ids import VmId
from ff_core.world import SystemWorld

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="needs root")

MIB = 1 << 20
LIMITS = Limits(memory_bytes=128 * MIB, cpus=0.5, pids=64, disk_bytes=64 * MIB)
PLACES = [
    "volume:folder",
    "volume:copied",
    "volume:made",
    "volume:mounted",
    "volume:extended",
    "volume:unmounted",
    "volume:deleted",
]
VICTIM = """
import os, signal, sys
from pathlib import Path
from uuid import UUID
from ff_cloud.vms.host.volumes import Volumes

folder, vm_id, place = Path(sys.argv[1]), UUID(sys.argv[2]), sys.argv[3]
volumes = Volumes(folder, crash=lambda here: os.kill(os.getpid(), signal.SIGKILL) if here == place else None)
volumes.make(vm_id, 32 << 20)
volumes.grow(vm_id, 64 << 20)
volumes.remove(vm_id)
"""


@pytest.fixture
def volumes(tmp_path: Path) -> Iterator[Volumes]:
    made = Volumes(tmp_path / "vms")
    yield made
    made.clear()


@pytest.fixture
def vm_id() -> VmId:
    return VmId(SystemWorld().new_id())


def devices(folder: Path) -> list[str]:
    """The loop devices over files below a folder, deleted ones too."""
    found = []
    for backing in Path("/sys/block").glob("loop*/loop/backing_file"):
        try:
            found.append(backing.read_text())
        except OSError:
            continue
    return [text for text in found if text.startswith(str(folder))]


def none_left(folder: Path) -> bool:
    """Whether no loop device is left, or stays for longer than the kernel takes to give one back."""
    deadline = time.monotonic() + 10
    while devices(folder) and time.monotonic() < deadline:
        time.sleep(0.01)
    return devices(folder) == []


def fill(root: Path) -> int:
    """Write until there is no more room; how much there was."""
    written = 0
    with (root / "big").open("wb", buffering=0) as file:
        try:
            while True:
                written += file.write(b"\xff" * MIB)
        except OSError as error:
            assert error.errno == 28
    return written


def test_a_volume_holds_so_much_and_no_more(volumes: Volumes, vm_id: VmId, tmp_path: Path):
    root = volumes.make(vm_id, 64 * MIB)
    before = sum(file.stat().st_blocks * 512 for file in tmp_path.rglob("*.ext4"))
    assert before < 4 * MIB, "space is taken when it is used"
    assert 48 * MIB < fill(root) < 64 * MIB
    (root / "big").unlink()
    assert 48 * MIB < fill(root) < 64 * MIB


def test_nobody_else_on_this_machine_can_look_into_it(volumes: Volumes, vm_id: VmId, tmp_path: Path):
    root = volumes.make(vm_id, 32 * MIB)
    (root / "secret").write_text("x")
    (root / "secret").chmod(0o644)
    [disk] = tmp_path.rglob("disk.ext4")
    for path in (disk, root / "secret"):
        argv = ["setpriv", "--reuid", "65534", "--clear-groups", "cat", path]
        assert subprocess.run(argv, check=False, capture_output=True).returncode != 0, path
    assert (tmp_path / "vms/volumes").stat().st_mode & 0o777 == 0o700


def test_making_it_again_keeps_what_is_in_it(volumes: Volumes, vm_id: VmId):
    root = volumes.make(vm_id, 32 * MIB)
    (root / "note").write_text("kept")
    assert volumes.make(vm_id, 16 * MIB) == root
    assert (root / "note").read_text() == "kept"
    assert volumes.size_bytes(vm_id) == 32 * MIB
    volumes.make(vm_id, 64 * MIB)
    volumes.mount(vm_id)
    assert volumes.size_bytes(vm_id) == 64 * MIB
    assert (root / "note").read_text() == "kept"
    volumes.remove(vm_id)
    assert not (volumes.make(vm_id, 32 * MIB) / "note").exists()


def test_after_a_reboot_it_is_an_error_until_it_is_mounted(volumes: Volumes, vm_id: VmId):
    root = volumes.make(vm_id, 32 * MIB)
    (root / "note").write_text("kept")
    mounts.unmount(root.parent)
    assert not root.exists(), "an unmounted volume must not look like an empty one"
    volumes.mount(vm_id)
    assert (root / "note").read_text() == "kept"


def test_it_grows_while_it_is_used_or_with_its_next_mount(volumes: Volumes, vm_id: VmId):
    root = volumes.make(vm_id, 32 * MIB)
    (root / "note").write_text("kept")
    with (root / "note").open() as held:
        volumes.grow(vm_id, 128 * MIB)
        volumes.grow(vm_id, 64 * MIB)  # it never shrinks
        assert held.read() == "kept"
    online = os.statvfs(root).f_blocks * 4096 > 100 * MIB
    assert online == can_grow_online()
    volumes.mount(vm_id)
    assert volumes.size_bytes(vm_id) == 128 * MIB
    assert (root / "note").read_text() == "kept"
    assert 100 * MIB < fill(root) < 128 * MIB


def can_grow_online() -> bool:
    """Whether this process has CAP_SYS_RESOURCE."""
    [line] = [line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("CapEff")]
    return bool(int(line.split()[1], 16) >> 24 & 1)


def test_a_volume_somebody_holds_on_to_is_mounted_from_the_same_device(volumes: Volumes, vm_id: VmId, tmp_path: Path):
    root = volumes.make(vm_id, 32 * MIB)
    other = tmp_path / "container"  # as a container's mount namespace does
    other.mkdir()
    subprocess.run(["mount", "--bind", root, other], check=True)
    try:
        mounts.unmount(root.parent)
        (other / "note").write_text("from the container")
        volumes.mount(vm_id)
        assert (root / "note").read_text() == "from the container"
        assert len(devices(tmp_path)) == 1
        volumes.remove(vm_id)
        assert volumes.all() == set()
    finally:
        subprocess.run(["umount", other], check=True)
    assert none_left(tmp_path)


def test_removing_may_be_repeated_and_leaves_nothing(volumes: Volumes, vm_id: VmId, tmp_path: Path):
    volumes.make(vm_id, 32 * MIB)
    volumes.remove(vm_id)
    volumes.remove(vm_id)
    assert volumes.all() == set()
    assert none_left(tmp_path)
    assert [path.name for path in (tmp_path / "vms").rglob("*")] == ["volumes", f"template-{32 * MIB}.ext4"]
    for call in (volumes.mount, lambda gone: volumes.grow(gone, MIB)):
        with pytest.raises(VolumeMissing):
            call(vm_id)


def test_clearing_takes_along_what_is_mounted_anywhere_below(tmp_path: Path, vm_id: VmId):
    left = Volumes(tmp_path / "with a space" / "trial-1")
    root = left.make(vm_id, 32 * MIB)
    with (root / "held").open("w"):
        pass
    Volumes(tmp_path / "with a space").clear()
    assert not (tmp_path / "with a space").exists()
    assert str(tmp_path) not in Path("/proc/mounts").read_text().replace("\\040", " ")
    assert none_left(tmp_path)


def test_reserved_space_is_taken_at_once(volumes: Volumes, tmp_path: Path, vm_id: VmId):
    volumes = Volumes(tmp_path / "vms", reserve=True)
    volumes.make(vm_id, 64 * MIB)
    [disk] = (tmp_path / "vms").rglob("disk.ext4")
    assert disk.stat().st_blocks * 512 >= 64 * MIB
    with pytest.raises(NoCapacity, match="full"):
        volumes.grow(vm_id, 1 << 50)


def test_threads_that_race_make_one_volume(volumes: Volumes, vm_id: VmId, tmp_path: Path):
    async def race() -> list[Path]:
        return await asyncio.gather(*(asyncio.to_thread(volumes.make, vm_id, 32 * MIB) for _ in range(8)))

    assert len(set(asyncio.run(race()))) == 1
    assert len(devices(tmp_path)) == 1


def test_fifty_at_once(volumes: Volumes, tmp_path: Path):
    ids = [VmId(SystemWorld().new_id()) for _ in range(50)]

    async def all_of(call) -> None:
        await asyncio.gather(*(asyncio.to_thread(call, one) for one in ids))

    asyncio.run(all_of(lambda one: volumes.make(one, 32 * MIB)))
    assert volumes.all() == set(ids)
    assert len(devices(tmp_path)) == 50
    asyncio.run(all_of(volumes.remove))
    assert volumes.all() == set()
    assert none_left(tmp_path)


@pytest.mark.parametrize("place", PLACES)
def test_who_is_killed_leaves_nothing_that_is_not_found(volumes: Volumes, vm_id: VmId, tmp_path: Path, place: str):
    argv = [sys.executable, "-c", VICTIM, str(tmp_path / "vms"), str(vm_id), place]
    killed = subprocess.run(argv, check=False, timeout=60)
    assert killed.returncode == -signal.SIGKILL, "the place was passed"
    assert volumes.all() == {vm_id}
    if place in {"volume:unmounted", "volume:extended", "volume:mounted", "volume:made"}:
        assert volumes.make(vm_id, 32 * MIB).is_dir(), "what is whole is used"
    volumes.remove(vm_id)
    assert volumes.all() == set()
    assert none_left(tmp_path)
    assert not list((tmp_path / "vms").rglob("*.new"))
    assert volumes.make(vm_id, 32 * MIB).is_dir()


# --- as volumes of VMs ------------------------------------------------------------------------------------------------


@pytest.fixture
def options(tmp_path: Path) -> EngineOptions:
    return EngineOptions(disk_quota="on", place=tmp_path / "place")


@pytest.fixture
async def engine(network: VmNetwork, options: EngineOptions) -> AsyncIterator[DockerEngine]:
    async with docker_engine(network.deployment, options=options) as made:
        yield made
        await made.clear()


def wanted_vm(image: str, **changes) -> VmSpec:
    return replace(VmSpec(VmId(SystemWorld().new_id()), 1, 1, image, LIMITS, "0" * 64), **changes)


def inside(container_id: str, script: str) -> subprocess.CompletedProcess[str]:
    argv = ["docker", "exec", "--user", "dev", container_id, "bash", "-c", script]
    return subprocess.run(argv, check=False, capture_output=True, text=True, timeout=60)


@pytest.mark.docker
async def test_a_full_vm_is_told_and_its_neighbour_and_the_host_do_not_notice(engine: DockerEngine, image: str, tmp_path: Path):
    one, two = await asyncio.gather(engine.ensure(wanted_vm(image)), engine.ensure(wanted_vm(image)))
    full = inside(one.container_id, "head -c 200M /dev/zero | tr '\\0' x > ~/big; stat -c %s ~/big")
    assert "No space left on device" in full.stderr
    assert 40 * MIB < int(full.stdout) < 64 * MIB
    assert inside(two.container_id, "head -c 30M /dev/urandom > ~/fine && echo wrote").stdout == "wrote\n"
    assert inside(one.container_id, "rm ~/big && head -c 30M /dev/urandom > ~/fine && echo wrote").stdout == "wrote\n"
    assert (await engine.capacity()).disk_quota
    assert len(devices(tmp_path)) == 2


@pytest.mark.docker
async def test_the_image_s_folders_are_in_a_new_volume_with_their_owners(engine: DockerEngine, image: str):
    end = await engine.ensure(wanted_vm(image))
    listed = inside(end.container_id, "stat -c '%n %U %a' /workspace/home /workspace/.ff; ls -A /workspace").stdout.split("\n")
    assert listed[:2] == ["/workspace/home dev 700", "/workspace/.ff root 700"]
    assert "lost+found" not in listed


@pytest.mark.docker
async def test_files_live_through_stop_new_generation_and_reboot(engine: DockerEngine, image: str):
    wanted = wanted_vm(image)
    end = await engine.ensure(wanted)
    inside(end.container_id, "echo kept > ~/note")
    await engine.stop(wanted.vm_id)
    unmount_all(engine)
    back = await engine.start(wanted.vm_id)
    assert inside(back.container_id, "cat ~/note").stdout == "kept\n"
    renewed = await engine.ensure(replace(wanted, generation=2, volume="existing"))
    assert inside(renewed.container_id, "cat ~/note").stdout == "kept\n"
    await engine.isolation(wanted.vm_id)


def unmount_all(engine: DockerEngine) -> None:
    """As a reboot does."""
    for folder in (engine.ground.folder / "volumes").glob("*/mnt"):
        mounts.unmount(folder)


@pytest.mark.docker
async def test_lost_files_are_not_replaced_by_empty_ones(engine: DockerEngine, image: str):
    wanted = wanted_vm(image)
    await engine.ensure(wanted)
    await engine.stop(wanted.vm_id)
    mounts.unmount(engine.ground.folder / "volumes" / str(wanted.vm_id) / "mnt")
    (engine.ground.folder / "volumes" / str(wanted.vm_id) / "disk.ext4").unlink()
    with pytest.raises(VolumeMissing):
        await engine.start(wanted.vm_id)
    with pytest.raises(VolumeMissing):
        await engine.ensure(replace(wanted, generation=2, volume="existing"))
    renewed = await engine.ensure(replace(wanted, generation=2))
    assert inside(renewed.container_id, "ls ~ && echo empty").stdout == "empty\n"


@pytest.mark.docker
async def test_a_running_vm_gets_more_room_now_or_with_its_next_start(engine: DockerEngine, image: str):
    wanted = wanted_vm(image)
    end = await engine.ensure(wanted)
    await engine.update_limits(wanted.vm_id, replace(LIMITS, disk_bytes=128 * MIB))
    if not can_grow_online():
        await engine.stop(wanted.vm_id)
        end = await engine.start(wanted.vm_id)
    size = inside(end.container_id, "head -c 100M /dev/zero > ~/big; stat -c %s ~/big").stdout
    assert int(size) == 100 * MIB


@pytest.mark.docker
async def test_what_is_left_of_a_volume_is_seen_and_removed(engine: DockerEngine, image: str, tmp_path: Path):
    wanted = wanted_vm(image)
    end = await engine.ensure(wanted)
    name = f"ff-{engine.deployment}-{wanted.vm_id}"
    for argv in (["rm", "-f", end.container_id], ["volume", "rm", name]):
        await asyncio.to_thread(subprocess.run, ["docker", *argv], check=True, capture_output=True, timeout=60)
    [seen] = await engine.observe_all()
    assert (seen.vm_id, seen.container, seen.volume) == (wanted.vm_id, None, True)
    assert await engine.observe(wanted.vm_id) == seen
    await engine.remove(wanted.vm_id)
    assert await engine.observe_all() == []
    assert none_left(tmp_path)


@pytest.mark.docker
async def test_plain_volumes_stay_plain_and_limited_ones_limited_when_the_setting_changes(
    network: VmNetwork, options: EngineOptions, image: str
):
    plain, limited = wanted_vm(image), wanted_vm(image)
    off = replace(options, disk_quota="off")
    async with (
        docker_engine(network.deployment, options=off) as before,
        docker_engine(network.deployment, options=options) as after,
    ):
        first = await before.ensure(plain)
        inside(first.container_id, "echo plain > ~/note")
        again = await after.ensure(replace(plain, generation=2, volume="existing"))
        assert inside(again.container_id, "cat ~/note").stdout == "plain\n"

        first = await after.ensure(limited)
        inside(first.container_id, "echo limited > ~/note")
        again = await before.ensure(replace(limited, generation=2, volume="existing"))
        assert inside(again.container_id, "cat ~/note; df --output=size -m /workspace | tail -1").stdout.split()[0] == "limited"
        for one in (plain, limited):
            await before.remove(one.vm_id)
        assert await before.observe_all() == []
        await after.clear()
