"""One promise, two engines: the fake must not be nicer than Docker."""

import asyncio
import dataclasses
from collections.abc import AsyncIterator
from contextlib import aclosing
from dataclasses import dataclass
from pathlib import Path

import pytest

from ff_cloud.testing.engine import FakeEngine
from ff_cloud.testing.processes import ProcessEngine
from ff_cloud.testing.server import scratch_folder
from ff_cloud.testing.vm_network import vm_network
from ff_cloud.vms.engine import Engine, Limits, Observed, VmSpec
from ff_cloud.vms.engine.docker import docker_engine
from ff_cloud.vms.engine.errors import (
    ContainerMissing,
    ImageInUse,
    IsolationBroken,
    RuntimeMissing,
    StaleFence,
    VolumeMissing,
)
from ff_cloud.vms.engine.options import EngineOptions
from ff_cloud.vms.errors import ImageMissing
from ff_core.ids import VmId
from ff_core.world import SystemWorld

LIMITS = Limits(memory_bytes=128 << 20, cpus=0.5, pids=64, disk_bytes=64 << 20)
WORLD = SystemWorld()


@dataclass(frozen=True)
class Case:
    engine: Engine
    image: str

    def spec(self, **changes) -> VmSpec:
        wanted = VmSpec(VmId(WORLD.new_id()), generation=1, fence=5, image=self.image, limits=LIMITS, token_sha256="0" * 64)
        return dataclasses.replace(wanted, **changes)


@pytest.fixture(
    params=[
        "fake",
        "processes",
        pytest.param("docker", marks=pytest.mark.docker),
        pytest.param("docker alone", marks=pytest.mark.docker),
    ]
)
async def case(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Case]:
    """With all that this machine can do, and with what the Docker Engine does alone."""
    if request.param == "fake":
        yield Case(FakeEngine("fake:1"), "fake:1")
        return
    if request.param == "processes":
        processes = ProcessEngine(scratch_folder("ff-vms-"), "fake:1")
        yield Case(processes, "fake:1")
        processes.close()
        return
    image = request.getfixturevalue("image")
    options = EngineOptions(place=tmp_path / "place")
    if request.param == "docker alone":
        options = dataclasses.replace(options, networking="docker", disk_quota="off", egress="off", runtime="runc")
    async with vm_network() as network, docker_engine(network.deployment, options=options) as engine:
        yield Case(engine, image)
        await engine.clear()


async def test_ensure_twice_is_one_container(case: Case):
    spec = case.spec()
    first = await case.engine.ensure(spec)
    again = await case.engine.ensure(dataclasses.replace(spec, fence=spec.fence + 1))
    assert again == first
    assert len(await case.engine.observe_all()) == 1


async def test_five_racing_calls_are_one_container(case: Case):
    spec = case.spec()
    ends = await asyncio.gather(*(case.engine.ensure(spec) for _ in range(5)))
    assert len(set(ends)) == 1
    assert [seen.container.id for seen in await case.engine.observe_all()] == [ends[0].container_id]


async def test_observe_sees_the_whole_life(case: Case):
    spec = case.spec(fence=7)
    assert await case.engine.observe(spec.vm_id) == Observed(spec.vm_id, None, volume=False)

    end = await case.engine.ensure(spec)
    before = await case.engine.observe(spec.vm_id)
    assert before.volume
    assert before.container.state == "running"
    assert (before.container.id, before.container.address) == (end.container_id, end.address)
    assert (before.container.generation, before.container.fence, before.container.image) == (1, 7, case.image)
    assert before.container.exit_code is None
    assert before.container.started_at is not None
    assert await case.engine.observe_all() == [before]

    await case.engine.stop(spec.vm_id)
    stopped = await case.engine.observe(spec.vm_id)
    assert stopped.container.id == end.container_id
    assert (stopped.container.state, stopped.container.address) == ("exited", None)
    assert stopped.container.exit_code == 143

    await case.engine.remove(spec.vm_id)
    assert await case.engine.observe(spec.vm_id) == Observed(spec.vm_id, None, volume=False)
    assert await case.engine.observe_all() == []


async def test_stop_and_start_keep_the_container(case: Case):
    spec = case.spec()
    end = await case.engine.ensure(spec)
    await case.engine.stop(spec.vm_id)
    await case.engine.stop(spec.vm_id)
    back = await case.engine.start(spec.vm_id)
    assert back.container_id == end.container_id
    assert await case.engine.start(spec.vm_id) == back
    await case.engine.stop(spec.vm_id)
    assert (await case.engine.ensure(spec)).container_id == end.container_id
    assert (await case.engine.observe(spec.vm_id)).container.state == "running"


async def test_without_a_container(case: Case):
    nobody = case.spec().vm_id
    await case.engine.stop(nobody)
    await case.engine.remove(nobody)
    with pytest.raises(ContainerMissing):
        await case.engine.start(nobody)
    with pytest.raises(ContainerMissing):
        await case.engine.update_limits(nobody, LIMITS)


async def test_remove_may_be_repeated_and_raced(case: Case):
    spec = case.spec()
    await case.engine.ensure(spec)
    await asyncio.gather(case.engine.remove(spec.vm_id), case.engine.remove(spec.vm_id))
    await case.engine.remove(spec.vm_id)
    assert await case.engine.observe_all() == []


