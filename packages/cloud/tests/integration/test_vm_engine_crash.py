"""Whoever makes or removes a VM may be killed at any place: the next call goes on from there, or removes what is left."""

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from ff_cloud.testing.vm_network import VmNetwork
from ff_cloud.vms.engine import Limits, Observed, VmSpec
from ff_cloud.vms.engine.docker import DockerEngine, docker_engine
from ff_cloud.vms.engine.options import EngineOptions
from ff_core.ids import VmId
from ff_core.world import SystemWorld

pytestmark = pytest.mark.docker

AS_ROOT = pytest.mark.skipif(os.geteuid() != 0, reason="needs root")
LIMITS = Limits(memory_bytes=128 << 20, cpus=0.5, pids=64, disk_bytes=32 << 20)
ENSURE = ["ensure:volume", "ensure:created", "start:started"]
ENSURE_HERE = ["volume:folder", "volume:copied", "volume:made", "volume:mounted", "connect:plugged", "connect:outside"]
RENEW = ["ensure:replaced"]
REMOVE = ["remove:container", "remove:volume"]
REMOVE_HERE = ["volume:unmounted", "volume:deleted"]
VICTIM = """
import asyncio, os, signal, sys
from pathlib import Path
from uuid import UUID
from ff_cloud.vms.engine import Limits, VmSpec
from ff_cloud.vms.engine.docker import docker_engine
from ff_cloud.vms.engine.options import EngineOptions

deployment, networking, quota, place, vm_id, image, act, at = sys.argv[1:]
options = EngineOptions(networking=networking, disk_quota=quota, egress="off", place=Path(place))
armed = False

def crash(here):
    if armed and here == at:
        os.kill(os.getpid(), signal.SIGKILL)

async def main():
    global armed
    async with docker_engine(deployment, options=options, crash=crash) as engine:
        await engine.prepare(image)
        spec = VmSpec(UUID(vm_id), 2 if act == "renew" else 1, 1, image, Limits(128 << 20, 0.5, 64, 32 << 20), "0" * 64)
        armed = True
        await (engine.remove(UUID(vm_id)) if act == "remove" else engine.ensure(spec))

asyncio.run(main())
"""


@dataclass(frozen=True)
class Case:
    network: VmNetwork
    options: EngineOptions
    image: str
    spec: VmSpec

    def killed(self, act: str, at: str) -> None:
        """Let a process die at a place of an act."""
        options = self.options
        words = [self.network.deployment, options.networking, options.disk_quota, str(options.place)]
        argv = [sys.executable, "-c", VICTIM, *words, str(self.spec.vm_id), self.image, act, at]
        done = subprocess.run(argv, check=False, capture_output=True, text=True, timeout=90)
        assert done.returncode == -signal.SIGKILL, f"{at} was passed: {done.stderr[-2000:]}"


def options_for(mode: str, place: Path) -> EngineOptions:
    if mode == "here":
        return EngineOptions(networking="direct", disk_quota="on", egress="off", place=place)
    return EngineOptions(networking="docker", disk_quota="off", egress="off", place=place)


@pytest.fixture
async def engine(network: VmNetwork, mode: str, tmp_path: Path) -> AsyncIterator[DockerEngine]:
    async with docker_engine(network.deployment, options=options_for(mode, tmp_path / "place")) as made:
        yield made
        await made.clear()


@pytest.fixture
def case(network: VmNetwork, engine: DockerEngine, image: str) -> Case:
    spec = VmSpec(VmId(SystemWorld().new_id()), 1, 1, image, LIMITS, "0" * 64)
    return Case(network, engine.ground.options, image, spec)


def places(everywhere: list[str], here: list[str]) -> list[object]:
    """Each place, where VMs are Docker's alone, and where we connect them and limit their disks."""
    plain = [pytest.param("docker", place) for place in everywhere]
    return [*plain, *(pytest.param("here", place, marks=AS_ROOT) for place in [*everywhere, *here])]


