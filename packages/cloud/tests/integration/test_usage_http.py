"""What was used, over HTTP, on a real PostgreSQL; and the recorder while the database is away."""

import httpx2
import pytest
from sqlalchemy import text

from ff_cloud.gateway.door import Owner
from ff_cloud.gateway.endpoints import router
from ff_cloud.gateway.metering import Spent
from ff_cloud.gateway.recorder import WAITING_MAX, Recorder
from ff_cloud.kit.db import Database
from ff_cloud.testing.accounts import accounts_app
from ff_core.ids import UserId, VmId, WorkspaceId
from ff_core.testing.world import FakeWorld

PASSWORD = "tangerine lamp over the river"
HAIKU, UNKNOWN = "claude-haiku-4-5", "claude-of-tomorrow"


@pytest.fixture
def world():
    return FakeWorld()


@pytest.fixture
async def http(db, world):
    app = accounts_app(db, world, routers=(router,))
    async with httpx2.AsyncClient(transport=httpx2.ASGITransport(app), base_url="http://cloud") as client:
        yield client


@pytest.fixture
def sign_up(http):
    async def sign(name):
        answer = await http.post("/v1/auth/signup", json={"email": f"{name}@example.com", "password": PASSWORD})
        headers = {"Authorization": f"Bearer {answer.json()['access_token']}"}

        async def ask(**params):
            return await http.get("/v1/me/usage", params=params, headers=headers)

        me = (await http.get("/v1/me", headers=headers)).json()["id"]
        return Owner(UserId(me), WorkspaceId(FakeWorld().new_id()), VmId(FakeWorld().new_id())), ask

    return sign


def spent(model=HAIKU, output=10):
    return Spent(model, 1, output, 2, 3)


async def test_days_workspaces_and_models_are_summed_and_paged(db, sign_up):
    ann, ask = await sign_up("ann")
    days_go_by = FakeWorld()  # but her login stays fresh
    recorder = Recorder(db=db, world=days_go_by)
    async with recorder.recording():
        for _ in range(3):
            for model in (HAIKU, HAIKU, UNKNOWN):
                recorder.note(ann, spent(model), agent_session=None)
            days_go_by.advance(86_400)
    everything = (await ask()).json()["items"]
    days = ["2026-01-03", "2026-01-02", "2026-01-01"]
    assert [(row["day"], row["model"]) for row in everything] == [(day, model) for day in days for model in (UNKNOWN, HAIKU)]
    two = next(row for row in everything if row["model"] == HAIKU)
    assert two == {
        "day": "2026-01-03",
        "workspace_id": str(ann.workspace_id),
        "model": HAIKU,
        "requests": 2,
        "input_tokens": 2,
        "output_tokens": 20,
        "cache_read_tokens": 4,
        "cache_write_tokens": 6,
        "cost_micro_usd": 2 * round(1 + 0.2 + 3.75 + 50),
    }
    assert {row["cost_micro_usd"] for row in everything if row["model"] == UNKNOWN} == {None}
    paged, cursor = [], {}
    while True:
        answer = (await ask(limit=4, **cursor)).json()
        paged += answer["items"]
        if answer["next_cursor"] is None:
            break
        cursor = {"cursor": answer["next_cursor"]}
    assert paged == everything
    between = (await ask(since="2026-01-02", until="2026-01-02")).json()["items"]
    assert [row["day"] for row in between] == ["2026-01-02"] * 2
    assert (await ask(workspace_id=str(FakeWorld().new_id()))).json()["items"] == everything
    assert (await ask(workspace_id="00000000-0000-7000-8000-000000000000")).json()["items"] == []


async def test_a_stranger_sees_nothing_of_it(db, world, sign_up):
    ann, ask_ann = await sign_up("ann")
    _, ask_bob = await sign_up("bob")
    recorder = Recorder(db=db, world=world)
    async with recorder.recording():
        recorder.note(ann, spent(), agent_session="s")
    assert len((await ask_ann()).json()["items"]) == 1
    assert (await ask_bob(workspace_id=str(ann.workspace_id))).json()["items"] == []


@pytest.mark.parametrize("cursor", ["x", "ÿ", "eA==", "MjAyNi0wMS0wMSB4IHk="])
async def test_a_foreign_cursor_is_refused(sign_up, cursor):
    _, ask = await sign_up("ann")
    answer = await ask(cursor=cursor)
    assert (answer.status_code, answer.json()["code"]) == (422, "cursor_invalid")


async def test_rows_of_a_user_who_is_gone_hold_nobody_up(db, world, sign_up):
    ann, ask = await sign_up("ann")
    gone = Owner(UserId(world.new_id()), ann.workspace_id, ann.vm_id)
    recorder = Recorder(db=db, world=world)
    async with recorder.recording():
        for owner in (ann, gone, ann, gone, gone):
            recorder.note(owner, spent(), agent_session=None)
    assert (await ask()).json()["items"][0]["requests"] == 2


async def test_what_waits_for_the_database_has_a_bound(world):
    owner = Owner(UserId(world.new_id()), WorkspaceId(world.new_id()), VmId(world.new_id()))
    async with Database("postgresql://nobody@127.0.0.1:9/none", connect_timeout_s=1) as away:
        recorder = Recorder(db=away, world=world)
        async with recorder.recording():
            for number in range(WAITING_MAX + 5):
                recorder.note(owner, spent(output=number), agent_session=None)
            assert len(recorder._waiting) == WAITING_MAX
            assert recorder._waiting[0].output_tokens == 5, "the oldest are lost"


async def test_usage_goes_with_its_user(db, world, sign_up):
    ann, _ = await sign_up("ann")
    recorder = Recorder(db=db, world=world)
    async with recorder.recording():
        recorder.note(ann, spent(), agent_session=None)
    async with db.system_transaction() as tx:
        await tx.execute(text("delete from users where id = :id"), {"id": ann.user_id})
        assert await tx.scalar(text("select count(*) from usage")) == 0