async def test_a_higher_generation_gets_a_new_container_over_the_volume(case: Case):
    spec = case.spec()
    old = await case.engine.ensure(spec)
    newer = dataclasses.replace(spec, generation=2, fence=6)
    ends = await asyncio.gather(case.engine.ensure(newer), case.engine.ensure(newer))
    assert ends[0] == ends[1]
    assert ends[0].container_id != old.container_id
    [seen] = await case.engine.observe_all()
    assert (seen.container.id, seen.container.generation, seen.volume) == (ends[0].container_id, 2, True)


@pytest.mark.parametrize("stale", [{"fence": 4}, {"generation": 1, "fence": 9}], ids=["fence", "generation"])
async def test_who_comes_late_is_refused(case: Case, stale):
    spec = case.spec(generation=2)
    end = await case.engine.ensure(spec)
    with pytest.raises(StaleFence):
        await case.engine.ensure(dataclasses.replace(spec, **stale))
    assert (await case.engine.observe(spec.vm_id)).container.id == end.container_id


async def test_a_missing_image_is_said_and_leaves_nothing(case: Case):
    with pytest.raises(ImageMissing, match="ff-cloud image build"):
        await case.engine.ensure(case.spec(image="ff-no-such-image:1"))
    assert await case.engine.observe_all() == []


async def test_an_unknown_runtime_is_said_and_leaves_nothing(case: Case):
    spec = case.spec(runtime="ff-no-such-runtime")
    with pytest.raises(RuntimeMissing, match="FF_VM_RUNTIME"):
        await case.engine.ensure(spec)
    await case.engine.remove(spec.vm_id)
    assert await case.engine.observe_all() == []


async def test_lost_files_are_not_replaced_by_empty_ones(case: Case):
    spec = case.spec(volume="existing")
    with pytest.raises(VolumeMissing, match="checkpoint"):
        await case.engine.ensure(spec)
    assert await case.engine.observe_all() == []

    await case.engine.ensure(dataclasses.replace(spec, volume="any"))
    again = await case.engine.ensure(dataclasses.replace(spec, generation=2))
    seen = await case.engine.observe(spec.vm_id)
    assert (seen.container.id, seen.volume) == (again.container_id, True)


async def test_the_disk_only_grows(case: Case):
    spec = case.spec(limits=dataclasses.replace(LIMITS, disk_bytes=64 << 20))
    await case.engine.ensure(spec)
    for size in (128 << 20, 64 << 20, None):
        await case.engine.update_limits(spec.vm_id, dataclasses.replace(LIMITS, disk_bytes=size))


async def test_capacity_counts_what_runs(case: Case):
    await case.engine.ensure(case.spec())
    seen = await case.engine.capacity()
    assert seen.containers >= 1  # others use this machine too
    assert seen.memory_total_bytes > 0
    assert seen.cpus >= 1


async def test_the_walls_of_a_running_vm_stand(case: Case):
    spec = case.spec()
    with pytest.raises(ContainerMissing):
        await case.engine.isolation(spec.vm_id)
    await case.engine.ensure(spec)
    await case.engine.isolation(spec.vm_id)
    await case.engine.stop(spec.vm_id)
    with pytest.raises(IsolationBroken, match="does not run"):
        await case.engine.isolation(spec.vm_id)


async def test_images_are_listed_and_kept_while_needed(case: Case):
    assert await case.engine.images()
    await case.engine.ensure(case.spec())
    with pytest.raises(ImageInUse):
        await case.engine.remove_image(case.image)
    await case.engine.remove_image("ff-no-such-image:1")


async def test_preparing_may_be_repeated_and_needs_the_image(case: Case):
    await asyncio.gather(case.engine.prepare(case.image), case.engine.prepare(case.image))
    await case.engine.prepare(case.image)
    await case.engine.ensure(case.spec())
    assert len(await case.engine.observe_all()) == 1


async def test_two_vms_have_an_address_each(case: Case):
    ends = await asyncio.gather(*(case.engine.ensure(case.spec()) for _ in range(4)))
    assert len({end.address for end in ends}) == 4
    seen = {one.container.id: one.container.address for one in await case.engine.observe_all()}
    assert seen == {end.container_id: end.address for end in ends}


async def test_check_knows_the_image(case: Case):
    assert (await case.engine.check(case.image)).image_present
    assert not (await case.engine.check("ff-no-such-image:1")).image_present


async def test_events_tell_of_a_life(case: Case):
    spec = case.spec()
    kinds: list[str] = []

    async def listen() -> None:
        async with aclosing(case.engine.events()) as events:
            async for event in events:
                assert event.vm_id == spec.vm_id
                kinds.append(event.kind)
                if event.kind == "destroy":
                    return

    listener = asyncio.create_task(listen())
    async with asyncio.timeout(60):
        while "start" not in kinds:  # a subscription shows only by what it hears
            await case.engine.ensure(spec)
            await asyncio.sleep(0.1)
            if "start" not in kinds:
                await case.engine.stop(spec.vm_id)
        await case.engine.remove(spec.vm_id)
        await listener
    assert kinds[-2:] == ["die", "destroy"]
