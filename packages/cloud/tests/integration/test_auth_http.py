"""Signing up, in and out over HTTP, on a real PostgreSQL."""

import asyncio
import json
from datetime import timedelta

import httpx2
import pytest
from sqlalchemy import select, text, update

from ff_cloud.auth import tables
from ff_cloud.auth import tokens as access_tokens
from ff_cloud.auth.session_repository import IDLE_LIFE
from ff_cloud.auth.sessions import FAMILY_LIFE
from ff_cloud.auth.tokens import LIFE_S, AccessClaims, SigningKey
from ff_cloud.testing.accounts import CountingHasher, accounts_app
from ff_core.testing.world import FakeWorld

PASSWORD = "tangerine lamp over the river"
ALICE = {"email": "alice@example.com", "password": PASSWORD}


@pytest.fixture
def world():
    return FakeWorld()


@pytest.fixture
def hasher():
    return CountingHasher()


@pytest.fixture
async def app(db, world, hasher):
    return accounts_app(db, world, hasher=hasher)


def client_of(app, host="192.0.2.1"):
    return httpx2.AsyncClient(transport=httpx2.ASGITransport(app, client=(host, 4000)), base_url="http://cloud")


@pytest.fixture
async def http(app):
    async with client_of(app) as client:
        yield client


def bearer(credential):
    return {"Authorization": f"Bearer {credential}"}


async def sign_up(http, **changes):
    answer = await http.post("/v1/auth/signup", json={**ALICE, **changes})
    assert answer.status_code == 201, answer.text
    return answer.json()["access_token"]


def problem(answer, status, code):
    assert (answer.status_code, answer.json()["code"]) == (status, code), answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.json()["request_id"] == answer.headers["x-request-id"]
    return answer.json()


async def test_sign_up_log_in_me_log_out(http, world):
    answer = await http.post("/v1/auth/signup", json={**ALICE, "name": "Alice 🦊"})
    assert answer.status_code == 201
    assert {**answer.json(), "access_token": "", "refresh_token": ""} == {
        "access_token": "",
        "token_type": "Bearer",
        "expires_in": LIFE_S,
        "refresh_token": "",
        "refresh_expires_in": IDLE_LIFE.total_seconds(),
    }
    assert answer.headers["cache-control"] == "no-store"
    first = answer.json()["access_token"]

    second = (await http.post("/v1/auth/login", json=ALICE)).json()["access_token"]
    me = (await http.get("/v1/me", headers=bearer(second))).json()
    assert (me["email"], me["name"]) == ("alice@example.com", "Alice 🦊")
    assert PASSWORD not in str(me)

    assert (await http.post("/v1/auth/logout", headers=bearer(second))).status_code == 204
    problem(await http.get("/v1/me", headers=bearer(second)), 401, "not_logged_in")
    problem(await http.post("/v1/auth/logout", headers=bearer(second)), 401, "not_logged_in")
    assert (await http.get("/v1/me", headers=bearer(first))).status_code == 200, "the other session goes on"


async def test_without_a_name_the_account_has_one(http):
    token = await sign_up(http)
    assert (await http.get("/v1/me", headers=bearer(token))).json()["name"] == "alice"


@pytest.mark.parametrize("email", ["Alice@Example.COM", "ALICE@example.com"])
async def test_case_of_the_email_does_not_matter(http, email):
    await sign_up(http)
    problem(await http.post("/v1/auth/signup", json={**ALICE, "email": email}), 409, "email_taken")
    assert (await http.post("/v1/auth/login", json={**ALICE, "email": email})).status_code == 200


async def test_the_same_password_typed_on_another_keyboard(http):
    await sign_up(http, password="un café au lait noisette")
    other = {**ALICE, "password": "un cafe\u0301 au lait noisette"}
    assert (await http.post("/v1/auth/login", json=other)).status_code == 200


