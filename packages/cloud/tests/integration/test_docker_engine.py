"""What only the real Docker Engine can prove: the walls of a container, and its own bad days."""

import asyncio
import dataclasses
import json
import os
import secrets
import subprocess
from collections.abc import AsyncIterator, Iterator
from contextlib import suppress
from ipaddress import IPv4Address

import pytest

from ff_cloud.testing.vm_image import image_running
from ff_cloud.testing.vm_network import VmNetwork, vm_network
from ff_cloud.vms.engine import Endpoint, Limits, VmSpec
from ff_cloud.vms.engine.docker import DockerEngine, docker_engine
from ff_cloud.vms.engine.errors import EngineFailed, ImageInUse, IsolationBroken
from ff_cloud.vms.engine.options import EngineOptions
from ff_cloud.vms.errors import DockerUnreachable
from ff_cloud.vms.token import token_sha256, vm_token
from ff_core.errors import InvalidInput
from ff_core.ids import VmId
from ff_core.world import SystemWorld

WORLD = SystemWorld()
SECRET = b"s" * 32
AS_ROOT = pytest.mark.skipif(os.geteuid() != 0, reason="needs root")
LIMITS = Limits(memory_bytes=128 * 1024 * 1024, cpus=0.5, pids=64)


@pytest.fixture(scope="module")
def image() -> Iterator[str]:
    with image_running(["python3", "-m", "http.server", "8430", "--directory", "/workspace/repo"]) as tag:
        yield tag


@pytest.fixture(params=[pytest.param("direct", marks=AS_ROOT), "docker"])
def networking(request: pytest.FixtureRequest) -> str:
    """Who connects VMs to their network."""
    return request.param


@pytest.fixture
async def engine(network: VmNetwork, networking: str) -> AsyncIterator[DockerEngine]:
    async with docker_engine(network.deployment, options=EngineOptions(networking=networking)) as made:
        yield made


def spec(image: str, **changes) -> VmSpec:
    vm_id = VmId(WORLD.new_id())
    token = token_sha256(vm_token(SECRET, vm_id, 1))
    return dataclasses.replace(VmSpec(vm_id, 1, 1, image, LIMITS, token), **changes)


def docker(*argv: str) -> str:
    return subprocess.run(["docker", *argv], check=True, capture_output=True, text=True, timeout=60).stdout


def inside(container_id: str, script: str, *, user: str = "dev") -> subprocess.CompletedProcess[str]:
    argv = ["docker", "exec", "--user", user, container_id, "bash", "-c", script]
    return subprocess.run(argv, check=False, capture_output=True, text=True, timeout=60)


async def connect(address: str, port: int) -> bool:
    """Whether the port answers, from this host, soon after the container's start."""
    async with asyncio.timeout(20):
        while True:
            try:
                _, writer = await asyncio.open_connection(address, port)
            except OSError:
                await asyncio.sleep(0.05)
            else:
                writer.close()
                await writer.wait_closed()
                return True


@pytest.mark.docker
async def test_the_walls_stand(engine: DockerEngine, image: str, network: VmNetwork):
    wanted = spec(image, extra_hosts={"git.example": "192.0.2.7"}, environment={"FF_MODE": "test"})
    end = await engine.ensure(wanted)
    text = docker("inspect", end.container_id)
    [shown] = json.loads(text)
    host = shown["HostConfig"]

    assert host["ReadonlyRootfs"] is True
    assert host["CapDrop"] == ["ALL"]
    assert {cap.removeprefix("CAP_") for cap in host["CapAdd"]} == {"CHOWN", "DAC_OVERRIDE", "KILL", "SETGID", "SETUID"}
    assert host["SecurityOpt"][0] == "no-new-privileges"
    assert json.loads(host["SecurityOpt"][1].removeprefix("seccomp="))["defaultAction"] == "SCMP_ACT_ERRNO"
    assert host["Init"] is True
    assert host["Privileged"] is False
    assert host["RestartPolicy"]["Name"] == "no"
    assert (host["Memory"], host["NanoCpus"], host["PidsLimit"]) == (LIMITS.memory_bytes, 500_000_000, 64)
    assert host["LogConfig"] == {"Type": "json-file", "Config": {"max-size": "10485760", "max-file": "3"}}
    assert not host["PortBindings"]
    assert not any(shown["NetworkSettings"]["Ports"].values())
    assert shown["Config"]["StopTimeout"] == 10
    assert (
        shown["Config"]["Labels"].items()
        >= {
            "ff.deployment": network.deployment,
            "ff.vm": str(wanted.vm_id),
            "ff.generation": "1",
            "ff.fence": "1",
        }.items()
    )

    assert vm_token(SECRET, wanted.vm_id, 1) not in text
    assert SECRET.decode() not in text
    assert f"FF_TOKEN_SHA256={wanted.token_sha256}" in shown["Config"]["Env"]
    assert "FF_MODE=test" in shown["Config"]["Env"]

    assert inside(end.container_id, "touch /etc/x", user="root").returncode != 0, "the root file system is read-only"
    assert inside(end.container_id, "echo true > /tmp/run && chmod +x /tmp/run && /tmp/run").returncode == 0
    assert inside(end.container_id, "cat /workspace/.ff/x; ls /workspace/.ff").returncode != 0
    assert inside(end.container_id, "touch /workspace/home/mine && stat -c %U /workspace/home/mine").stdout == "dev\n"
    assert "CapEff:\t0000000000000000" in inside(end.container_id, "cat /proc/self/status").stdout
    assert "Seccomp:\t2" in inside(end.container_id, "cat /proc/self/status").stdout
    hosts = inside(end.container_id, "cat /etc/hosts").stdout
    assert f"{network.gateway}\tff-host" in hosts
    assert inside(end.container_id, "ls /proc/net/if_inet6 && cat /proc/net/if_inet6").stdout.strip() in {
        "",
        "/proc/net/if_inet6",
    }
    assert "192.0.2.7\tgit.example" in hosts


