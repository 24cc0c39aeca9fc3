"""How often one may ask: per account, address and class, across replicas, on every route there is."""

import asyncio
from collections import Counter
from datetime import timedelta
from uuid import UUID

import httpx2
import pytest
from fastapi.routing import APIRoute, iter_route_contexts
from psycopg.errors import InsufficientPrivilege

from ff_cloud.kit.caller import count_open_route, has_caller
from ff_cloud.kit.db import Database
from ff_cloud.kit.limits import RouteClass, RouteLimits, TooOften, class_of
from ff_cloud.kit.origin import Origin
from ff_cloud.testing.whole_app import whole_app
from ff_core.ids import UserId
from ff_core.testing.world import FakeWorld
from ff_core.world import World

ANN, BOB = UserId(UUID(int=0xA)), UserId(UUID(int=0xB))
HERE = Origin(address="192.0.2.1", network="192.0.2.1", user_agent="")
THERE = Origin(address="192.0.2.2", network="192.0.2.2", user_agent="")
RATES = {RouteClass.AUTH: 4, RouteClass.READ: 10, RouteClass.WRITE: 2, RouteClass.STREAM: 0}
PASSWORD = "tangerine lamp over the river"


class Limits(RouteLimits):
    """Counts each request in a transaction of its own."""

    def __init__(self, db: Database, world: World) -> None:
        super().__init__(db, world, RATES)
        self.db = db

    async def ask(self, kind: RouteClass, origin: Origin, user_id: UserId | None) -> None:
        async with self.db.system_transaction() as tx:
            await self.count(tx, kind, origin, user_id)


async def let_in(limits: Limits, times: int, kind: RouteClass, origin: Origin, user_id: UserId | None) -> int:
    """How many of so many requests at once are let in."""
    answers = await asyncio.gather(*(limits.ask(kind, origin, user_id) for _ in range(times)), return_exceptions=True)
    assert all(answer is None or isinstance(answer, TooOften) for answer in answers), answers
    return answers.count(None)


async def test_replicas_count_together_and_time_opens_again(db: Database, postgres) -> None:
    world = FakeWorld()
    async with Database(db.url) as other:
        first, second = Limits(db, world), Limits(other, world)
        passed = await asyncio.gather(*(let_in(each, 12, RouteClass.READ, HERE, ANN) for each in (first, second)))
    assert sum(passed) == 10
    with pytest.raises(TooOften) as caught:
        await first.ask(RouteClass.READ, HERE, ANN)
    assert 0 < caught.value.retry_after_s <= 6
    world.advance(6)
    assert await let_in(first, 3, RouteClass.READ, HERE, ANN) == 1


async def test_accounts_and_classes_do_not_use_up_each_others_share(db: Database) -> None:
    limits = Limits(db, FakeWorld())
    assert await let_in(limits, 5, RouteClass.WRITE, HERE, ANN) == 2
    assert await let_in(limits, 5, RouteClass.WRITE, HERE, BOB) == 2
    assert await let_in(limits, 5, RouteClass.READ, HERE, ANN) == 5
    assert await let_in(limits, 5, RouteClass.STREAM, HERE, ANN) == 5  # 0: no limit


async def test_one_address_has_a_limit_of_its_own_and_another_address_is_free_of_it(db: Database) -> None:
    limits = Limits(db, FakeWorld())
    passed = [await let_in(limits, 2, RouteClass.WRITE, HERE, UserId(UUID(int=number))) for number in range(1, 8)]
    assert sum(passed) == 10  # five accounts' worth
    assert await let_in(limits, 1, RouteClass.WRITE, THERE, UserId(UUID(int=7))) == 1
    assert await let_in(limits, 9, RouteClass.AUTH, HERE, None) == 4


async def test_a_refusal_is_a_429_that_says_when_to_come_back(db: Database) -> None:
    world = FakeWorld()
    async with whole_app(db, world, rate_read=2, rate_auth=3) as app, client_of(app) as http:
        body = {"email": "ann@example.com", "password": PASSWORD}
        token = (await http.post("/v1/auth/signup", json=body)).json()["access_token"]
        bearer = {"Authorization": f"Bearer {token}"}
        answers = [await http.get("/v1/me", headers=bearer) for _ in range(3)]
        assert [answer.status_code for answer in answers] == [200, 200, 429]
        problem = answers[2].json()
        assert (problem["code"], answers[2].headers["retry-after"]) == ("rate_limited", "30")
        assert "`read`" in problem["detail"]
        assert "30 s" in problem["detail"]
        # Without a good credential it is the address that counts, of which sign-up took one.
        wrong = {"Authorization": "Bearer ff_nothing"}
        statuses = [(await http.get("/v1/me", headers=wrong)).status_code for _ in range(3)]
        assert statuses == [401, 401, 429]
        assert (await http.post("/v1/auth/login", json=body)).status_code == 429
        assert (await http.get("/healthz")).status_code == 200
        world.advance(timedelta(minutes=1).total_seconds())
        assert (await http.get("/v1/me", headers=bearer)).status_code == 200