async def test_of_two_sign_ups_at_once_one_wins(http):
    answers = await asyncio.gather(*(http.post("/v1/auth/signup", json=ALICE) for _ in range(6)))
    assert sorted(answer.status_code for answer in answers) == [201, 409, 409, 409, 409, 409]


@pytest.mark.parametrize(
    ("changes", "code", "field"),
    [
        ({"email": "nobody"}, "email_invalid", "email"),
        ({"email": "a@b c.de"}, "email_invalid", "email"),
        ({"email": "a\0b@example.com"}, "email_invalid", "email"),
        ({"email": "a\ud800@example.com"}, "invalid_input", "email"),
        ({"email": "a" * 250 + "@example.com"}, "invalid_input", "email"),
        ({"email": None}, "invalid_input", "email"),
        ({"password": "too short"}, "invalid_input", "password"),
        ({"password": "passwordpassword"}, "password_refused", "password"),
        ({"password": "alice@example.com"}, "password_refused", "password"),
        ({"password": "half a pair \ud83d here"}, "invalid_input", "password"),
        ({"password": "x" * 1025}, "invalid_input", "password"),
        ({"password": ["x" * 20]}, "invalid_input", "password"),
        ({"name": "a/b"}, "invalid_input", "name"),
        ({"name": ""}, "invalid_input", "name"),
        ({"name": "n" * 101}, "invalid_input", "name"),
        ({"admin": True}, "invalid_input", "admin"),
    ],
)
async def test_a_bad_sign_up_names_the_field_and_leaves_nothing(http, db, changes, code, field):
    body = {**ALICE, **changes}
    answer = await http.post("/v1/auth/signup", content=json.dumps(body), headers={"Content-Type": "application/json"})
    told = problem(answer, 422, code)
    assert [error["field"] for error in told["errors"]] == [field]
    assert str(body["password"]) not in answer.text
    async with db.system_transaction() as tx:
        assert await tx.scalar(text("select count(*) from users")) == 0


async def test_a_closed_server_takes_no_accounts(db, world):
    async with client_of(accounts_app(db, world, signup_open=False)) as http:
        problem(await http.post("/v1/auth/signup", json=ALICE), 403, "signup_closed")


async def test_known_and_unknown_emails_are_answered_alike_after_the_same_work(http, hasher):
    await sign_up(http)
    hashed = hasher.hashed
    wrong = await http.post("/v1/auth/login", json={**ALICE, "password": "wrong " * 5})
    assert len(hasher.verified) == 1
    unknown = await http.post("/v1/auth/login", json={**ALICE, "email": "bob@example.com"})
    assert len(hasher.verified) == 2
    impossible = await http.post("/v1/auth/login", json={**ALICE, "email": "not an address \0"})
    assert len(hasher.verified) == 3
    assert hasher.hashed == hashed
    told = [problem(answer, 401, "bad_credentials") for answer in (wrong, unknown, impossible)]
    assert len({str({**each, "request_id": ""}) for each in told}) == 1
    assert wrong.headers["www-authenticate"].startswith("Bearer")


async def test_an_account_without_a_password_can_not_log_in(http, db, hasher):
    await sign_up(http)
    async with db.system_transaction() as tx:
        await tx.execute(tables.passwords.delete())
    problem(await http.post("/v1/auth/login", json=ALICE), 401, "bad_credentials")
    assert len(hasher.verified) == 1


async def test_a_login_renews_an_outdated_verifier(http, db):
    await sign_up(http)
    old = CountingHasher(time_cost=2).hash(PASSWORD)
    async with db.system_transaction() as tx:
        await tx.execute(update(tables.passwords).values(hash=old))
    assert (await http.post("/v1/auth/login", json=ALICE)).status_code == 200
    async with db.system_transaction() as tx:
        renewed = await tx.scalar(select(tables.passwords.c.hash))
    assert renewed != old
    assert "t=1" in renewed
    assert (await http.post("/v1/auth/login", json=ALICE)).status_code == 200


