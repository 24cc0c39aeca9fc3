"""A user's own sessions over HTTP, on a real PostgreSQL: statements 15, 16 and 18 of the security checklist."""

import asyncio

import httpx2
import pytest
from sqlalchemy import text

from ff_cloud.auth import sessions
from ff_cloud.auth.sessions import SESSIONS_MAX
from ff_cloud.kit.origin import Origin
from ff_cloud.testing.accounts import accounts_app
from ff_core.contract.account import Scope
from ff_core.ids import UserId
from ff_core.testing.world import FakeWorld

PASSWORD = "tangerine lamp over the river"
ORIGIN = Origin(address="203.0.113.7", network="203.0.113.7", user_agent="pytest")


@pytest.fixture
def world():
    return FakeWorld()


@pytest.fixture
async def app(db, world):
    return accounts_app(db, world)


class Login:
    """One session of a user."""

    def __init__(self, http, pair):
        self.http, self.pair = http, pair

    async def ask(self, method, path):
        headers = {"Authorization": f"Bearer {self.pair['access_token']}"}
        return await self.http.request(method, path, headers=headers)

    async def sessions(self):
        answer = await self.ask("GET", "/v1/auth/sessions")
        assert answer.status_code == 200, answer.text
        return answer.json()["items"]

    async def id(self):
        return next(one["id"] for one in await self.sessions() if one["current"])

    async def alive(self):
        """Whether its access token is good. When not, its refresh token must not be either."""
        status = (await self.ask("GET", "/v1/me")).status_code
        if status == 401:
            answer = await self.http.post("/v1/auth/refresh", json={"refresh_token": self.pair["refresh_token"]})
            assert answer.status_code == 401
        return status == 200


@pytest.fixture
async def enter(app):
    clients = []

    async def enter(email="alice@example.com", *, host="192.0.2.1", agent="ff/1.0", path="login"):
        client = httpx2.AsyncClient(
            transport=httpx2.ASGITransport(app, client=(host, 4000)), base_url="http://cloud", headers={"User-Agent": agent}
        )
        clients.append(client)
        answer = await client.post(f"/v1/auth/{path}", json={"email": email, "password": PASSWORD})
        assert answer.status_code in {200, 201}, answer.text
        return Login(client, answer.json())

    yield enter
    for client in clients:
        await client.aclose()


@pytest.fixture
async def alice(enter):
    return await enter(path="signup")


@pytest.fixture
async def bob(enter):
    return await enter("bob@example.com", path="signup")


def problem(answer, status, code):
    assert (answer.status_code, answer.json()["code"]) == (status, code), answer.text


async def test_sessions_are_listed_with_device_place_and_last_use(alice, bob, enter, world):
    """Checklist 16."""
    world.advance(60)
    other = await enter(host="2001:db8:1:2::3", agent="Firefox " + "9" * 500)
    world.advance(60)
    await other.ask("GET", "/v1/me")
    first, second = await alice.sessions()
    assert first["device"] == ("Firefox " + "9" * 500)[:200]
    assert first["place"] == "2001:db8:1::/48"
    assert (second["device"], second["place"], second["client"]) == ("ff/1.0", "192.0.2.0/24", "api")
    assert [one["current"] for one in (first, second)] == [False, True]
    assert second["last_used_at"] == first["last_used_at"] > first["created_at"] > second["created_at"]
    assert [one["id"] for one in await bob.sessions()] == [await bob.id()]


async def test_every_login_is_a_new_session(alice, enter):
    """Checklist 18."""
    ids = {await alice.id(), await (await enter()).id(), await (await enter()).id()}
    assert len(ids) == 3


async def test_a_session_is_ended_by_its_user_and_refused_at_once(alice, enter):
    """Checklist 15 and 16."""
    other = await enter()
    assert (await alice.ask("DELETE", f"/v1/auth/sessions/{await other.id()}")).status_code == 204
    assert not await other.alive()
    assert await alice.alive()
    assert (await alice.ask("DELETE", f"/v1/auth/sessions/{await alice.id()}")).status_code == 204
    assert not await alice.alive()


async def test_a_stranger_and_a_repetition_meet_404(alice, bob, enter):
    other = await enter()
    session_id = await other.id()
    problem(await bob.ask("DELETE", f"/v1/auth/sessions/{session_id}"), 404, "not_found")
    assert await other.alive()
    assert (await alice.ask("DELETE", f"/v1/auth/sessions/{session_id}")).status_code == 204
    problem(await alice.ask("DELETE", f"/v1/auth/sessions/{session_id}"), 404, "not_found")
    problem(await alice.ask("DELETE", "/v1/auth/sessions/nonsense"), 422, "invalid_input")


async def test_all_others_are_ended_or_all(alice, bob, enter):
    """Checklist 15."""
    others = [await enter() for _ in range(3)]
    assert (await alice.ask("DELETE", "/v1/auth/sessions")).status_code == 204
    assert [await other.alive() for other in others] == [False] * 3
    assert await alice.alive()
    others = [await enter()]
    assert (await alice.ask("DELETE", "/v1/auth/sessions?all=true")).status_code == 204
    assert not await alice.alive()
    assert not await others[0].alive()
    assert await bob.alive()