@pytest.mark.docker
async def test_containers_hear_the_host_but_not_each_other(engine: DockerEngine, image: str):
    one, two = await asyncio.gather(engine.ensure(spec(image)), engine.ensure(spec(image)))
    assert await connect(one.address, one.port)
    assert await connect(two.address, two.port)
    probe = "timeout 3 bash -c ': < /dev/tcp/{}/8430'"
    assert inside(one.container_id, probe.format("127.0.0.1")).returncode == 0, "the probe itself works"
    assert inside(one.container_id, probe.format(two.address)).returncode != 0
    assert inside(two.container_id, probe.format(one.address)).returncode != 0


@pytest.mark.docker
async def test_a_new_generation_finds_its_files(engine: DockerEngine, image: str):
    wanted = spec(image)
    end = await engine.ensure(wanted)
    assert inside(end.container_id, "echo kept > /workspace/home/note").returncode == 0
    end = await engine.ensure(dataclasses.replace(wanted, generation=2))
    assert inside(end.container_id, "cat /workspace/home/note").stdout == "kept\n"


@pytest.mark.docker
async def test_limits_change_while_it_runs(engine: DockerEngine, image: str):
    wanted = spec(image)
    end = await engine.ensure(wanted)
    await engine.update_limits(wanted.vm_id, Limits(memory_bytes=256 * 1024 * 1024, cpus=1.5, pids=99))
    host = json.loads(docker("inspect", end.container_id))[0]["HostConfig"]
    assert (host["Memory"], host["NanoCpus"], host["PidsLimit"]) == (256 * 1024 * 1024, 1_500_000_000, 99)
    assert "99" in inside(end.container_id, "cat /sys/fs/cgroup/pids/pids.max /sys/fs/cgroup/pids.max 2>/dev/null").stdout


@pytest.mark.docker
async def test_an_end_by_memory_is_seen(engine: DockerEngine):
    with image_running(["python3", "-c", "x = bytearray(10**9)"]) as greedy:
        wanted = spec(greedy)
        end = await engine.ensure(wanted)
        docker("wait", end.container_id)
        seen = (await engine.observe(wanted.vm_id)).container
        assert (seen.exit_code, seen.oom_killed) == (137, True)


@pytest.mark.docker
async def test_a_program_that_is_not_in_the_image_is_a_sentence(engine: DockerEngine):
    with image_running(["/no/such/program"]) as broken:
        wanted = spec(broken)
        with suppress(EngineFailed):  # on a busy machine the init process lives for a moment, and that is seen
            await engine.ensure(wanted)
        async with asyncio.timeout(10):
            while (await engine.observe(wanted.vm_id)).container.running:
                await asyncio.sleep(0.05)
        await engine.remove(wanted.vm_id)
    assert await engine.observe_all() == []


@pytest.mark.docker
async def test_a_volume_can_be_small(network: VmNetwork, image: str):
    options = {"type": "tmpfs", "device": "tmpfs", "o": "size=1m"}
    async with docker_engine(network.deployment, options=EngineOptions(volume_options=options)) as engine:
        end = await engine.ensure(spec(image))
        full = inside(end.container_id, "head -c 2000000 /dev/zero > /workspace/x", user="root")
        assert "No space left" in full.stderr


