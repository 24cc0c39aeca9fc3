"""``ff-cloud vms`` as an operator types it, beside a real database; and what ``gc`` would do, on the fake engine."""

import asyncio
import json
import os
import subprocess
import sys
from datetime import timedelta
from pathlib import Path
from uuid import UUID

import pytest
import typer
from sqlalchemy import text

from ff_cloud.cli.vms import Beside, collect_garbage, drain, find_vm, set_draining, show_all, show_one
from ff_cloud.settings import CloudSettings
from ff_cloud.testing.engine import FakeEngine
from ff_cloud.testing.tenants import MARK, add_user, furnish
from ff_cloud.testing.vm_network import vm_network
from ff_cloud.vms import fleet_repository as fleet
from ff_cloud.vms import gc, service
from ff_cloud.vms.engine.base import ImageSeen, Limits, Observed, VmSpec
from ff_cloud.vms.engine.docker import docker_engine
from ff_cloud.vms.engine.hardening import name_of
from ff_cloud.vms.errors import DockerUnreachable
from ff_cloud.vms.repository import SystemVmRepository
from ff_cloud.workspaces.orders import Orders
from ff_core.errors import InvalidInput, NotFound
from ff_core.ids import UserId, VmId
from ff_core.testing.world import FakeWorld
from ff_core.world import SystemWorld

ANN = UserId(UUID(int=0xA))
WORLD = SystemWorld()
LIMITS = Limits(1, 1.0, 1)
NOWHERE = "unix:///nonexistent/docker.sock"
COMMAND = str(Path(sys.executable).with_name("ff-cloud"))


@pytest.fixture
async def estate(db):
    """Ann's running VM, its workspace, and nothing under way."""
    async with db.system_transaction() as tx:
        await add_user(tx, ANN, "ann")
    made = await furnish(db, ANN)
    async with db.system_transaction() as tx:
        await tx.execute(text("delete from operations"))
        await SystemVmRepository(tx).insert_warm(VmId(WORLD.new_id()), image="ff-workspace:1", runtime=None, deadline_s=60)
    return made


@pytest.fixture
def beside(db, tmp_path):
    """What the commands work with, on the fake engine."""
    engine = FakeEngine("ff-workspace:1", "ff-workspace:old", MARK)
    return Beside(CloudSettings(vm_image="ff-workspace:1", data_dir=tmp_path), db, engine, WORLD)


def environment(db, tmp_path, **more):
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("FF_", "NO_COLOR"))}
    settings = {"FF_DATABASE_URL": db.url.render_as_string(hide_password=False), "FF_DATA_DIR": str(tmp_path)}
    return kept | settings | {"FF_DOCKER_HOST": NOWHERE, "FF_VM_IMAGE": "ff-workspace:1"} | more


