"""What a real VM reaches of this machine and of its networks, and that it stays so. Nothing outside of the machine is asked."""

import asyncio
import os
import subprocess
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network

import pytest

from ff_cloud.testing.vm_image import image_running
from ff_cloud.testing.vm_network import VmNetwork, vm_network
from ff_cloud.vms.engine import Endpoint, Limits, VmSpec
from ff_cloud.vms.engine.docker import DockerEngine, docker_engine
from ff_cloud.vms.engine.options import EngineOptions
from ff_cloud.vms.host import firewall
from ff_cloud.vms.host.egress import Allowed, Chains, Egress
from ff_cloud.vms.host.errors import EgressUnavailable
from ff_core.ids import VmId
from ff_core.world import SystemWorld

pytestmark = [pytest.mark.docker, pytest.mark.skipif(os.geteuid() != 0, reason="needs root")]

LIMITS = Limits(memory_bytes=128 * 1024 * 1024, cpus=0.5, pids=64)
KNOCK = "import socket, sys; s = socket.socket(); s.settimeout(3); print(s.connect_ex((sys.argv[1], int(sys.argv[2]))))"
REACHED, REFUSED = 0, 111


@dataclass(frozen=True)
class Ports:
    """Where this machine listens, on the address that VMs know it by, and on that of another network."""

    gateway: int
    other: int
    allowed: int
    not_allowed: int


@dataclass(frozen=True)
class Scene:
    engine: DockerEngine
    network: VmNetwork
    elsewhere: VmNetwork
    ports: Ports
    image: str

    async def vm(self) -> tuple[VmSpec, Endpoint]:
        wanted = VmSpec(VmId(SystemWorld().new_id()), 1, 1, self.image, LIMITS, "0" * 64)
        end = await self.engine.ensure(wanted)
        async with asyncio.timeout(20):
            while await knock(end, "127.0.0.1", end.port) != REACHED:
                await asyncio.sleep(0.05)
        return wanted, end


@pytest.fixture(scope="module")
def image() -> Iterator[str]:
    with image_running(["python3", "-m", "http.server", "8430", "--directory", "/tmp"]) as tag:
        yield tag


@asynccontextmanager
async def listening(address: str) -> AsyncIterator[int]:
    """The port of a server that answers whoever comes."""
    server = await asyncio.start_server(lambda _reader, writer: writer.close(), address, 0)
    async with server:
        yield server.sockets[0].getsockname()[1]


@pytest.fixture(params=["direct", "docker"])
async def scene(request: pytest.FixtureRequest, image: str) -> AsyncIterator[Scene]:
    async with AsyncExitStack() as exits:
        network, elsewhere = [await exits.enter_async_context(vm_network()) for _ in range(2)]
        addresses = (network.gateway, "0.0.0.0", elsewhere.gateway, elsewhere.gateway)
        ports = Ports(*[await exits.enter_async_context(listening(address)) for address in addresses])
        options = EngineOptions(
            networking=request.param,
            egress="on",
            egress_allow=(Allowed.parse(f"{elsewhere.gateway}:{ports.allowed}"),),
            gateway_url=lambda: f"http://ff-host:{ports.gateway}",
        )
        engine = await exits.enter_async_context(docker_engine(network.deployment, options=options))
        yield Scene(engine, network, elsewhere, ports, image)


async def knock(end: Endpoint, address: str, port: int) -> int:
    """The error number that a connection from inside a VM ends with."""
    argv = ["docker", "exec", "--user", "dev", end.container_id, "python3", "-c", KNOCK, address, str(port)]
    done = await asyncio.to_thread(subprocess.run, argv, check=True, capture_output=True, text=True, timeout=30)
    return int(done.stdout)


def iptables(*argv: str) -> str:
    done = subprocess.run(["iptables", "--wait", "10", *argv], check=True, capture_output=True, text=True, timeout=30)
    return done.stdout


async def test_of_this_machine_a_vm_reaches_the_gateway_and_what_is_allowed(scene: Scene):
    (_, mine), (_, other) = await asyncio.gather(scene.vm(), scene.vm())
    ports, host = scene.ports, scene.network.gateway
    found = {
        "itself": await knock(mine, "127.0.0.1", 8430),
        "the gateway": await knock(mine, host, ports.gateway),
        "allowed": await knock(mine, scene.elsewhere.gateway, ports.allowed),
        "another port of the host": await knock(mine, host, ports.other),
        "the host by another address": await knock(mine, scene.elsewhere.gateway, ports.other),
        "another port of what is allowed": await knock(mine, scene.elsewhere.gateway, ports.not_allowed),
        "the Docker Engine's own network": await knock(mine, "172.17.0.1", ports.other),
        "metadata of a cloud": await knock(mine, "169.254.169.254", 80),
        "a private network": await knock(mine, "10.123.45.67", 22),
    }
    assert [name for name, error in found.items() if error == REACHED] == ["itself", "the gateway", "allowed"]
    assert set(found.values()) == {REACHED, REFUSED}, f"refusals are told at once: {found}"
    assert await knock(mine, other.address, 8430) != REACHED
    assert await knock(other, mine.address, 8430) != REACHED


