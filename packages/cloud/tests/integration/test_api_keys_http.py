"""API keys over HTTP, on a real PostgreSQL."""

import asyncio
from datetime import timedelta
from typing import Annotated

import httpx2
import pytest
from fastapi import APIRouter, Depends
from sqlalchemy import select, text

from ff_cloud.auth import api_keys, tables
from ff_cloud.auth.service import API_KEYS_MAX
from ff_cloud.kit.caller import Caller, caller
from ff_cloud.testing.accounts import accounts_app
from ff_core.contract.account import Scope
from ff_core.testing.world import FakeWorld

PASSWORD = "tangerine lamp over the river"
router = APIRouter()


@router.get("/writes")
async def writes(who: Annotated[Caller, Depends(caller(Scope.WORKSPACES_READ, Scope.WORKSPACES_WRITE))]):
    return {"user": str(who.user_id), "via": who.via, "credential": str(who.credential_id)}


@router.get("/administers")
async def administers(who: Annotated[Caller, Depends(caller(Scope.ADMIN))]):
    return {}


@pytest.fixture
def world():
    return FakeWorld()


@pytest.fixture
async def http(db, world):
    app = accounts_app(db, world, routers=(router,))
    async with httpx2.AsyncClient(transport=httpx2.ASGITransport(app), base_url="http://cloud") as client:
        yield client


class Account:
    """A user who logged in."""

    def __init__(self, http, token):
        self.http, self.token = http, token

    async def ask(self, method, path, credential=None, **arguments):
        headers = {"Authorization": f"Bearer {credential or self.token}", **arguments.pop("headers", {})}
        return await self.http.request(method, path, headers=headers, **arguments)

    async def key(self, **wanted):
        answer = await self.ask("POST", "/v1/api-keys", json={"name": "laptop", **wanted})
        assert answer.status_code == 201, answer.text
        return answer.json()

    async def keys(self):
        return (await self.ask("GET", "/v1/api-keys")).json()["items"]


async def account(http, email):
    answer = await http.post("/v1/auth/signup", json={"email": email, "password": PASSWORD})
    assert answer.status_code == 201, answer.text
    return Account(http, answer.json()["access_token"])


@pytest.fixture
async def alice(http):
    return await account(http, "alice@example.com")


@pytest.fixture
async def bob(http):
    return await account(http, "bob@example.com")


def problem(answer, status, code):
    assert (answer.status_code, answer.json()["code"]) == (status, code), answer.text
    return answer.json()


async def test_a_key_is_shown_once_and_acts_for_its_user(alice, bob):
    made = await alice.key(name="my laptop 🦊", expires_in_days=3)
    assert made["key"].startswith(made["prefix"] + "_")
    mine = (await alice.ask("GET", "/v1/me")).json()["id"]
    answer = await bob.ask("GET", "/writes", made["key"])
    assert answer.json() == {"user": mine, "via": "api_key", "credential": made["id"]}
    (listed,) = await alice.keys()
    assert listed == {key: value for key, value in made.items() if key != "key"} | {"last_used_at": listed["last_used_at"]}
    assert made["key"] not in str(listed)
    assert await bob.keys() == []


async def test_a_key_ends_when_it_is_deleted(alice):
    made = await alice.key()
    assert (await alice.ask("DELETE", f"/v1/api-keys/{made['id']}")).status_code == 204
    problem(await alice.ask("GET", "/v1/me", made["key"]), 401, "not_logged_in")
    assert await alice.keys() == []
    problem(await alice.ask("DELETE", f"/v1/api-keys/{made['id']}"), 404, "not_found")


async def test_a_key_ends_at_its_time(alice, world):
    made = await alice.key(expires_in_days=1)
    world.advance(86_399)
    assert (await alice.ask("GET", "/v1/me", made["key"])).status_code == 200
    world.advance(1)
    problem(await alice.ask("GET", "/v1/me", made["key"]), 401, "not_logged_in")


async def test_a_stranger_can_not_delete_a_key(alice, bob):
    made = await alice.key()
    problem(await bob.ask("DELETE", f"/v1/api-keys/{made['id']}"), 404, "not_found")
    assert (await alice.ask("GET", "/v1/me", made["key"])).status_code == 200


async def test_a_missing_scope_is_named(alice):
    made = await alice.key(scopes=["workspaces:read"])
    told = problem(await alice.ask("GET", "/writes", made["key"]), 403, "scope_missing")
    assert told["scope"] == "workspaces:write"
    assert "workspaces:write" in told["detail"]
    problem(await alice.ask("GET", "/v1/me", made["key"]), 403, "scope_missing")
    problem(await alice.ask("GET", "/v1/api-keys", made["key"]), 403, "scope_missing")


async def test_nobody_becomes_an_administrator_by_a_key(alice, bob):
    assert (await alice.ask("GET", "/administers")).status_code == 200, "the first user of a server administrates it"
    problem(await bob.ask("GET", "/administers"), 403, "scope_missing")
    answer = await bob.ask("POST", "/v1/api-keys", json={"name": "x", "scopes": ["admin"]})
    assert problem(answer, 403, "scope_missing")["scope"] == "admin"
    assert await bob.keys() == []


async def test_a_key_with_admin_is_good_as_long_as_its_maker_is_an_administrator(alice, db):
    plain, made = await alice.key(), await alice.key(scopes=["admin", "account:read"])
    problem(await alice.ask("GET", "/administers", plain["key"]), 403, "scope_missing")
    assert (await alice.ask("GET", "/administers", made["key"])).status_code == 200
    async with db.system_transaction() as tx:
        await tx.execute(text("update users set is_admin = false"))
    problem(await alice.ask("GET", "/administers", made["key"]), 403, "scope_missing")
    problem(await alice.ask("GET", "/administers"), 403, "scope_missing")
    assert (await alice.ask("GET", "/v1/me", made["key"])).status_code == 200