async def ff_cloud(db, tmp_path, *words, **more):
    """Exit code, standard output, standard error."""
    process = await asyncio.create_subprocess_exec(
        COMMAND,
        "vms",
        *words,
        env=environment(db, tmp_path, **more),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    async with asyncio.timeout(60):
        out, err = await process.communicate()
    return process.returncode, out.decode(), err.decode()


async def on_a_terminal(db, tmp_path, *words, **more):
    """What the command writes to a terminal."""
    ours, theirs = os.openpty()
    process = await asyncio.create_subprocess_exec(
        COMMAND, "vms", *words, env=environment(db, tmp_path, **more), stdout=theirs, stderr=subprocess.DEVNULL
    )
    os.close(theirs)
    async with asyncio.timeout(60):
        await process.wait()
    written = os.read(ours, 65_536).decode()
    os.close(ours)
    return written


async def test_the_command_with_docker_away(db, tmp_path, estate):
    code, out, err = await ff_cloud(db, tmp_path, "ls")
    assert code == 0
    head, mine, warm = out.splitlines()
    assert head.split() == ["VM", "STATUS", "CONTAINER", "WORKSPACE", "IMAGE", "AGE", "IDLE"]
    assert mine.split()[:4] == [str(estate.vm_id), "RUNNING", "?", str(estate.workspace_id)]
    assert warm.split()[1:4] == ["CREATING", "?", "-"]
    assert "\x1b" not in out
    assert "docker: " in err
    code, out, err = await ff_cloud(db, tmp_path, "inspect", "ffffffff")
    assert (code, out) == (1, "")
    assert err.splitlines()[-1] == "error: There is no such VM; `ff-cloud vms ls` lists them. (not_found)"


async def test_colours_are_for_terminals_that_want_them(db, tmp_path, estate):
    assert "\x1b[32mRUNNING" in await on_a_terminal(db, tmp_path, "ls")
    plain = await on_a_terminal(db, tmp_path, "ls", NO_COLOR="1")
    assert "RUNNING" in plain
    assert "\x1b" not in plain


async def test_drain_refuses_what_contradicts_itself():
    with pytest.raises(InvalidInput):
        drain(off=True, now=True)


async def test_ls_as_json(beside, estate, capsys):
    await show_all(beside, as_json=True)
    (line,) = capsys.readouterr().out.splitlines()
    found = {vm["id"]: vm for vm in json.loads(line)}
    mine = found[str(estate.vm_id)]
    assert len(found) == 2
    assert (mine["status"], mine["user_id"], mine["image"], mine["container"]) == ("RUNNING", str(ANN), MARK, None)


async def test_ls_tells_of_what_has_no_row(beside, estate, capsys):
    for vm_id in (estate.vm_id, VmId(WORLD.new_id())):
        await beside.engine.ensure(VmSpec(vm_id, 1, 1, "ff-workspace:1", LIMITS, "x"))
    await show_all(beside, as_json=False)
    told = capsys.readouterr()
    assert told.out.splitlines()[1].split()[:3] == [str(estate.vm_id), "RUNNING", "running"]
    assert told.err == "1 more on the Docker Engine without a row; `ff-cloud vms gc` removes them.\n"


async def test_inspect_shows_both_sides_and_what_works_on_it(beside, db, estate, capsys):
    await beside.engine.ensure(VmSpec(estate.vm_id, 1, 7, "ff-workspace:1", LIMITS, "x"))
    async with db.system_transaction() as tx:
        await Orders(db=db, world=WORLD).suspend(tx, estate.workspace_id, ANN)
    await show_one(beside, str(estate.workspace_id), as_json=True)
    found = json.loads(capsys.readouterr().out)
    assert (found["id"], found["status"], found["container"], found["fence"]) == (str(estate.vm_id), "RUNNING", "running", 7)
    assert found["operation"].startswith("suspend")
    await show_one(beside, str(estate.vm_id), as_json=False)
    assert ["status", "RUNNING"] in [line.split() for line in capsys.readouterr().out.splitlines()]
    beside.engine.misbehave("observe", DockerUnreachable())
    with pytest.raises(DockerUnreachable):
        await show_one(beside, str(estate.vm_id), as_json=False)


async def test_drain_and_its_end(beside, db, estate, capsys):
    await set_draining(beside, True, now=False, timeout_s=1, as_json=False)
    assert capsys.readouterr().out == "Nothing new is made any more. Running VMs: 1.\n"
    async with db.system_transaction() as tx:
        assert await fleet.draining(tx)
    await set_draining(beside, False, now=False, timeout_s=1, as_json=True)
    assert json.loads(capsys.readouterr().out) == {"draining": False, "running": 1}
    async with db.system_transaction() as tx:
        assert not await fleet.draining(tx)


async def test_drain_now_orders_suspensions_and_says_when_nobody_carries_them_out(beside, db, estate, capsys):
    with pytest.raises(typer.Exit) as ended:
        await set_draining(beside, True, now=True, timeout_s=0.2, as_json=True)
    assert ended.value.exit_code == 1
    told = capsys.readouterr()
    assert json.loads(told.out) == {"draining": True, "running": 1}
    assert "whether one runs" in told.err
    async with db.system_transaction() as tx:
        orders = (await tx.execute(text("select kind, key, input ->> 'force' from operations"))).all()
    assert [tuple(row) for row in orders] == [("suspend", str(estate.workspace_id), "true")]


async def test_drain_now_ends_when_nothing_runs_any_more(beside, db, estate, capsys):
    async def worker():
        """Does what the operation would."""
        while True:
            async with db.system_transaction() as tx:
                if await tx.scalar(text("select count(*) from operations where kind = 'suspend'")):
                    await tx.execute(text("update vms set status = 'SUSPENDED' where status = 'RUNNING'"))
            await asyncio.sleep(0.02)

    working = asyncio.create_task(worker())
    await set_draining(beside, True, now=True, timeout_s=30, as_json=False)
    working.cancel()
    told = capsys.readouterr()
    assert (told.out, told.err) == ("Nothing new is made any more. Running VMs: 0.\n", "1 running\n")


async def test_gc_says_what_it_would_do_and_does_it(beside, estate, capsys):
    orphan = VmId(WORLD.new_id())
    await beside.engine.ensure(VmSpec(orphan, 1, 1, "ff-workspace:1", LIMITS, "x"))
    await collect_garbage(beside, timedelta(0), dry_run=True, as_json=True)
    would = json.loads(capsys.readouterr().out)
    assert (would["dry_run"], would["vms"], would["images"]) == (True, [str(orphan)], ["ff-workspace:old"])
    assert [seen.vm_id for seen in await beside.engine.observe_all()] == [orphan]
    await collect_garbage(beside, timedelta(0), dry_run=False, as_json=False)
    assert capsys.readouterr().out.splitlines() == [
        f"removed VM {orphan}, which has no row",
        "removed image ff-workspace:old",
        "removed: 1 VMs, 1 images, 800 MB of layers",
    ]
    assert await beside.engine.observe_all() == []


@pytest.mark.docker
async def test_gc_on_a_real_engine(db, tmp_path, estate, capsys):
    orphan = VmId(WORLD.new_id())

    async def docker(*argv):
        process = await asyncio.create_subprocess_exec("docker", *argv, stdout=subprocess.PIPE)
        out, _ = await process.communicate()
        assert process.returncode == 0
        return out.decode().split()

    async with vm_network() as network, docker_engine(network.deployment) as engine:
        volume = name_of(network.deployment, orphan)
        labels = [f"--label=ff.deployment={network.deployment}", f"--label=ff.vm={orphan}"]
        await docker("volume", "create", *labels, volume)
        beside = Beside(CloudSettings(vm_image="ff-workspace:1", data_dir=tmp_path), db, engine, WORLD)
        await show_one(beside, str(orphan)[:30], as_json=True)
        found = json.loads(capsys.readouterr().out)
        assert (found["id"], found["status"], found["volume"], found["container"]) == (str(orphan), None, True, None)
        # All images stay: those of others on this engine are none of a test's business.
        keep = timedelta(days=3650)
        await collect_garbage(beside, keep, dry_run=True, as_json=True)
        would = json.loads(capsys.readouterr().out)
        assert (would["vms"], would["images"]) == ([str(orphan)], [])
        assert await docker("volume", "ls", "-q", "-f", f"name={volume}") == [volume]
        await collect_garbage(beside, keep, dry_run=False, as_json=True)
        assert await docker("volume", "ls", "-q", "-f", f"name={volume}") == []


async def test_what_is_garbage_and_what_is_left_alone(db, estate):
    world = FakeWorld()
    engine = FakeEngine("ff-workspace:1", "ff-workspace:old", "ff-workspace:other", MARK)
    orphan, other = VmId(WORLD.new_id()), VmId(WORLD.new_id())
    for vm_id in (orphan, estate.vm_id):
        await engine.ensure(VmSpec(vm_id, 1, 1, "ff-workspace:1", LIMITS, "x"))
    found = await gc.find(db=db, engine=engine, present=["ff-workspace:1"], keep=timedelta(0), world=SystemWorld())
    assert [seen.vm_id for seen in found.orphans] == [orphan]
    assert [gc.name_of(image) for image in found.images] == ["ff-workspace:old", "ff-workspace:other"]
    young = await gc.find(db=db, engine=engine, present=["ff-workspace:1"], keep=timedelta(days=36_500), world=world)
    assert young.images == ()
    # Between look and removal somebody makes a container of one.
    await engine.ensure(VmSpec(other, 1, 1, "ff-workspace:other", LIMITS, "x"))
    done = await gc.collect(found, engine)
    assert (done.orphans, done.images, done.images_kept) == ((orphan,), ("ff-workspace:old",), ("ff-workspace:other",))
    assert done.bytes_freed == 800_000_000
    assert {seen.vm_id for seen in await engine.observe_all()} == {estate.vm_id, other}
    assert (await gc.collect(found, engine)).orphans == (orphan,)


def test_an_image_is_known_by_any_of_its_names():
    made_at = FakeWorld().now()
    image = ImageSeen("sha256:1", ("ff-workspace:a", "ff-workspace:latest"), made_at, 1)
    later = made_at + timedelta(seconds=1)
    assert gc.unused([image], {"ff-workspace:latest"}, made_before=later) == ()
    assert gc.unused([image], {"sha256:1"}, made_before=later) == ()
    assert gc.unused([image], {"ff-workspace:b"}, made_before=later) == (image,)
    assert gc.unused([image], set(), made_before=made_at) == ()


async def test_a_vm_is_found_by_the_beginning_of_its_id_or_its_workspaces(db, estate):
    async with db.system_transaction() as tx:
        vms = await service.list_vms(tx)
    lost = VmId(UUID(int=0xF << 124))
    seen = {lost: Observed(lost, None, volume=True)}
    assert find_vm(vms, seen, str(estate.vm_id).upper()) == estate.vm_id
    assert find_vm(vms, seen, str(estate.workspace_id)[:36]) == estate.vm_id
    assert find_vm(vms, seen, "f0") == lost
    for nothing in ("", "zz"):
        with pytest.raises(NotFound):
            find_vm(vms, seen, nothing)
    with pytest.raises(InvalidInput, match="2 VMs begin with '0'"):
        find_vm(vms, {}, "0")