async def test_containers_of_others_do_not_reach_a_vm(scene: Scene):
    _, end = await scene.vm()
    argv = ["docker", "run", "--rm", "--entrypoint", "python3", scene.image, "-c", KNOCK, end.address, "8430"]
    done = await asyncio.to_thread(subprocess.run, argv, check=True, capture_output=True, text=True, timeout=60)
    assert int(done.stdout) != REACHED
    _, writer = await asyncio.wait_for(asyncio.open_connection(end.address, end.port), 20)
    writer.close()


async def test_rules_that_somebody_took_away_come_back(scene: Scene):
    wanted, mine = await scene.vm()
    shown = iptables("-S", "INPUT")
    mark = Chains.of(scene.network.deployment, "x").permitted_host
    [jump] = [line for line in shown.splitlines() if line.endswith(mark)]
    chain = jump.rpartition(" ")[2]
    for harm in (["-D", *jump.split()[1:]], ["-F", chain], ["-I", chain, "1", "-j", "ACCEPT"]):
        iptables(*harm)
        await scene.engine.isolation(wanted.vm_id)
        assert await knock(mine, scene.network.gateway, scene.ports.other) == REFUSED
        iptables("-F", chain)
        await scene.engine.prepare(scene.image)
        assert await knock(mine, scene.network.gateway, scene.ports.gateway) == REACHED


async def test_a_gateway_that_moves_is_followed(scene: Scene):
    _, mine = await scene.vm()
    async with listening(scene.network.gateway) as moved:
        options = EngineOptions(egress="on", gateway_url=lambda: f"http://{scene.network.gateway}:{moved}")
        async with docker_engine(scene.network.deployment, options=options) as restarted:
            await restarted.prepare(scene.image)
        assert await knock(mine, scene.network.gateway, moved) == REACHED
        assert await knock(mine, scene.network.gateway, scene.ports.gateway) == REFUSED


async def test_deployments_on_one_network_permit_each_its_own_and_are_removed_one_by_one(scene: Scene):
    _, mine = await scene.vm()
    async with listening(scene.network.gateway) as second, vm_network() as unused:
        options = EngineOptions(network=scene.network.name, egress="on", gateway_url=lambda: f"http://ff-host:{second}")
        async with docker_engine(unused.deployment, options=options) as guest:
            await guest.prepare(scene.image)
            assert await knock(mine, scene.network.gateway, second) == REACHED
            assert await knock(mine, scene.network.gateway, scene.ports.gateway) == REACHED
            await guest.clear()
        assert await knock(mine, scene.network.gateway, second) == REFUSED
        assert await knock(mine, scene.network.gateway, scene.ports.gateway) == REACHED


async def test_nothing_is_left_of_the_rules_of_a_network_that_went(image: str):
    async with vm_network() as network, docker_engine(network.deployment, options=EngineOptions(egress="on")) as engine:
        await engine.prepare(image)
        mark = Chains.of(network.deployment, "x").permitted_out
        assert mark in iptables("-S")
    assert mark not in iptables("-S")


async def test_racing_processes_end_with_each_rule_once(scene: Scene):
    await scene.vm()
    bridge = next(
        line.split()[3]
        for line in iptables("-S", "INPUT").splitlines()
        if Chains.of(scene.network.deployment, "x").permitted_host in line
    )
    subnet = IPv4Network(f"{scene.network.gateway}/16", strict=False)
    variants = [Egress(scene.network.deployment, bridge, subnet, (IPv4Address(f"10.9.9.{n}"),)) for n in range(4)]
    await asyncio.gather(*(firewall.apply(variant) for variant in variants), return_exceptions=True)
    await scene.engine.prepare(scene.image)
    jumps = [line for line in iptables("-S").splitlines() if f" {bridge} -j FF-" in line]
    assert len(jumps) == len(set(jumps)) == 5


async def test_where_there_can_be_no_rules_none_is_started_if_they_are_a_condition(image: str):
    async with (
        vm_network() as network,
        docker_engine(network.deployment, options=EngineOptions(network="host", egress="on")) as engine,
    ):
        wanted = VmSpec(VmId(SystemWorld().new_id()), 1, 1, image, LIMITS, "0" * 64)
        with pytest.raises(EgressUnavailable, match="FF_VM_EGRESS=auto"):
            await engine.ensure(wanted)
        assert await engine.observe_all() == []
