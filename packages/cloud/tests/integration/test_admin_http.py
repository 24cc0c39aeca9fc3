"""Administrators: who is one, what they see and do, and what a disabled account still may."""

import asyncio

import httpx2
import pytest
from sqlalchemy import text

from ff_cloud.admin.endpoints import router
from ff_cloud.admin.service import Admin
from ff_cloud.testing.accounts import accounts_app
from ff_cloud.vms.pool import PoolRules
from ff_core.testing.world import FakeWorld

PASSWORD = "tangerine lamp over the river"
ROUTES = (
    ("GET", "/v1/admin/users"),
    ("POST", "/v1/admin/users/00000000-0000-7000-8000-000000000000/disable"),
    ("POST", "/v1/admin/users/00000000-0000-7000-8000-000000000000/enable"),
    ("PATCH", "/v1/admin/users/00000000-0000-7000-8000-000000000000"),
    ("GET", "/v1/admin/pool"),
    ("GET", "/v1/admin/audit"),
)


@pytest.fixture
def world():
    return FakeWorld()


@pytest.fixture
async def http(db, world):
    app = accounts_app(db, world, routers=(router,))
    pool = PoolRules(vms_min=2, vms_max=2, at_once_max=1)
    app.state.admin = Admin(db=db, recovery=app.state.recovery, pool=pool, image="i", world=world)
    async with httpx2.AsyncClient(transport=httpx2.ASGITransport(app), base_url="http://cloud") as client:
        yield client


async def sign_up(http, name):
    answer = await http.post("/v1/auth/signup", json={"email": f"{name}@example.com", "password": PASSWORD})
    assert answer.status_code == 201, answer.text
    return {"Authorization": f"Bearer {answer.json()['access_token']}"}


async def id_of(http, headers):
    return (await http.get("/v1/me", headers=headers)).json()["id"]


def problem(answer, status, code):
    assert (answer.status_code, answer.json()["code"]) == (status, code), answer.text
    return answer.json()


async def test_of_many_first_accounts_exactly_one_administrates(http, db):
    everybody = await asyncio.gather(*(sign_up(http, f"u{n}") for n in range(8)))
    answers = [await http.get("/v1/admin/users", headers=each) for each in everybody]
    assert sorted(answer.status_code for answer in answers) == [200] + [403] * 7
    async with db.system_transaction() as tx:
        assert await tx.scalar(text("select count(*) from users where is_admin")) == 1
    [listed] = [answer.json()["items"] for answer in answers if answer.status_code == 200]
    assert [(each["is_admin"], each["plan"]) for each in listed if each["is_admin"]] == [(True, "team")]
    assert {each["plan"] for each in listed if not each["is_admin"]} == {"free"}


@pytest.mark.parametrize(("method", "path"), ROUTES)
async def test_nobody_else_administrates(http, method, path):
    await sign_up(http, "root")
    user = await sign_up(http, "bob")
    body = {"plan": "pro"} if method == "PATCH" else None
    assert problem(await http.request(method, path, headers=user, json=body), 403, "scope_missing")["scope"] == "admin"
    problem(await http.request(method, path, json=body), 401, "not_logged_in")


async def test_an_administrators_key_without_the_scope_does_not_administrate(http):
    root = await sign_up(http, "root")
    key = (await http.post("/v1/api-keys", json={"name": "plain"}, headers=root)).json()["key"]
    problem(await http.get("/v1/admin/users", headers={"Authorization": f"Bearer {key}"}), 403, "scope_missing")
    wanted = {"name": "admin", "scopes": ["admin"]}
    key = (await http.post("/v1/api-keys", json=wanted, headers=root)).json()["key"]
    assert (await http.get("/v1/admin/users", headers={"Authorization": f"Bearer {key}"})).status_code == 200
    user = await sign_up(http, "bob")
    problem(await http.post("/v1/api-keys", json=wanted, headers=user), 403, "scope_missing")


async def test_accounts_are_listed_by_page_and_found_by_a_part_of_the_email(http):
    root = await sign_up(http, "root")
    for name in ("ann", "bob", "b_b", "cid"):
        await sign_up(http, name)
    seen, cursor = [], None
    while True:
        page = (
            await http.get("/v1/admin/users", params={"limit": 2, **({"cursor": cursor} if cursor else {})}, headers=root)
        ).json()
        seen += [each["email"].partition("@")[0] for each in page["items"]]
        cursor = page["next_cursor"]
        if cursor is None:
            break
    assert seen == ["cid", "b_b", "bob", "ann", "root"]
    found = (await http.get("/v1/admin/users", params={"email": "B_B@"}, headers=root)).json()["items"]
    assert [each["email"] for each in found] == ["b_b@example.com"], "an underscore is no wildcard"
    assert "hash" not in str(found)


