"""The warm pool with real containers: a claim is answered by a running VM, and a dead VM is given to nobody."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack

import pytest
import pytest_asyncio
from api_user import User
from stack import Stack, beside, docker, scratch

from ff_cloud.testing.server import Running, running_server

pytestmark = [pytest.mark.docker, pytest.mark.asyncio(loop_scope="session")]

LIMIT_S = 90.0


@pytest.fixture(scope="module")
def pooled(stack: Stack) -> Iterator[tuple[Running, str]]:
    """A server of its own with two warm VMs, and the name of its deployment."""
    with ExitStack() as exits:
        settings = exits.enter_context(beside(stack, "p"))
        more = {"FF_POOL_SIZE": "2", "FF_HEALTH_INTERVAL_S": "30"}
        server = exits.enter_context(running_server(exits.enter_context(scratch()), settings | more))
        yield server, settings["FF_DEPLOYMENT"]


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def admin(pooled: tuple[Running, str]) -> AsyncIterator[User]:
    """Who signs up first is the administrator."""
    async with User.sign_up(pooled[0].url) as user:
        yield user


async def pool(admin: User) -> dict:
    return await admin.call("GET", "/v1/admin/pool")


async def filled(admin: User, size: int = 2) -> None:
    async with asyncio.timeout(LIMIT_S):
        while (await pool(admin))["warm"] < size:
            await asyncio.sleep(0.1)


async def test_a_claim_is_answered_by_a_vm_that_runs_commands_at_once(admin: User) -> None:
    await filled(admin)
    before = await pool(admin)
    workspace = await admin.order()
    assert workspace.vm.status == "RUNNING"
    assert (await admin.run(workspace.id, "sh", "-c", "echo $HOME; id -un")).stdout == b"/workspace/home\ndev\n"
    found = await admin.settled(workspace.id)
    assert found.status == "READY", found
    assert await admin.shell(workspace.id, "git rev-parse --is-inside-work-tree; pwd") == "true\n/workspace/repo\n"
    async with asyncio.timeout(LIMIT_S):
        while (after := await pool(admin))["hits"] == before["hits"]:
            await asyncio.sleep(0.1)
    assert (after["hits"], after["misses"]) == (before["hits"] + 1, before["misses"])
    await admin.delete(workspace.id)


async def test_a_vm_that_died_while_it_was_warm_is_given_to_nobody(admin: User, pooled: tuple[Running, str]) -> None:
    await filled(admin)
    docker("kill", *docker("ps", "-q", "--filter", f"label=ff.deployment={pooled[1]}"))
    workspace = await admin.order()  # at once: nobody has had time to notice
    assert (await admin.run(workspace.id, "echo", "alive")).stdout == b"alive\n"
    assert (await admin.settled(workspace.id)).status == "READY"
    await admin.delete(workspace.id)
    await filled(admin)


async def test_more_claims_than_warm_vms_all_become_ready_each_with_a_vm_of_its_own(admin: User) -> None:
    await filled(admin)
    orders = await asyncio.gather(*(admin.order() for _ in range(4)))
    ran = await asyncio.gather(*(admin.run(order.id, "cat", "/proc/sys/kernel/random/boot_id") for order in orders))
    assert {each.exit_code for each in ran} == {0}
    settled = await asyncio.gather(*(admin.settled(order.id) for order in orders))
    assert {each.status for each in settled} == {"READY"}
    assert len({each.vm.id for each in settled}) == 4
    for order in orders:
        await admin.delete(order.id)


async def test_a_restarted_server_keeps_its_pool_and_removes_what_nobody_knows(admin: User, pooled: tuple[Running, str]) -> None:
    await filled(admin)
    shown = await pool(admin)
    assert (shown["target"], shown["warm"], shown["draining"], shown["waiting"]) == (2, 2, False, 0)
    assert shown["oldest_age_s"] > 0