@pytest.mark.docker
async def test_an_orphaned_volume_is_found_and_removed(engine: DockerEngine, image: str):
    wanted = spec(image)
    end = await engine.ensure(wanted)
    docker("rm", "-f", end.container_id)
    [seen] = await engine.observe_all()
    assert (seen.vm_id, seen.container, seen.volume) == (wanted.vm_id, None, True)
    await engine.remove(wanted.vm_id)
    assert docker("volume", "ls", "-q", "--filter", f"label=ff.vm={wanted.vm_id}") == ""


@pytest.mark.docker
async def test_an_image_goes_with_all_its_tags_once_nobody_needs_it(engine: DockerEngine, image: str):
    tags = [f"ff-workspace:test-{secrets.token_hex(4)}" for _ in range(2)]
    build = f"FROM {image}\nLABEL test={tags[0]}\n"
    words = ["docker", "build", "--quiet", *(word for tag in tags for word in ("--tag", tag)), "-"]
    await asyncio.to_thread(subprocess.run, words, input=build, text=True, check=True, capture_output=True, timeout=60)
    [seen] = [each for each in await engine.images() if set(each.tags) & set(tags)]
    assert set(seen.tags) == set(tags)
    assert seen.bytes_total > 0
    assert abs((seen.made_at - WORLD.now()).total_seconds()) < 3600

    wanted = spec(tags[0])
    await engine.ensure(wanted)
    await engine.stop(wanted.vm_id)
    with pytest.raises(ImageInUse):
        await engine.remove_image(seen.id)
    await engine.remove(wanted.vm_id)
    await engine.remove_image(seen.id)
    await engine.remove_image(seen.id)
    assert not [each for each in await engine.images() if each.id == seen.id]


@pytest.mark.docker
async def test_what_a_vm_says_does_not_fill_the_disk(engine: DockerEngine):
    script = "head -c 60000000 /dev/zero | tr '\\0' x | fold -w 200; sleep infinity"
    with image_running(["sh", "-c", script]) as chatty:
        end = await engine.ensure(spec(chatty))
        async with asyncio.timeout(90):
            while "sleep" not in inside(end.container_id, "cat /proc/*/comm").stdout:
                await asyncio.sleep(0.2)
        said = docker("logs", "--tail", "1000000000", end.container_id)
    assert 0 < len(said) <= 30 * 1024 * 1024


@pytest.mark.docker
async def test_capacity_is_that_of_this_machine(engine: DockerEngine, image: str):
    await engine.ensure(spec(image))
    seen = await engine.capacity()
    assert 0 < seen.memory_available_bytes <= seen.memory_total_bytes
    assert 0 < seen.disk_free_bytes <= seen.disk_total_bytes
    assert 0 < seen.pids < seen.pids_max
    assert seen.cpus == os.cpu_count()
    assert 0 < seen.containers <= seen.containers_max <= 1023


@pytest.mark.docker
async def test_a_container_on_a_second_network_is_not_given_away(network: VmNetwork, image: str):
    async with docker_engine(network.deployment, options=EngineOptions(networking="docker")) as engine:
        wanted = spec(image)
        end = await engine.ensure(wanted)
        await engine.isolation(wanted.vm_id)
        docker("network", "connect", "bridge", end.container_id)
        with pytest.raises(IsolationBroken, match="exactly one network"):
            await engine.isolation(wanted.vm_id)


def ip(end: Endpoint, *argv: str) -> None:
    """Change the network inside of a container, as only root of this machine can."""
    pid = docker("inspect", "--format", "{{.State.Pid}}", end.container_id).strip()
    subprocess.run(["nsenter", "--target", pid, "--net", "ip", *argv], check=True, capture_output=True, timeout=30)


@pytest.mark.docker
@AS_ROOT
@pytest.mark.parametrize(
    ("harm", "problem"),
    [
        (lambda end: ip(end, "address", "add", "172.31.255.9/24", "dev", "eth0"), "addresses"),
        (lambda end: ip(end, "address", "flush", "dev", "eth0"), "addresses"),
        (lambda end: (ip(end, "link", "add", "more", "type", "veth"), ip(end, "link", "set", "more", "up")), "interfaces"),
        (lambda end: ip(end, "link", "delete", "eth0"), "exactly one cable"),
        (lambda end: subprocess.run(["bridge", "link", "set", "dev", cable(end), "isolated", "off"], check=True), "other VMs"),
        (lambda end: subprocess.run(["ip", "link", "set", cable(end), "nomaster"], check=True), "exactly one cable"),
    ],
    ids=["second address", "no address", "second interface", "no cable", "port not isolated", "not on the bridge"],
)
async def test_a_hole_in_the_network_is_seen(network: VmNetwork, image: str, harm, problem: str):
    async with docker_engine(network.deployment, options=EngineOptions(networking="direct")) as engine:
        wanted, other = spec(image), spec(image)
        end, _ = await asyncio.gather(engine.ensure(wanted), engine.ensure(other))
        await engine.isolation(wanted.vm_id)
        await asyncio.to_thread(harm, end)
        with pytest.raises(IsolationBroken, match=problem):
            await engine.isolation(wanted.vm_id)
        await engine.isolation(other.vm_id)