async def test_a_disabled_user_is_refused_at_once_everywhere_and_an_enabled_one_is_not(http):
    root, bob = await sign_up(http, "root"), await sign_up(http, "bob")
    bob_id = await id_of(http, bob)
    key = (await http.post("/v1/api-keys", json={"name": "k"}, headers=bob)).json()["key"]
    login = {"email": "bob@example.com", "password": PASSWORD}
    refresh = (await http.post("/v1/auth/login", json=login)).json()["refresh_token"]

    for _ in range(2):
        disabled = await http.post(f"/v1/admin/users/{bob_id}/disable", headers=root)
        assert disabled.status_code == 200, disabled.text
        assert disabled.json()["disabled_at"] is not None
    assert (await http.get("/v1/me", headers=bob)).status_code == 401
    problem(await http.get("/v1/me", headers={"Authorization": f"Bearer {key}"}), 401, "account_disabled")
    assert (await http.post("/v1/auth/refresh", json={"refresh_token": refresh})).status_code == 401
    problem(await http.post("/v1/auth/login", json=login), 401, "account_disabled")
    problem(await http.post("/v1/auth/login", json={**login, "password": "wrong " * 5}), 401, "bad_credentials")

    assert (await http.post(f"/v1/admin/users/{bob_id}/enable", headers=root)).json()["disabled_at"] is None
    assert (await http.get("/v1/me", headers=bob)).status_code == 401, "what was ended stays ended"
    assert (await http.get("/v1/me", headers={"Authorization": f"Bearer {key}"})).status_code == 200
    assert (await http.post("/v1/auth/login", json=login)).status_code == 200


async def test_the_last_administrator_can_not_be_disabled(http):
    root = await sign_up(http, "root")
    problem(await http.post(f"/v1/admin/users/{await id_of(http, root)}/disable", headers=root), 409, "last_administrator")


async def test_a_plan_is_changed_to_one_that_there_is(http):
    root, bob = await sign_up(http, "root"), await sign_up(http, "bob")
    path = f"/v1/admin/users/{await id_of(http, bob)}"
    assert (await http.patch(path, json={"plan": "pro"}, headers=root)).json()["plan"] == "pro"
    assert (await http.get("/v1/me", headers=bob)).json()["plan"] == "pro"
    told = problem(await http.patch(path, json={"plan": "gold"}, headers=root), 422, "plan_unknown")
    assert told["detail"] == "There is no such plan; there are free, pro, team."
    for request in (
        http.patch(path[:-12] + "0" * 12, json={"plan": "pro"}, headers=root),
        http.post(path[:-12] + "0" * 12 + "/disable", headers=root),
        http.post(path[:-12] + "0" * 12 + "/enable", headers=root),
    ):
        problem(await request, 404, "not_found")


async def test_what_an_administrator_does_is_in_both_logs(http):
    root, bob = await sign_up(http, "root"), await sign_up(http, "bob")
    root_id, bob_id = await id_of(http, root), await id_of(http, bob)
    await http.patch(f"/v1/admin/users/{bob_id}", json={"plan": "pro"}, headers=root)
    await http.post(f"/v1/admin/users/{bob_id}/disable", headers=root)
    actions = {}
    for user_id in (root_id, bob_id):
        page = (await http.get("/v1/admin/audit", params={"user_id": user_id}, headers=root)).json()
        actions[user_id] = {event["action"] for event in page["items"]}
    assert {"account.plan_changed", "account.disabled"} <= actions[bob_id]
    assert {"admin.account.plan_changed", "admin.account.disabled"} <= actions[root_id]
    everything = (await http.get("/v1/admin/audit", headers=root)).json()["items"]
    assert actions[root_id] | actions[bob_id] <= {event["action"] for event in everything}


async def test_the_pool_is_counted_by_status(http, db):
    root = await sign_up(http, "root")
    empty = {"vms": {}, "target": 2, "warm": 0, "warming": 0, "hits": 0, "misses": 0, "hit_rate": None}
    empty |= {"oldest_age_s": None, "draining": False, "waiting": 0}
    assert (await http.get("/v1/admin/pool", headers=root)).json() == empty
    user_id = await id_of(http, root)
    async with db.system_transaction() as tx:
        for n, status in enumerate(("RUNNING", "RUNNING", "CREATING")):
            values = {"id": f"00000000-0000-7000-8000-00000000000{n}", "user": user_id, "status": status, "name": f"w{n}"}
            await tx.execute(
                text(
                    "insert into workspaces (id, user_id, name, status, location, epoch, desired, last_active_at, "
                    "created_at, updated_at) "
                    "values (:id, :user, :name, 'READY', 'CLOUD', 1, 'PRESENT', now(), now(), now())"
                ),
                values,
            )
            await tx.execute(
                text(
                    "insert into vms (id, user_id, workspace_id, status, generation, health_failures, created_at) "
                    "values (:id, :user, :id, :status, 1, 0, now())"
                ),
                values,
            )
    assert (await http.get("/v1/admin/pool", headers=root)).json() == empty | {"vms": {"CREATING": 1, "RUNNING": 2}}
