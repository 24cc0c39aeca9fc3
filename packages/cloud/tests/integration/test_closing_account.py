"""Deleting an account removes everything, whatever was going on."""

import asyncio
from contextlib import asynccontextmanager

import httpx2
import pytest
from sqlalchemy import text

from ff_cloud.closing.endpoints import router as closing_router
from ff_cloud.closing.service import CLOSE_ACCOUNT, Closing
from ff_cloud.closing.steps import kinds as closing_kinds
from ff_cloud.kit.crypto import Sealer
from ff_cloud.kit.secrets import Secrets
from ff_cloud.mail.service import Post
from ff_cloud.operations.engine import Operations
from ff_cloud.operations.machine import Limits as OperationLimits
from ff_cloud.testing.accounts import MASTER, accounts_app
from ff_cloud.testing.engine import FakeEngine
from ff_cloud.testing.fleet import make_room, nothing_outside
from ff_cloud.testing.mail import Mailbox
from ff_cloud.vms.engine.base import Limits
from ff_cloud.vms.specs import Specs
from ff_cloud.workspaces.operations import kinds as workspace_kinds
from ff_cloud.workspaces.service import Rules, WorkspaceService
from ff_cloud.workspaces.settle import Settler
from ff_core.contract.workspace import NewWorkspace
from ff_core.ids import UserId, VmId
from ff_core.world import SystemWorld

PASSWORD = "tangerine lamp over the river"
IMAGE = "workspace:test"
QUICK = OperationLimits(lease_s=2.0, renew_s=0.5, poll_s=0.05, backoff_s=0.05, backoff_max_s=0.2, cancel_grace_s=1.0)


class NoDaemons:
    """Daemons that never come up: whatever waits for one waits until it is cancelled."""

    def client(self, _vm):
        return self

    async def wait_healthy(self, timeout_s):
        await asyncio.sleep(timeout_s)


class Dies(BaseException):
    """A worker that dies."""


class House:
    """An app with accounts and workspaces over one database, and workers for it."""

    def __init__(self, db):
        self.db, self.world, self.engine = db, SystemWorld(), FakeEngine(IMAGE)
        self.sealer = Sealer(Secrets(MASTER).sealing_key)
        rules = Rules(allow_plain_http=False, provision_deadline_s=900, terminate_deadline_s=300, image=IMAGE)
        self.workspaces = WorkspaceService(rules=rules, sealer=self.sealer, world=self.world)
        self.app = accounts_app(db, self.world, routers=(closing_router,))
        post = Post(self.sealer, self.world)
        self.app.state.closing = Closing(db=db, recovery=self.app.state.recovery, post=post, world=self.world)
        self.mailbox = Mailbox(db, self.world, MASTER)

    def worker(self, crash=lambda _place: None):
        settler = Settler(world=self.world, terminate_deadline_s=300)
        specs = Specs(image=IMAGE, limits=Limits(1 << 30, 1.0, 100), secret=b"k" * 32)
        kinds = workspace_kinds(
            db=self.db,
            engine=self.engine,
            daemons=NoDaemons(),
            specs=specs,
            sealer=self.sealer,
            settler=settler,
            outside=nothing_outside(),
            world=self.world,
        )
        kinds += closing_kinds(db=self.db, workspaces=self.workspaces, world=self.world)
        return Operations(self.db, kinds, self.world, limits=QUICK, crash=crash)

    @asynccontextmanager
    async def working(self, crash=lambda _place: None):
        await make_room(self.db)
        task = asyncio.create_task(self.worker(crash).work(4))
        try:
            yield
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    def http(self):
        return httpx2.AsyncClient(transport=httpx2.ASGITransport(self.app, client=("192.0.2.1", 4000)), base_url="http://cloud")

    async def sign_up(self, http, email="alice@example.com"):
        answer = await http.post("/v1/auth/signup", json={"email": email, "password": PASSWORD})
        assert answer.status_code == 201, answer.text
        headers = {"Authorization": f"Bearer {answer.json()['access_token']}"}
        return headers, UserId((await http.get("/v1/me", headers=headers)).json()["id"])

    async def order(self, user_id, name):
        async with self.db.transaction(user_id) as tx:
            return (await self.workspaces.order(tx, NewWorkspace(name=name))).workspace.id

    async def ready(self, workspace_id):
        """As if it had been provisioned."""
        async with self.db.system_transaction() as tx:
            await tx.execute(
                text("update operations set status = 'done', finished_at = now() where key = :key"), {"key": str(workspace_id)}
            )
            vm = await tx.scalar(
                text("update vms set status = 'RUNNING' where workspace_id = :id returning id"), {"id": workspace_id}
            )
            await tx.execute(text("update workspaces set status = 'READY' where id = :id"), {"id": workspace_id})
        self.engine._vms.setdefault(VmId(vm), type("Vm", (), {"container": None, "limits": None})())

    async def rows_of(self, user_id):
        """How many rows of each table name this user; those without any are left out."""
        found = {}
        async with self.db.system_transaction() as tx:
            tables = await tx.execute(
                text(
                    "select c.relname from pg_class c join pg_namespace n on n.oid = c.relnamespace "
                    "where c.relkind in ('r', 'p') and n.nspname = 'public' and c.relname <> 'alembic_version' order by 1"
                )
            )
            for table in tables.scalars():
                query = f'select count(*) from "{table}" t where to_jsonb(t)::text like :needle'
                count = await tx.scalar(text(query), {"needle": f"%{user_id}%"})
                if count:
                    found[table] = count
        return found

    async def gone(self, user_id):
        async with asyncio.timeout(30):
            while await self.rows_of(user_id) != {"operations": 1}:
                await asyncio.sleep(0.05)