async def test_guessing_is_limited_per_email_and_address_and_time_heals(app, http, world):
    await sign_up(http)
    wrong = {**ALICE, "password": "wrong " * 5}
    answers = await asyncio.gather(*(http.post("/v1/auth/login", json=wrong) for _ in range(15)))
    assert sorted(answer.status_code for answer in answers) == [401] * 10 + [429] * 5
    refused = await http.post("/v1/auth/login", json=ALICE)
    problem(refused, 429, "too_many_attempts")
    assert refused.headers["retry-after"] == "30"

    async with client_of(app, "198.51.100.7") as elsewhere:
        assert (await elsewhere.post("/v1/auth/login", json=ALICE)).status_code == 200, "the owner is not locked out"
    other = await http.post("/v1/auth/login", json={**wrong, "email": "bob@example.com"})
    assert other.status_code == 401, "another e-mail is another count"

    world.advance(30)
    assert (await http.post("/v1/auth/login", json=ALICE)).status_code == 200
    answers = [await http.post("/v1/auth/login", json=wrong) for _ in range(11)]
    assert [answer.status_code for answer in answers] == [401] * 10 + [429], "a right login forgives"


async def test_one_email_is_limited_over_all_addresses(app, db):
    wrong = {**ALICE, "password": "wrong " * 5}
    statuses = []
    for host in range(8):
        async with client_of(app, f"2001:db8:{host}::1") as http:
            statuses += [(await http.post("/v1/auth/login", json=wrong)).status_code for _ in range(9)]
    assert statuses == [401] * 60 + [429] * 12


async def test_one_network_is_limited_over_all_emails_and_an_ipv6_network_is_one(app):
    statuses = []
    for count in range(101):
        async with client_of(app, f"2001:db8::{count + 1:x}") as http:
            answer = await http.post("/v1/auth/login", json={**ALICE, "email": f"u{count}@example.com"})
            statuses.append(answer.status_code)
    assert statuses == [401] * 100 + [429]


async def test_counters_are_swept(http, db, world):
    for count in range(20):
        await http.post("/v1/auth/login", json={**ALICE, "email": f"u{count}@example.com"})
    world.advance(3600)
    for count in range(8):
        await http.post("/v1/auth/login", json={**ALICE, "email": f"v{count}@example.com"})
    async with db.system_transaction() as tx:
        assert await tx.scalar(text("select count(*) from rate_limits")) == 8 * 2 + 1
        assert await tx.scalar(text("select count(*) from rate_limits where key like '%@%'")) == 0


async def test_a_token_ends_and_so_does_a_session(http, world):
    token = await sign_up(http)
    world.advance(LIFE_S - 1)
    assert (await http.get("/v1/me", headers=bearer(token))).status_code == 200
    world.advance(1)
    problem(await http.get("/v1/me", headers=bearer(token)), 401, "not_logged_in")


