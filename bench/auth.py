"""What authentication costs: a request by token and by API key, a rate limit, row-level security on and off, logins a second.

The whole app in this process over a real PostgreSQL, one request at a time, so that no number holds
a queue; logins four at a time.
"""

import asyncio
import sys
import time
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from uuid import uuid4  # noqa: TID251  (names users of the benchmark)

import httpx2
from bench.budgets import AUTH
from bench.report import Row, publish
from sqlalchemy import text

from ff_cloud.auth.setup import rates_of
from ff_cloud.kit.db import Database
from ff_cloud.kit.limits import RouteClass, RouteLimits
from ff_cloud.kit.origin import Origin
from ff_cloud.kit.telemetry import configure_logging
from ff_cloud.settings import CloudSettings
from ff_cloud.testing.postgres import PostgresForTests, postgres_for_tests
from ff_cloud.testing.whole_app import whole_app
from ff_core.ids import UserId
from ff_core.world import SystemWorld

ROUNDS = 300
LOGINS = 40
LOGINS_AT_ONCE = 4
TENANTS = 200
ROWS = 100
ACCOUNT = {"email": "ann@example.com", "password": "tangerine lamp over the river"}
SCOPES = ["account:read"]
HERE = Origin(address="192.0.2.1", network="192.0.2.1", user_agent="")
MINE = text("select count(*) from operations where user_id = :user")
FILL = text("""
    insert into operations (id, user_id, kind, key, input, cancellable, status)
    select gen_random_uuid(), u, 'bench', 'k' || u || n, '{}', false, 'done'
    from unnest(cast(:users as uuid[])) u, generate_series(1, :rows) n
""")


async def timed(act: Callable[[], Awaitable[object]], rounds: int = ROUNDS) -> list[float]:
    """Milliseconds of each of so many calls, after some that are not counted."""
    for _ in range(20):
        await act()
    samples = []
    for _ in range(rounds):
        began = time.perf_counter()
        await act()
        samples.append((time.perf_counter() - began) * 1000)
    return samples


async def of_requests(db: Database) -> list[Row]:
    """Requests through the whole app, and logins."""
    settings = CloudSettings(rate_auth=0, rate_read=10**6)
    async with AsyncExitStack() as stack:
        app = await stack.enter_async_context(whole_app(db, SystemWorld(), rate_auth=0, rate_read=10**6))
        transport = httpx2.ASGITransport(app)
        http = await stack.enter_async_context(httpx2.AsyncClient(transport=transport, base_url="http://cloud"))
        token = (await http.post("/v1/auth/signup", json=ACCOUNT)).json()["access_token"]
        by_token = {"Authorization": f"Bearer {token}"}
        wanted = {"name": "bench", "scopes": SCOPES, "expires_in_days": 1}
        key = (await http.post("/v1/api-keys", json=wanted, headers=by_token)).json()["key"]

        async def get(path: str, headers: dict[str, str]) -> None:
            (await http.get(path, headers=headers)).raise_for_status()

        limits = RouteLimits(db, SystemWorld(), rates_of(settings))
        user_id = UserId(uuid4())

        async def admit(credential: str) -> None:
            await app.state.authenticator.admit(credential, RouteClass.READ, HERE)

        async def count() -> None:
            async with db.system_transaction() as tx:
                await limits.count(tx, RouteClass.READ, HERE, user_id)

        rows = [
            Row("request without authentication", "ms", await timed(lambda: get("/healthz", {}))),
            Row("GET /v1/me by access token", "ms", await timed(lambda: get("/v1/me", by_token))),
            Row("GET /v1/me by API key", "ms", await timed(lambda: get("/v1/me", {"Authorization": f"Bearer {key}"}))),
            Row("authentication by access token", "ms", await timed(lambda: admit(token)), AUTH.token_ms_max),
            Row("authentication by API key", "ms", await timed(lambda: admit(key)), AUTH.api_key_ms_max),
            Row("rate limit alone", "ms", await timed(count), AUTH.limit_ms_max),
        ]

        async def logins() -> None:
            for _ in range(LOGINS // LOGINS_AT_ONCE):
                answer = await http.post("/v1/auth/login", json=ACCOUNT)
                answer.raise_for_status()

        began = time.perf_counter()
        await asyncio.gather(*(logins() for _ in range(LOGINS_AT_ONCE)))
        each_ms = (time.perf_counter() - began) * 1000 / LOGINS
        return [*rows, Row(f"one of {LOGINS_AT_ONCE} logins at once", "ms", [each_ms], AUTH.login_ms_max)]


async def of_rls(postgres: PostgresForTests, db: Database) -> list[Row]:
    """The same query as the application's role, and as a superuser, whom no policy binds."""
    users = [uuid4() for _ in range(TENANTS)]
    async with db.system_transaction() as tx:
        await tx.execute(FILL, {"users": users, "rows": ROWS})
    mine = UserId(users[0])

    async def bound() -> None:
        async with db.transaction(mine) as tx:
            assert await tx.scalar(MINE, {"user": mine}) == ROWS

    async with Database(postgres.admin_url(db.url)) as admin, admin.login_connection() as connection:

        async def free() -> None:
            await connection.execute(text("select 1"))  # what opening a transaction asks
            assert await connection.scalar(MINE, {"user": mine}) == ROWS
            await connection.commit()

        await connection.execute(text("analyze operations"))
        await connection.commit()
        off = await timed(free)
        on = await timed(bound)
    return [Row("query without row-level security", "ms", off), Row("query with row-level security", "ms", on)]


async def measure(postgres: PostgresForTests) -> list[Row]:
    """All rows."""
    async with postgres.database() as db:
        return await of_requests(db) + await of_rls(postgres, db)


def main() -> int:
    """Measure and publish."""
    configure_logging("json", level=40)
    with postgres_for_tests() as postgres:
        rows = asyncio.run(measure(postgres))
    return publish("auth", rows)


if __name__ == "__main__":
    sys.exit(main())