async def test_requests_at_once_are_counted_one_by_one(db: Database) -> None:
    async with whole_app(db, FakeWorld(), rate_read=20, rate_auth=5) as app, client_of(app) as http:
        body = {"email": "ann@example.com", "password": PASSWORD}
        token = (await http.post("/v1/auth/signup", json=body)).json()["access_token"]
        good, wrong = {"Authorization": f"Bearer {token}"}, {"Authorization": "Bearer ff_nothing"}
        answers = await asyncio.gather(*(http.get("/v1/me", headers=headers) for headers in [good, wrong] * 40))
        statuses = Counter(answer.status_code for answer in answers)
        assert statuses == {200: 20, 401: 4, 429: 56}  # sign-up was the fifth without a credential


async def test_who_is_refused_for_his_address_does_not_count_for_his_account(db: Database) -> None:
    world = FakeWorld()
    async with whole_app(db, world, rate_read=2, rate_auth=0) as app, client_of(app) as http:
        people = [await bearer(http, f"user{number}@example.com") for number in range(6)]

        async def ask(who: dict[str, str]) -> list[int]:
            return [(await http.get("/v1/me", headers=who)).status_code for _ in range(2)]

        assert [await ask(who) for who in people] == [[200, 200]] * 5 + [[429, 429]]
        world.advance(12)  # enough for two of the address, not for one of an account
        assert await ask(people[0]) == [429, 429]
        assert await ask(people[5]) == [200, 200]


async def test_a_gate_that_opens_while_it_is_looked_at_lets_through(db: Database) -> None:
    class JustOpened(RouteLimits):
        async def count(self, *_: object) -> None:
            self.asked = True

    async with whole_app(db, FakeWorld(), rate_read=1, rate_auth=0) as app, client_of(app) as http:
        limits = JustOpened(db, FakeWorld(), dict.fromkeys(RouteClass, 1))
        app.state.authenticator._limits = limits
        headers = await bearer(http, "ann@example.com")
        assert [(await http.get("/v1/me", headers=headers)).status_code for _ in range(2)] == [200, 200]
        assert limits.asked


async def test_counting_is_the_systems_alone(db: Database) -> None:
    async with db.transaction(ANN) as tx:
        with pytest.raises(InsufficientPrivilege):
            await tx.fetch("select rate_limits_take(now(), '{a}', '{1s}', '{1s}')", {})


async def test_no_route_is_without_a_limit(db: Database) -> None:
    """By construction: what has a caller counts in it, all else in the dependency of the whole app."""
    async with whole_app(db, FakeWorld()) as app:
        assert count_open_route in {each.dependency for each in app.router.dependencies}
        seen = {"counted by its caller": 0, "counted by address": 0}
        for context in iter_route_contexts(app.routes):
            if context.path == "/openapi.json":
                continue  # made once, without the database
            assert isinstance(context.original_route, APIRoute), context.path
            own = has_caller(context.original_route.dependant)
            everything = {each.call for each in context.dependant.dependencies}
            assert count_open_route in everything, f"{context.path} is not counted"
            seen["counted by its caller" if own else "counted by address"] += 1
        assert min(seen.values()) >= 5


@pytest.mark.parametrize(
    ("method", "path", "expected"),
    [
        ("GET", "/v1/workspaces", RouteClass.READ),
        ("HEAD", "/v1/me", RouteClass.READ),
        ("GET", "/v1/workspaces/x/events", RouteClass.STREAM),
        ("POST", "/v1/workspaces", RouteClass.WRITE),
        ("DELETE", "/v1/me", RouteClass.WRITE),
    ],
)
def test_classes(method: str, path: str, expected: RouteClass) -> None:
    assert class_of(method, path) is expected


async def test_other_origins_get_no_leave_to_read_and_https_is_kept(db: Database) -> None:
    origin = {"Origin": "https://evil.example", "Access-Control-Request-Method": "POST"}
    async with whole_app(db, FakeWorld(), public_url="https://cloud.example.com") as app, client_of(app) as http:
        for answer in (await http.options("/v1/me", headers=origin), await http.get("/v1/me", headers=origin)):
            assert not [name for name in answer.headers if name.startswith("access-control-")]
            assert answer.headers["strict-transport-security"].startswith("max-age=31536000")
    async with whole_app(db, FakeWorld()) as app, client_of(app) as http:
        assert "strict-transport-security" not in (await http.get("/healthz")).headers


async def bearer(http: httpx2.AsyncClient, email: str) -> dict[str, str]:
    answer = await http.post("/v1/auth/signup", json={"email": email, "password": PASSWORD})
    return {"Authorization": f"Bearer {answer.json()['access_token']}"}


def client_of(app) -> httpx2.AsyncClient:
    return httpx2.AsyncClient(transport=httpx2.ASGITransport(app, client=("192.0.2.1", 4000)), base_url="http://cloud")
