"""Plans: what is refused, how that is told, and that no two requests share the last place."""

import asyncio

import httpx2
import pytest
from sqlalchemy import text

from ff_cloud.kit.crypto import Sealer
from ff_cloud.kit.secrets import Secrets
from ff_cloud.testing.accounts import MASTER, accounts_app
from ff_cloud.users import plans
from ff_cloud.users import service as users
from ff_cloud.users.errors import PlanLimitReached
from ff_cloud.vms.engine.base import Limits
from ff_cloud.vms.repository import SystemVmRepository
from ff_cloud.vms.specs import Specs
from ff_cloud.workspaces.endpoints import router as workspaces_router
from ff_cloud.workspaces.limits_endpoints import router
from ff_cloud.workspaces.service import Rules, WorkspaceService
from ff_core.contract.workspace import NewWorkspace
from ff_core.ids import UserId
from ff_core.testing.world import FakeWorld

PASSWORD = "tangerine lamp over the river"
GIB = 1 << 30


@pytest.fixture
def world():
    return FakeWorld()


@pytest.fixture
def workspaces(world):
    rules = Rules(allow_plain_http=False, provision_deadline_s=900, terminate_deadline_s=300, image="i")
    return WorkspaceService(rules=rules, sealer=Sealer(Secrets(MASTER).sealing_key), world=world)


@pytest.fixture
async def user_id(db, world):
    async with db.system_transaction() as tx:
        await users.open_account(tx, user_id=UserId(world.new_id()), email="root@example.com", name=None, now=world.now())
        made = UserId(world.new_id())
        await users.open_account(tx, user_id=made, email="alice@example.com", name=None, now=world.now())
    return made


async def set_plan(db, **values):
    assignments = ", ".join(f"{name} = {value}" for name, value in values.items())
    async with db.system_transaction() as tx:
        await tx.execute(text(f"update plans set {assignments} where name = 'free'"))


class Unneeded:
    """Nothing is warm here, so nothing is to be bound."""

    async def settle(self, _user_id, found):
        return found.vm


async def order(db, workspaces, user_id, name):
    async with db.transaction(user_id) as tx:
        return await workspaces.order(tx, NewWorkspace(name=name))


async def test_of_many_orders_at_once_as_many_succeed_as_the_plan_allows(db, workspaces, user_id):
    await set_plan(db, workspaces_max=3, running_vms_max=10)
    orders = (order(db, workspaces, user_id, f"w{n}") for n in range(10))
    answers = await asyncio.gather(*orders, return_exceptions=True)
    refused = [answer for answer in answers if isinstance(answer, PlanLimitReached)]
    assert len(refused) == 7
    assert refused[0].extra == {"limit": "workspaces", "used": 3, "max": 3, "plan": "free"}


async def test_a_refusal_says_which_limit_how_much_is_used_and_what_frees_it(db, world, workspaces, user_id):
    await set_plan(db, running_vms_max=1)
    app = accounts_app(db, world, routers=(workspaces_router, router))
    app.state.workspaces = workspaces
    app.state.claims = Unneeded()
    async with httpx2.AsyncClient(transport=httpx2.ASGITransport(app), base_url="http://cloud") as http:
        made = await http.post("/v1/auth/signup", json={"email": "bob@example.com", "password": PASSWORD})
        headers = {"Authorization": f"Bearer {made.json()['access_token']}"}
        assert (await http.post("/v1/workspaces", json={"name": "one"}, headers=headers)).status_code == 201
        refused = await http.post("/v1/workspaces", json={"name": "two"}, headers=headers)
        told = refused.json()
        assert (refused.status_code, told["code"]) == (409, "limit_reached")
        assert (told["limit"], told["used"], told["max"], told["plan"]) == ("running_vms", 1, 1, "free")
        assert told["detail"] == (
            "Your plan `free` allows 1 running VMs and you have 1; delete a workspace with `ff rm NAME` first, "
            "or ask whoever runs this server for another plan."
        )
        limits = (await http.get("/v1/me/limits", headers=headers)).json()
        assert limits == {
            "plan": "free",
            "workspaces": {"used": 1, "max": 10},
            "running_vms": {"used": 1, "max": 1},
            "vm_cpus": 2.0,
            "vm_memory_bytes": 4 * GIB,
            "vm_disk_bytes": 20 * GIB,
        }


async def test_a_stopped_vm_and_a_strangers_one_do_not_count(db, workspaces, user_id, world):
    await set_plan(db, running_vms_max=1)
    async with db.system_transaction() as tx:
        stranger = UserId(world.new_id())
        await users.open_account(tx, user_id=stranger, email="bob@example.com", name=None, now=world.now())
    await order(db, workspaces, stranger, "theirs")
    await order(db, workspaces, user_id, "one")
    async with db.system_transaction() as tx:
        await tx.execute(text("update vms set status = 'SUSPENDED' where user_id = :id"), {"id": user_id})
    await order(db, workspaces, user_id, "two")
    with pytest.raises(PlanLimitReached):
        await order(db, workspaces, user_id, "three")


async def test_a_vm_gets_what_its_owners_plan_gives_and_no_more_than_the_server_allows(db, workspaces, user_id):
    made = await order(db, workspaces, user_id, "one")
    specs = Specs(image="i", limits=Limits(8 * GIB, 4.0, 100), secret=b"k" * 32)
    small = Specs(image="i", limits=Limits(1 * GIB, 0.5, 100), secret=b"k" * 32)
    async with db.system_transaction() as tx:
        vm = await SystemVmRepository(tx).of_workspace(made.workspace.id)
        free = await plans.of(tx, user_id)
        await users.set_plan(tx, user_id, "team")
        team = await plans.of(tx, user_id)
    assert specs.limits_of(free) == Limits(4 * GIB, 2.0, 100, 20 * GIB)
    assert specs.limits_of(team) == Limits(8 * GIB, 4.0, 100, 100 * GIB)
    assert small.limits_of(team) == Limits(1 * GIB, 0.5, 100, 100 * GIB)
    assert specs.warm_limits([team, free]) == specs.limits_of(free), "before it belongs to anybody: what every plan gives"
    assert specs.of(vm, specs.limits_of(free), fence=1).limits == specs.limits_of(free)


async def test_a_user_reads_plans_and_writes_none(db, user_id):
    async with db.transaction(user_id) as tx:
        assert (await plans.of(tx, user_id)).name == "free"
    for statement in ("update plans set workspaces_max = 999", "update users set plan = 'team'", "select * from outbox"):
        with pytest.raises(Exception, match="permission denied"):
            async with db.transaction(user_id) as tx:
                await tx.execute(text(statement))