async def test_logout_ends_the_refresh_token_too(alice):
    """Checklist 15."""
    assert (await alice.ask("POST", "/v1/auth/logout")).status_code == 204
    assert not await alice.alive()


async def test_an_api_key_reads_sessions_with_its_scope_and_ends_none(alice):
    made = await alice.http.post(
        "/v1/api-keys",
        json={"name": "k", "scopes": ["account:read"]},
        headers={"Authorization": f"Bearer {alice.pair['access_token']}"},
    )
    key = Login(alice.http, {"access_token": made.json()["key"]})
    (listed,) = await key.sessions()
    assert not listed["current"]
    problem(await key.ask("DELETE", f"/v1/auth/sessions/{listed['id']}"), 403, "login_required")
    problem(await key.ask("DELETE", "/v1/auth/sessions?all=true"), 403, "login_required")
    assert await alice.alive()


async def user_of(login):
    return UserId((await login.ask("GET", "/v1/me")).json()["id"])


async def test_other_rooms_begin_and_end_sessions(app, db, world, alice, bob, enter):
    """What password change, reset, disabling and GitHub use. Checklist 15 and 18."""
    auth, user_id = app.state.auth, await user_of(alice)
    begun = Login(alice.http, (await auth.begin_session(user_id, ORIGIN, "web")).model_dump())
    assert await user_of(begun) == user_id
    current, _ = await begun.sessions()
    assert (current["client"], current["place"], current["device"]) == ("web", "203.0.113.0/24", "pytest")

    other = await enter()
    async with db.system_transaction() as tx:
        assert await sessions.revoke_all(tx, user_id, world.now(), but=current["id"]) == 2
        assert await sessions.revoke_all(tx, user_id, world.now(), but=current["id"]) == 0
    assert not await alice.alive()
    assert not await other.alive()
    assert await begun.alive()
    assert await bob.alive()
    async with db.system_transaction() as tx:
        assert await sessions.revoke_all(tx, user_id, world.now()) == 1
    assert not await begun.alive()


async def test_a_bounded_session_can_do_no_more(app, db, world, alice):
    async with db.system_transaction() as tx:
        pair = await sessions.begin(
            tx,
            keys=app.state.auth.keys,
            world=world,
            user_id=await user_of(alice),
            origin=ORIGIN,
            client_id="web",
            scopes=frozenset({Scope.WORKSPACES_READ}),
        )
    problem(await Login(alice.http, pair.model_dump()).ask("GET", "/v1/me"), 403, "scope_missing")


async def test_the_sessions_of_a_user_are_bounded_and_the_longest_unused_goes(app, world, alice, bob):
    user_id = await user_of(alice)
    begun = []
    for _ in range(SESSIONS_MAX):
        world.advance(1)
        begun.append(await app.state.auth.begin_session(user_id, ORIGIN, "ff"))
    assert not await alice.alive()
    assert len(await Login(alice.http, begun[0].model_dump()).sessions()) == SESSIONS_MAX
    assert await bob.alive()


async def test_security_events_are_audited(alice, enter, db):
    """Checklist 55, as far as sessions and keys go."""
    other = await enter()
    wrong = {"email": "alice@example.com", "password": "wrong " * 5}
    assert (await alice.http.post("/v1/auth/login", json=wrong)).status_code == 401
    made = await alice.http.post(
        "/v1/api-keys", json={"name": "k"}, headers={"Authorization": f"Bearer {alice.pair['access_token']}"}
    )
    await alice.ask("DELETE", f"/v1/api-keys/{made.json()['id']}")
    await alice.ask("DELETE", f"/v1/auth/sessions/{await other.id()}")
    await alice.ask("DELETE", "/v1/auth/sessions")
    await alice.ask("POST", "/v1/auth/logout")
    async with db.system_transaction() as tx:
        rows = (await tx.execute(text("select action, outcome, address, detail::text from audit_log order by at"))).all()
    assert [(row.action, row.outcome) for row in rows] == [
        ("account.opened", "ok"),
        ("login", "ok"),
        ("login", "refused"),
        ("api_key.made", "ok"),
        ("api_key.deleted", "ok"),
        ("session.revoked", "ok"),
        ("session.revoked", "ok"),
        ("logout", "ok"),
    ]
    assert {row.address for row in rows} == {"192.0.2.1"}
    for secret in (PASSWORD, made.json()["key"], alice.pair["access_token"], alice.pair["refresh_token"]):
        assert secret not in str(rows)


async def test_ending_and_refreshing_at_once_leaves_nothing_alive(alice, enter):
    for _ in range(5):
        other = await enter()
        session_id = await other.id()
        answer, _ = await asyncio.gather(
            alice.http.post("/v1/auth/refresh", json={"refresh_token": other.pair["refresh_token"]}),
            alice.ask("DELETE", f"/v1/auth/sessions/{session_id}"),
        )
        assert not await Login(alice.http, answer.json() if answer.status_code == 200 else other.pair).alive()
