"""Refresh families over HTTP, on a real PostgreSQL: statements 11 to 14 and 17 of the security checklist."""

import asyncio
from datetime import timedelta

import httpx2
import pytest
import structlog
from sqlalchemy import select, text

from ff_cloud.auth import tables
from ff_cloud.auth.session_repository import IDLE_LIFE
from ff_cloud.auth.sessions import FAMILY_LIFE, KEPT_UNUSED, forget_old
from ff_cloud.auth.tokens import LIFE_S
from ff_cloud.testing.accounts import accounts_app
from ff_core.testing.world import FakeWorld

ALICE = {"email": "alice@example.com", "password": "tangerine lamp over the river"}
DAY_S = 86_400


@pytest.fixture
def world():
    return FakeWorld()


@pytest.fixture
async def http(db, world):
    app = accounts_app(db, world)
    async with httpx2.AsyncClient(
        transport=httpx2.ASGITransport(app, client=("192.0.2.9", 1)), base_url="http://cloud"
    ) as client:
        yield client


@pytest.fixture
async def pair(http):
    return (await http.post("/v1/auth/signup", json=ALICE)).json()


async def exchange(http, token, **more):
    return await http.post("/v1/auth/refresh", json={"refresh_token": token, **more})


async def renewed(http, pair):
    answer = await exchange(http, pair["refresh_token"])
    assert answer.status_code == 200, answer.text
    return answer.json()


async def me(http, pair):
    return (await http.get("/v1/me", headers={"Authorization": f"Bearer {pair['access_token']}"})).status_code


def problem(answer, status, code):
    assert (answer.status_code, answer.json()["code"]) == (status, code), answer.text
    return answer.json()


async def rows(db, column):
    async with db.system_transaction() as tx:
        return list((await tx.execute(select(column))).scalars())


async def test_a_pair_is_exchanged_for_the_next_one(http, pair, world):
    answer = await exchange(http, pair["refresh_token"])
    assert answer.headers["cache-control"] == "no-store"
    new = answer.json()
    assert set(new) == {"access_token", "refresh_token", "token_type", "expires_in", "refresh_expires_in"}
    assert (new["token_type"], new["expires_in"]) == ("Bearer", LIFE_S)
    assert new["refresh_token"] != pair["refresh_token"]
    assert new["access_token"] != pair["access_token"]
    assert await me(http, new) == await me(http, pair) == 200, "the access token of before lives until its end"
    world.advance(LIFE_S)
    assert await me(http, new) == 401
    assert await me(http, await renewed(http, new)) == 200


async def test_a_refresh_token_is_stored_as_a_hash_only(http, pair, db):
    """Checklist 11."""
    (stored,) = await rows(db, tables.refresh_tokens.c.sha256)
    assert len(stored) == 32
    async with db.system_transaction() as tx:
        everything = str((await tx.execute(text("select to_jsonb(t) from refresh_tokens t"))).all())
    assert pair["refresh_token"][4:] not in everything


async def test_a_refresh_token_used_twice_ends_its_family_and_no_other(http, pair, db):
    """Checklist 12."""
    other = (await http.post("/v1/auth/login", json=ALICE)).json()
    second = await renewed(http, pair)
    third = await renewed(http, second)
    assert await me(http, third) == 200

    told = problem(await exchange(http, pair["refresh_token"]), 401, "refresh_reused")
    assert pair["refresh_token"] not in str(told)
    for stolen in (pair, second, third):
        assert await me(http, stolen) == 401, "access is refused at once"
    problem(await exchange(http, third["refresh_token"]), 401, "refresh_refused")
    problem(await exchange(http, second["refresh_token"]), 401, "refresh_reused")
    assert await me(http, await renewed(http, other)) == 200
    assert sorted(await rows(db, tables.sessions.c.revoked_reason), key=str) == [None, "refresh_reused"]


async def test_reuse_is_in_the_audit_log_without_the_token(http, pair, db):
    await renewed(http, pair)
    await exchange(http, pair["refresh_token"])
    async with db.system_transaction() as tx:
        query = "select action, outcome, address, user_id, detail::text as detail from audit_log where action = 'refresh.reused'"
        (row,) = (await tx.execute(text(query))).all()
    assert (row.outcome, row.address) == ("refused", "192.0.2.9")
    assert row.user_id is not None
    assert "ffr_" not in row.detail


async def test_of_40_parallel_presentations_exactly_one_succeeds(http, db):
    """Checklist 13."""
    for user in range(3):
        signed_up = await http.post("/v1/auth/signup", json={**ALICE, "email": f"u{user}@example.com"})
        token = signed_up.json()["refresh_token"]
        answers = await asyncio.gather(*(exchange(http, token) for _ in range(40)))
        assert sorted(answer.status_code for answer in answers) == [200] + [401] * 39
        (won,) = [answer.json() for answer in answers if answer.status_code == 200]
        assert await me(http, won) == 401, "nobody can say which of them was the owner"
        problem(await exchange(http, won["refresh_token"]), 401, "refresh_refused")
    assert len(await rows(db, tables.refresh_tokens.c.sha256)) == 6


async def test_an_idle_session_ends(http, pair, world):
    """Checklist 14: 14 days without use."""
    assert pair["refresh_expires_in"] == IDLE_LIFE.total_seconds() == 14 * DAY_S
    world.advance(14 * DAY_S - 1)
    pair = await renewed(http, pair)
    world.advance(14 * DAY_S)
    problem(await exchange(http, pair["refresh_token"]), 401, "refresh_refused")