def left(engine: DockerEngine, spec: VmSpec) -> list[str]:
    """Everything on this machine that is the VM's."""
    name, found = f"ff-{engine.deployment}-{spec.vm_id}", []
    for argv in (["ps", "-aq", "--filter", f"name={name}"], ["volume", "ls", "-q", "--filter", f"name={name}"]):
        found += subprocess.run(["docker", *argv], check=True, capture_output=True, text=True, timeout=60).stdout.split()
    found += [str(path) for path in engine.ground.folder.rglob(f"*{spec.vm_id}*")]
    found += [line for line in Path("/proc/mounts").read_text().splitlines() if str(spec.vm_id) in line]
    for backing in Path("/sys/block").glob("loop*/loop/backing_file"):
        try:
            found += [text for text in [backing.read_text()] if str(spec.vm_id) in text]
        except OSError:
            continue
    return found


async def adopted(engine: DockerEngine, spec: VmSpec) -> None:
    """The next call makes one whole VM of what is there."""
    ends = await asyncio.gather(engine.ensure(replace(spec, fence=2)), engine.ensure(replace(spec, fence=2)))
    assert ends[0] == ends[1]
    [seen] = await engine.observe_all()
    assert seen.container is not None
    assert (seen.vm_id, seen.volume, seen.container.id) == (spec.vm_id, True, ends[0].container_id)
    assert seen.container.address == ends[0].address
    await engine.isolation(spec.vm_id)


async def removed(engine: DockerEngine, spec: VmSpec) -> None:
    await engine.remove(spec.vm_id)
    assert await engine.observe_all() == []
    assert await engine.observe(spec.vm_id) == Observed(spec.vm_id, None, volume=False)
    async with asyncio.timeout(10):
        while left(engine, spec):  # the kernel gives a loop device back a little after its last mount
            await asyncio.sleep(0.05)


@pytest.mark.parametrize(("mode", "at"), places(ENSURE, ENSURE_HERE))
async def test_killed_while_it_was_made(case: Case, engine: DockerEngine, at: str):
    await asyncio.to_thread(case.killed, "ensure", at)
    seen = await engine.observe_all()
    assert [one.vm_id for one in seen] == [case.spec.vm_id], "a sweep finds what is left"
    await adopted(engine, case.spec)
    await removed(engine, case.spec)

    await asyncio.to_thread(case.killed, "ensure", at)
    await removed(engine, case.spec)


@pytest.mark.parametrize(("mode", "at"), places(RENEW, []))
async def test_killed_between_two_generations(case: Case, engine: DockerEngine, at: str):
    await engine.ensure(case.spec)
    await asyncio.to_thread(case.killed, "renew", at)
    assert (await engine.observe(case.spec.vm_id)).volume
    await adopted(engine, replace(case.spec, generation=2, volume="existing"))
    await removed(engine, case.spec)


@pytest.mark.parametrize(("mode", "at"), places(REMOVE, REMOVE_HERE))
async def test_killed_while_it_was_removed(case: Case, engine: DockerEngine, at: str):
    await engine.ensure(case.spec)
    await asyncio.to_thread(case.killed, "remove", at)
    found = {one.vm_id for one in await engine.observe_all()}
    assert found == ({case.spec.vm_id} if left(engine, case.spec) else set())
    await removed(engine, case.spec)
    await adopted(engine, case.spec)


def test_every_place_is_tried():
    """A place that is added to the code is added here."""
    source = Path(sys.modules[DockerEngine.__module__].__file__ or "").parent.parent
    named = {
        line.split('rash("')[1].split('"')[0]
        for path in source.rglob("*.py")
        for line in path.read_text().splitlines()
        if 'rash("' in line and ":" in line.split('rash("')[1].split('"')[0]
    }
    elsewhere = {"volume:extended"}  # test_vm_volumes
    assert named - elsewhere == {*ENSURE, *ENSURE_HERE, *RENEW, *REMOVE, *REMOVE_HERE}