def cable(end: Endpoint) -> str:
    """The host's end of a VM's cable."""
    return f"ff-{int(IPv4Address(end.address)):08x}"


@pytest.mark.docker
@AS_ROOT
async def test_a_vm_that_docker_was_told_to_connect_too_is_not_given_away_and_can_be_removed(network: VmNetwork, image: str):
    async with docker_engine(network.deployment, options=EngineOptions(networking="direct")) as engine:
        wanted = spec(image)
        end = await engine.ensure(wanted)
        docker("network", "connect", network.name, end.container_id)
        with pytest.raises(IsolationBroken, match="exactly one network"):
            await engine.isolation(wanted.vm_id)
        await engine.remove(wanted.vm_id)
        assert await engine.observe_all() == []
        await engine.clear()


@pytest.mark.docker
async def test_two_servers_make_one_network(image: str):
    async with vm_network() as network:
        docker("network", "rm", network.name)
        async with docker_engine(network.deployment) as one, docker_engine(network.deployment) as two:
            assert not (await one.check(image)).network_ready
            gateways = await asyncio.gather(one.network_gateway(), two.network_gateway(), one.network_gateway())
            assert len(set(gateways)) == 1
            assert (await one.check(image)).network_ready
            assert len(docker("network", "ls", "-q", "--filter", f"label=ff.deployment={network.deployment}").split()) == 1


@pytest.mark.docker
async def test_a_container_whose_network_went_comes_back_on_another(
    engine: DockerEngine, image: str, network: VmNetwork, networking: str
):
    wanted = spec(image)
    old = await engine.ensure(wanted)
    await engine.stop(wanted.vm_id)
    docker("network", "rm", network.name)
    new = await engine.ensure(wanted)
    assert (new.container_id == old.container_id) == (networking == "direct")
    assert await connect(new.address, new.port)


@pytest.mark.docker
@AS_ROOT
async def test_a_network_that_goes_under_a_running_vm_is_made_again(image: str, network: VmNetwork):
    async with docker_engine(network.deployment, options=EngineOptions(networking="direct")) as engine:
        wanted = spec(image)
        old = await engine.ensure(wanted)
        docker("network", "rm", network.name)  # Docker does not know that anybody is on it
        assert (await engine.observe(wanted.vm_id)).container.address is None
        new = await engine.ensure(wanted)
        assert new.container_id == old.container_id
        assert await connect(new.address, new.port)
        await engine.isolation(wanted.vm_id)


@pytest.mark.docker
async def test_a_given_network_must_exist(network: VmNetwork, image: str):
    async with docker_engine("other", options=EngineOptions(network="ff-no-such-network")) as engine:
        with pytest.raises(EngineFailed, match="no Docker network 'ff-no-such-network'"):
            await engine.ensure(spec(image))
    async with docker_engine(network.deployment, options=EngineOptions(network=network.name)) as engine:
        assert await engine.network_gateway() == network.gateway
        await engine.ensure(spec(image))


@pytest.mark.docker
async def test_nothing_is_left_of_a_test_network(image: str):
    async with vm_network() as network, docker_engine(network.deployment) as engine:
        await engine.ensure(spec(image))
    label = f"label=ff.deployment={network.deployment}"
    for listing in (["ps", "-aq"], ["volume", "ls", "-q"], ["network", "ls", "-q"]):
        assert docker(*listing, "--filter", label) == ""


async def test_an_engine_that_is_not_there_says_so_quickly(tmp_path):
    async with docker_engine("nobody", url=f"unix://{tmp_path}/none.sock") as engine, asyncio.timeout(5):
        for call in (engine.check("x"), engine.ensure(spec("x")), engine.observe_all(), anext(engine.events())):
            with pytest.raises(DockerUnreachable, match=r"scripts/bootstrap.sh docker"):
                await call


@pytest.mark.parametrize(("name", "url"), [("Bad Name", None), ("", None), ("x" * 41, None), ("ok", "nonsense")])
async def test_a_bad_setting_is_named(name, url):
    with pytest.raises(InvalidInput):
        async with docker_engine(name, url=url):
            pass