async def test_a_good_token_of_an_ended_foreign_or_unknown_session_is_refused(app, http, db, world):
    token = await sign_up(http)
    keys = app.state.auth.keys

    async def refused(claims):
        async with db.system_transaction() as tx:
            forged = await keys.issue(tx, claims, world.now())
        told = problem(await http.get("/v1/me", headers=bearer(forged)), 401, "not_logged_in")
        return {**told, "request_id": ""}

    mine = await keys.verify(token, world.now())
    told = [
        await refused(AccessClaims(mine.user_id, world.new_id(), world.new_id())),
        await refused(AccessClaims(world.new_id(), mine.session_id, world.new_id())),
    ]
    for _ in range(FAMILY_LIFE // timedelta(days=10)):
        async with db.system_transaction() as tx:
            good = await keys.issue(tx, mine, world.now())
        assert (await http.get("/v1/me", headers=bearer(good))).status_code == 200, "a busy session goes on for 90 days"
        world.advance(timedelta(days=10).total_seconds())
    told.append(await refused(mine))
    assert len({str(each) for each in told}) == 1


async def test_a_token_of_another_server_is_refused(app, http, world):
    mine = await app.state.auth.keys.verify(await sign_up(http), world.now())
    forged = access_tokens.issue(mine, SigningKey.of_seed(b"another!" * 4), world.now())
    problem(await http.get("/v1/me", headers=bearer(forged)), 401, "not_logged_in")


@pytest.mark.parametrize(
    "headers",
    [
        [],
        [("Authorization", "")],
        [("Authorization", "Bearer")],
        [("Authorization", "Bearer ")],
        [("Authorization", "Basic YTpi")],
        [("Authorization", "Bearer x")],
        [("Authorization", "Bearer " + "a" * 5000)],
        [("Authorization", "Bearer ffk_")],
        [("Authorization", "Bearer \xe9.\xe9.\xe9".encode("latin-1"))],
        [("Cookie", "access_token=x")],
    ],
)
async def test_without_a_good_credential_the_answer_is_401(http, headers):
    answer = await http.get("/v1/me", headers=headers)
    problem(answer, 401, "not_logged_in")
    assert answer.headers["www-authenticate"] == 'Bearer realm="ff-cloud"'


async def test_two_credentials_are_none(http):
    good = f"Bearer {await sign_up(http)}"
    answer = await http.get("/v1/me", headers=[("Authorization", good), ("Authorization", good)])
    problem(answer, 401, "not_logged_in")
    assert (await http.get(f"/v1/me?access_token={good}")).status_code == 401


async def test_use_of_a_session_is_noted_once_a_minute_and_agents_are_cut(http, db, world):
    answer = await http.post("/v1/auth/signup", json=ALICE, headers={"User-Agent": "ff/" + "9" * 500})
    token = answer.json()["access_token"]

    async def last_used():
        async with db.system_transaction() as tx:
            return (await tx.execute(select(tables.sessions))).one()

    began = (await last_used()).last_used_at
    assert len((await last_used()).user_agent) == 200
    world.advance(59)
    await http.get("/v1/me", headers=bearer(token))
    assert (await last_used()).last_used_at == began
    world.advance(1)
    await http.get("/v1/me", headers=bearer(token))
    assert (await last_used()).last_used_at == began + timedelta(minutes=1)


async def test_nothing_secret_is_stored(http, db):
    signed_up = (await http.post("/v1/auth/signup", json=ALICE)).json()
    token, refresh_token = signed_up["access_token"], signed_up["refresh_token"]
    key = (await http.post("/v1/api-keys", json={"name": "k"}, headers=bearer(token))).json()["key"]
    async with db.system_transaction() as tx:
        query = "select tablename from pg_tables where schemaname = 'public' and tablename <> 'alembic_version'"
        names = (await tx.execute(text(query))).scalars().all()
        assert {"refresh_tokens", "signing_keys", "audit_log"} < set(names)
        for table in names:
            stored = str((await tx.execute(text(f"select to_jsonb(t) from {table} t"))).all())
            for secret in (PASSWORD, token, token.split(".")[2], refresh_token, refresh_token[4:], key, key[13:]):
                assert secret not in stored


async def test_a_users_transaction_sees_only_himself_and_no_verifier(app, http, db, world):
    alice = (await app.state.auth.keys.verify(await sign_up(http), world.now())).user_id
    await sign_up(http, email="bob@example.com")
    async with db.transaction(alice) as tx:
        assert (await tx.execute(text("select email from users"))).scalars().all() == ["alice@example.com"]
        assert await tx.scalar(text("select count(*) from auth_sessions")) == 1
    hidden = ("auth_passwords", "rate_limits", "refresh_tokens", "signing_keys")
    for statement in (*(f"select * from {table}" for table in hidden), "update users set plan = 'team'"):
        with pytest.raises(Exception, match="permission denied"):
            async with db.transaction(alice) as tx:
                await tx.execute(text(statement))