@pytest.fixture
def house(db):
    return House(db)


async def delete_me(http, headers, **body):
    return await http.request("DELETE", "/v1/me", json=body, headers=headers)


async def test_deleting_an_account_leaves_no_row_container_or_volume_and_frees_the_email(house):
    async with house.http() as http:
        await house.sign_up(http, "root@example.com")
        bob, bob_id = await house.sign_up(http, "bob@example.com")
        headers, user_id = await house.sign_up(http)
        key = (await http.post("/v1/api-keys", json={"name": "k"}, headers=headers)).json()["key"]
        await house.ready(await house.order(user_id, "ready"))
        await house.order(user_id, "new")
        kept = await house.order(bob_id, "kept")
        async with house.working():
            async with asyncio.timeout(20):
                while "ensure" not in house.engine.calls:
                    await asyncio.sleep(0.02)
            before = await house.rows_of(user_id)
            assert {"users", "workspaces", "vms", "operations", "auth_sessions", "api_keys", "audit_log", "outbox"} <= set(before)
            answer = await delete_me(http, headers, current_password=PASSWORD)
            assert answer.status_code == 202, answer.text
            for credential in (headers, {"Authorization": f"Bearer {key}"}):
                assert (await http.get("/v1/me", headers=credential)).status_code == 401
            await house.gone(user_id)
        assert (await http.get("/v1/me", headers=bob)).status_code == 200
        async with house.db.transaction(bob_id) as tx:
            assert (await house.workspaces.get(tx, kept)).name == "kept"
        async with house.db.system_transaction() as tx:
            known = set((await tx.execute(text("select id from vms"))).scalars())
            closing = (
                (await tx.execute(text("select * from operations where kind = :kind"), {"kind": CLOSE_ACCOUNT})).mappings().one()
            )
        assert {observed.vm_id for observed in await house.engine.observe_all()} <= known
        assert (closing["user_id"], closing["input"], closing["state"]) == (None, {}, {})
        assert [letter.subject for letter in await house.mailbox.collect() if letter.to == "alice@example.com"] == [
            "Your account is being deleted"
        ]
        await house.sign_up(http)


@pytest.mark.parametrize(
    "place",
    [
        "close_account:workspaces:do:before",
        "close_account:workspaces:do:before_commit",
        "close_account:account:do:before_commit",
        "close_account:account:do:after_commit",
        "close_account:settle:before_commit",
    ],
)
async def test_a_worker_that_dies_on_the_way_is_made_up_for(house, place):
    died = asyncio.Event()

    def crash(where):
        if where == place and not died.is_set():
            died.set()
            raise asyncio.CancelledError

    async with house.http() as http:
        await house.sign_up(http, "root@example.com")
        headers, user_id = await house.sign_up(http)
        await house.ready(await house.order(user_id, "ready"))
        async with house.working(crash):
            assert (await delete_me(http, headers, current_password=PASSWORD)).status_code == 202
            await asyncio.wait_for(died.wait(), 20)
            await house.gone(user_id)
    assert await house.engine.observe_all() == []


async def test_a_workspace_that_was_ordered_meanwhile_goes_too(house):
    async with house.http() as http:
        await house.sign_up(http, "root@example.com")
        headers, user_id = await house.sign_up(http)
        made = asyncio.Event()
        loop = asyncio.get_running_loop()
        late = []

        def crash(where):
            # Between the first step and the second a request that began earlier comes through.
            if where == "close_account:workspaces:do:after_commit" and not made.is_set():
                made.set()
                late.append(loop.create_task(house.order(user_id, "late")))

        async with house.working(crash):
            assert (await delete_me(http, headers, current_password=PASSWORD)).status_code == 202
            await asyncio.wait_for(made.wait(), 20)
            await asyncio.gather(*late, return_exceptions=True)
            await house.gone(user_id)


async def test_it_takes_the_password_and_a_login(house):
    async with house.http() as http:
        headers, _ = await house.sign_up(http)
        key = (await http.post("/v1/api-keys", json={"name": "k"}, headers=headers)).json()["key"]
        for body in ({}, {"current_password": "wrong " * 5}):
            answer = await delete_me(http, headers, **body)
            assert (answer.status_code, answer.json()["code"]) == (403, "password_wrong")
        answer = await delete_me(http, {"Authorization": f"Bearer {key}"}, current_password=PASSWORD)
        assert (answer.status_code, answer.json()["code"]) == (403, "login_required")
        assert (await http.get("/v1/me", headers=headers)).status_code == 200


async def test_an_account_without_a_password_is_closed_by_its_login(house):
    async with house.http() as http:
        headers, user_id = await house.sign_up(http)
        async with house.db.system_transaction() as tx:
            await tx.execute(text("delete from auth_passwords"))
        assert (await delete_me(http, headers)).status_code == 202
        async with house.working():
            await house.gone(user_id)


async def test_the_only_administrator_can_not_leave_the_others_alone(house):
    async with house.http() as http:
        headers, _ = await house.sign_up(http)
        await house.sign_up(http, "bob@example.com")
        answer = await delete_me(http, headers, current_password=PASSWORD)
        assert (answer.status_code, answer.json()["code"]) == (409, "last_administrator")
        assert (await http.get("/v1/me", headers=headers)).status_code == 200