async def test_a_disabled_user_is_refused_at_once_with_every_credential(alice, bob, db, world):
    made = await bob.key()
    user_id = (await bob.ask("GET", "/v1/me")).json()["id"]
    async with db.system_transaction() as tx:
        await tx.execute(text("update users set disabled_at = :now where id = :id"), {"now": world.now(), "id": user_id})
    problem(await bob.ask("GET", "/v1/me", made["key"]), 401, "account_disabled")
    problem(await bob.ask("GET", "/v1/me"), 401, "account_disabled")
    assert (await alice.ask("GET", "/v1/me")).status_code == 200
    async with db.system_transaction() as tx:
        await tx.execute(text("update users set disabled_at = null"))
    assert (await bob.ask("GET", "/v1/me", made["key"])).status_code == 200


async def test_a_key_makes_no_keys_ends_no_session_and_deletes_only_itself(alice):
    one, two = await alice.key(), await alice.key()
    problem(await alice.ask("POST", "/v1/api-keys", one["key"], json={"name": "x"}), 403, "login_required")
    problem(await alice.ask("POST", "/v1/auth/logout", one["key"]), 403, "login_required")
    problem(await alice.ask("DELETE", f"/v1/api-keys/{two['id']}", one["key"]), 403, "login_required")
    assert (await alice.ask("DELETE", f"/v1/api-keys/{one['id']}", one["key"])).status_code == 204
    problem(await alice.ask("GET", "/v1/me", one["key"]), 401, "not_logged_in")
    assert (await alice.ask("GET", "/v1/me", two["key"])).status_code == 200


async def test_the_right_prefix_with_another_secret_is_refused(alice):
    one, two = (await alice.key())["key"], (await alice.key())["key"]
    body = one[:13] + two[13:-6]
    forged = body + api_keys._checksum(body)
    assert api_keys.parse(forged) is not None
    problem(await alice.ask("GET", "/v1/me", forged), 401, "not_logged_in")


@pytest.mark.parametrize(
    ("wanted", "field"),
    [
        ({}, "name"),
        ({"name": "a/b"}, "name"),
        ({"name": "k", "scopes": []}, "scopes"),
        ({"name": "k", "scopes": ["everything"]}, "scopes.0"),
        ({"name": "k", "expires_in_days": 0}, "expires_in_days"),
        ({"name": "k", "expires_in_days": 10_000}, "expires_in_days"),
        ({"name": "k", "user_id": "x"}, "user_id"),
    ],
)
async def test_a_wrong_request_names_the_field(alice, wanted, field):
    told = problem(await alice.ask("POST", "/v1/api-keys", json=wanted), 422, "invalid_input")
    assert told["errors"][0]["field"] == field


async def test_use_is_noted_once_a_minute(alice, world, db):
    made = await alice.key()

    async def last():
        async with db.system_transaction() as tx:
            return await tx.scalar(select(tables.api_keys.c.last_used_at))

    assert await last() is None
    await alice.ask("GET", "/v1/me", made["key"])
    first = await last()
    assert first == world.now()
    world.advance(59)
    await alice.ask("GET", "/v1/me", made["key"])
    assert await last() == first
    world.advance(1)
    await alice.ask("GET", "/v1/me", made["key"])
    assert await last() == first + timedelta(minutes=1)


async def test_an_account_has_a_bounded_number_of_keys(alice, bob):
    for _ in range(API_KEYS_MAX):
        made = await alice.key()
    problem(await alice.ask("POST", "/v1/api-keys", json={"name": "one more"}), 409, "too_many_api_keys")
    assert (await alice.ask("DELETE", f"/v1/api-keys/{made['id']}")).status_code == 204
    await alice.key()
    await bob.key()


async def test_the_bound_holds_when_many_keys_are_made_at_once(alice):
    for _ in range(API_KEYS_MAX - 2):
        await alice.key()
    answers = await asyncio.gather(*(alice.ask("POST", "/v1/api-keys", json={"name": "k"}) for _ in range(8)))
    assert sorted(answer.status_code for answer in answers) == [201] * 2 + [409] * 6
    assert len(await alice.keys()) == API_KEYS_MAX


async def test_a_repeated_request_makes_one_key_and_does_not_show_it_again(alice, bob):
    async def make(user, body):
        return await user.ask("POST", "/v1/api-keys", json=body, headers={"Idempotency-Key": "one"})

    made = (await make(alice, {"name": "k"})).json()
    told = problem(await make(alice, {"name": "k"}), 409, "idempotency_replay")
    assert told["api_key_id"] == made["id"]
    assert made["key"] not in str(told)
    problem(await make(alice, {"name": "other"}), 409, "idempotency_mismatch")
    assert len(await alice.keys()) == 1
    assert (await make(bob, {"name": "k"})).status_code == 201, "keys of users are apart"


async def test_a_key_of_a_deleted_user_is_gone_with_him(alice, db):
    made = await alice.key()
    async with db.system_transaction() as tx:
        await tx.execute(tables.metadata.tables["users"].delete())
    problem(await alice.ask("GET", "/v1/me", made["key"]), 401, "not_logged_in")
    problem(await alice.ask("GET", "/v1/me"), 401, "not_logged_in")