async def test_a_busy_session_ends_too(http, pair, world):
    """Checklist 14: 90 days whatever happens, and the answers say how long is left."""
    assert timedelta(days=90) == FAMILY_LIFE
    for _ in range(8):
        world.advance(10 * DAY_S)
        pair = await renewed(http, pair)
    assert pair["refresh_expires_in"] == 10 * DAY_S
    world.advance(10 * DAY_S - 1)
    pair = await renewed(http, pair)
    assert await me(http, pair) == 200
    assert pair["refresh_expires_in"] == 1
    world.advance(1)
    problem(await exchange(http, pair["refresh_token"]), 401, "refresh_refused")
    assert await me(http, pair) == 401


async def test_a_refresh_token_is_bound_to_its_client(http):
    """Checklist 17."""
    pair = (await http.post("/v1/auth/signup", json={**ALICE, "client_id": "ff"})).json()
    for client in ({"client_id": "web"}, {"client_id": "api"}, {}):
        problem(await exchange(http, pair["refresh_token"], **client), 401, "refresh_refused")
    problem(await exchange(http, pair["refresh_token"], client_id="else"), 422, "invalid_input")
    answer = await exchange(http, pair["refresh_token"], client_id="ff")
    assert answer.status_code == 200, "the wrong ones did no harm"


async def test_scopes_of_a_session_only_shrink(http, pair):
    """Checklist 17."""
    narrow = (await exchange(http, pair["refresh_token"], scopes=["workspaces:read", "account:read"])).json()
    assert await me(http, narrow) == 200
    told = problem(
        await exchange(http, narrow["refresh_token"], scopes=["workspaces:read", "workspaces:write"]), 403, "scope_missing"
    )
    assert told["scope"] == "workspaces:write"
    same = await renewed(http, narrow)
    assert await me(http, same) == 200, "asking for too much did no harm"
    narrower = (await exchange(http, same["refresh_token"], scopes=["workspaces:read"])).json()
    assert await me(http, narrower) == 403
    problem(await exchange(http, narrower["refresh_token"], scopes=["account:read"]), 403, "scope_missing")
    assert await me(http, await renewed(http, narrower)) == 403


@pytest.mark.parametrize("token", ["", "ffr_", "ffr_" + "A" * 43, "ffr_" + "é" * 43, "x" * 200, "\0"])
async def test_what_is_no_refresh_token_is_refused(http, token):
    problem(await exchange(http, token), 401, "refresh_refused")


@pytest.mark.parametrize("body", [{}, {"refresh_token": "x" * 201}, {"refresh_token": 1}, {"refresh_token": "x", "scopes": []}])
async def test_a_malformed_request_does_not_repeat_its_token(http, body):
    problem(await http.post("/v1/auth/refresh", json=body), 422, "invalid_input")


async def test_tokens_of_one_kind_are_refused_as_another(http, pair):
    """Checklist 6."""
    swapped = {"access_token": pair["refresh_token"]}
    assert await me(http, swapped) == 401
    problem(await exchange(http, pair["access_token"][:200]), 401, "refresh_refused")
    problem(await exchange(http, pair["access_token"]), 422, "invalid_input")


async def test_no_token_is_in_a_log_line_or_an_error(http, pair):
    """Checklist 10."""
    with structlog.testing.capture_logs() as lines:
        second = await renewed(http, pair)
        answers = [
            await exchange(http, second["refresh_token"], client_id="ff"),
            await exchange(http, second["refresh_token"], scopes=["admin", "nonsense"]),
            await exchange(http, second["refresh_token"] + "x" * 200),
            await exchange(http, pair["refresh_token"]),
            await exchange(http, second["refresh_token"]),
            await http.get("/v1/me", headers={"Authorization": f"Bearer {second['access_token']}"}),
            await http.get("/v1/me", headers={"Authorization": f"Bearer {second['access_token'][:-9]}"}),
        ]
    assert lines
    told = str(lines) + "".join(answer.text for answer in answers)
    for each in (pair, second):
        for secret in (each["refresh_token"][4:], each["access_token"].split(".")[2][:-9]):
            assert secret not in told


async def test_a_disabled_user_gets_no_new_pair_and_his_token_stays(http, pair, db, world):
    async with db.system_transaction() as tx:
        await tx.execute(text("update users set disabled_at = :now"), {"now": world.now()})
    problem(await exchange(http, pair["refresh_token"]), 401, "account_disabled")
    problem(await http.post("/v1/auth/login", json=ALICE), 401, "account_disabled")
    wrong = await http.post("/v1/auth/login", json={**ALICE, "password": "not the password of her"})
    problem(wrong, 401, "bad_credentials")
    async with db.system_transaction() as tx:
        await tx.execute(text("update users set disabled_at = null"))
        assert await tx.scalar(text("select count(*) from audit_log where action = 'login' and outcome = 'refused'")) == 2
        assert await tx.scalar(text("select count(*) from audit_log where action = 'login' and outcome = 'ok'")) == 0
    await renewed(http, pair)


async def test_what_ended_long_ago_is_forgotten_bit_by_bit(http, pair, db, world):
    used = pair
    pair = await renewed(http, pair)
    world.advance(10 * DAY_S)
    pair = await renewed(http, pair)

    async def sweep():
        async with db.system_transaction() as tx:
            await forget_old(tx, world.now())
        return len(await rows(db, tables.refresh_tokens.c.sha256)), len(await rows(db, tables.sessions.c.id))

    assert await sweep() == (3, 1)
    world.advance(4 * DAY_S)
    assert await sweep() == (1, 1), "used ones go when they could not have been good any more"
    problem(await exchange(http, used["refresh_token"]), 401, "refresh_refused")
    assert await me(http, await renewed(http, pair)) == 200
    world.advance(KEPT_UNUSED.total_seconds() - 1)
    assert (await sweep())[1] == 1
    world.advance(1)
    assert await sweep() == (0, 0)
