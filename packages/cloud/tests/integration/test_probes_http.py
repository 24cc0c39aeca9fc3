"""/healthz, /readyz and /metrics as they are asked for, over real sockets and a real database."""

import asyncio
from contextlib import asynccontextmanager

import httpx2
import pytest
from pydantic import SecretStr
from sqlalchemy import text

from ff_cloud.kit.db import Database
from ff_cloud.kit.http_server import listen, serving
from ff_cloud.kit.telemetry import Telemetry
from ff_cloud.operations import service
from ff_cloud.operations.census import Census
from ff_cloud.probes.access import MetricsAccess
from ff_cloud.probes.app import make_probes
from ff_cloud.probes.checks import (
    DUE_AGE_S_MAX,
    database_check,
    docker_check,
    gateway_check,
    loops_check,
    operations_check,
)
from ff_cloud.testing.engine import FakeEngine
from ff_cloud.vms.errors import DockerUnreachable
from ff_core.errors import TimedOut
from ff_core.testing.world import FakeWorld
from ff_core.world import SystemWorld

TOKEN = "a-token-of-sixteen-or-more"


@pytest.fixture
def world():
    return FakeWorld()


@pytest.fixture
def telemetry(world):
    return Telemetry.build(world)


@asynccontextmanager
async def probes(telemetry, *, token=None, published=False):
    access = MetricsAccess(SecretStr(token) if token else None, published)
    app = make_probes(telemetry=telemetry, access=access, world=SystemWorld())
    async with (
        serving(app, listen("127.0.0.1", 0, "FF_METRICS_PORT"), shutdown_s=1, name="probes") as address,
        httpx2.AsyncClient(base_url=address, trust_env=False) as http,
    ):
        yield http


async def ready(telemetry, world):
    """The report, never an old one."""
    world.advance(2)
    return {check.name: check for check in (await telemetry.readiness.report()).checks}


async def test_the_process_lives(telemetry):
    async with probes(telemetry) as http:
        answer = await http.get("/healthz")
        assert (answer.status_code, answer.json()["status"]) == (200, "ok")


async def test_metrics_are_prometheus_text(telemetry):
    async with probes(telemetry) as http:
        answer = await http.get("/metrics")
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
    assert "# TYPE ff_pool_hits_total counter\nff_pool_hits_total 0.0\n" in answer.text


@pytest.mark.parametrize("header", ["X-Forwarded-For", "Forwarded", "Via", "X-Real-IP"])
async def test_a_proxy_on_this_machine_brings_nobody_in(telemetry, header):
    async with probes(telemetry) as http:
        answer = await http.get("/metrics", headers={header: "203.0.113.7"})
    assert (answer.status_code, answer.json()["code"]) == (403, "metrics_refused")


async def test_a_published_server_asks_for_the_token_even_here(telemetry):
    async with probes(telemetry, published=True) as http:
        assert (await http.get("/metrics")).status_code == 403


async def test_with_a_token_only_who_shows_it(telemetry):
    async with probes(telemetry, token=TOKEN, published=True) as http:
        assert (await http.get("/metrics")).status_code == 403
        for wrong in (f"Bearer {TOKEN}x", f"Basic {TOKEN}", "Bearer", TOKEN):
            assert (await http.get("/metrics", headers={"Authorization": wrong})).status_code == 403
        right = {"Authorization": f"Bearer {TOKEN}", "X-Forwarded-For": "203.0.113.7"}
        assert (await http.get("/metrics", headers=right)).status_code == 200


@pytest.mark.parametrize(
    ("peer", "may"),
    [
        ("127.0.0.1", True),
        ("127.8.8.8", True),
        ("::1", True),
        ("::ffff:127.0.0.1", True),
        ("10.0.0.1", False),
        ("203.0.113.7", False),
        ("::ffff:10.0.0.1", False),
        (None, False),
        ("nonsense", False),
    ],
)
async def test_this_machine_and_no_other(telemetry, peer, may):
    app = make_probes(telemetry=telemetry, access=MetricsAccess(None, published=False), world=SystemWorld())
    transport = httpx2.ASGITransport(app, client=(peer, 1) if peer else ("", 0))
    async with httpx2.AsyncClient(transport=transport, base_url="http://x") as http:
        assert ((await http.get("/metrics")).status_code == 200) is may


async def test_readyz_names_what_is_ill_and_answers_503(telemetry, world):
    listens = asyncio.Event()
    with telemetry.readiness.including(gateway_check(listens, lambda: None)):
        async with probes(telemetry) as http:
            answer = await http.get("/readyz")
            assert answer.status_code == 503
            assert answer.json() == {
                "status": "unready",
                "checks": [{"name": "gateway", "ok": False, "required": True, "detail": "does not listen yet"}],
            }
            listens.set()
            world.advance(2)
            answer = await http.get("/readyz")
            assert (answer.status_code, answer.json()["status"]) == (200, "ready")


async def test_a_gateway_that_can_not_listen_says_why(telemetry, world):
    with telemetry.readiness.including(gateway_check(asyncio.Event(), lambda: TimedOut("The port is taken."))):
        assert (await ready(telemetry, world))["gateway"].detail == "does not listen yet: The port is taken."


async def test_a_database_that_answers_and_is_up_to_date(db, telemetry, world):
    with telemetry.readiness.including(database_check(db)):
        found = (await ready(telemetry, world))["database"]
    assert (found.ok, found.detail) == (True, "answers and is up to date")


async def test_a_database_that_is_behind_is_not_ready_and_a_newer_one_is(db, telemetry, world):
    with telemetry.readiness.including(database_check(db)):
        for at, ok, words in (("0001", False, "run `ff-cloud migrate`"), ("9999", True, "newer than this program")):
            async with db.login_connection() as connection:
                await connection.execute(text("set local role ff_owner"))
                await connection.execute(text("update alembic_version set version_num = :at"), {"at": at})
                await connection.commit()
            found = (await ready(telemetry, world))["database"]
            assert (found.ok, words in found.detail) == (ok, True), found


async def test_a_database_that_is_away_is_not_ready(telemetry, world):
    async with Database("postgresql://nobody@127.0.0.1:1/none", connect_timeout_s=2) as away:
        with telemetry.readiness.including(database_check(away)):
            found = (await ready(telemetry, world))["database"]
    assert (found.ok, found.required) == (False, True)
    assert "127.0.0.1" not in found.detail


async def test_a_loop_that_keeps_failing_is_not_ready_until_it_works_again(telemetry, world):
    pulse = telemetry.heartbeats.pulse("sweep", every_s=30)
    with telemetry.readiness.including(loops_check(telemetry.heartbeats, world)):
        assert (await ready(telemetry, world))["loop sweep"].ok
        for _ in range(3):
            pulse.failed(TimedOut())
        found = (await ready(telemetry, world))["loop sweep"]
        assert (found.ok, found.required, found.detail) == (False, True, "failed 3 times in a row, last with timed_out")
        pulse.ok()
        assert (await ready(telemetry, world))["loop sweep"].ok


async def test_without_docker_the_process_is_degraded_and_serves_on(telemetry, world):
    engine = FakeEngine("image:1")
    pulse = telemetry.heartbeats.pulse("reconcile", every_s=30)
    with telemetry.readiness.including(docker_check(engine, "image:1"), loops_check(telemetry.heartbeats, world)):
        assert (await ready(telemetry, world))["docker"].ok
        engine.misbehave("check", DockerUnreachable())
        for _ in range(3):
            pulse.failed(DockerUnreachable())
        world.advance(2)
        report = await telemetry.readiness.report()
    assert report.status == "degraded"
    assert [(check.name, check.ok, check.required) for check in report.checks] == [
        ("docker", False, False),
        ("loop reconcile", False, False),
    ]


async def test_an_image_that_is_missing_is_told(telemetry, world):
    with telemetry.readiness.including(docker_check(FakeEngine(), "image:1")):
        found = (await ready(telemetry, world))["docker"]
    assert (found.ok, "ff-cloud image build" in found.detail) == (False, True)


async def test_operations_that_nobody_takes_on_are_told_by_their_age(db, telemetry, world):
    census = Census(db=db, metrics=telemetry.metrics.operations, world=world)
    with telemetry.readiness.including(operations_check(census)):
        async with db.system_transaction() as tx:
            await service.start(tx, "k", key="w", user_id=None, input={}, world=SystemWorld())
            await service.start(tx, "k", key="later", user_id=None, input={}, world=SystemWorld(), delay_s=600)
        await census.once()
        assert (await ready(telemetry, world))["operations"].detail == "1 wait for a worker"
        async with db.system_transaction() as tx:
            older = text("update operations set run_at = run_at - make_interval(secs => :s) where key = 'w'")
            await tx.execute(older, {"s": DUE_AGE_S_MAX + 5})
        await census.once()
        found = (await ready(telemetry, world))["operations"]
        assert (found.ok, found.required) == (False, True)
        value = telemetry.metrics.registry.get_sample_value
        assert value("ff_operations_due") == 1
        assert DUE_AGE_S_MAX + 5 <= value("ff_operations_due_age_seconds") < DUE_AGE_S_MAX + 60


async def test_one_that_a_worker_holds_waits_for_nobody(db):
    async with db.system_transaction() as tx:
        await service.start(tx, "k", key="w", user_id=None, input={}, world=SystemWorld())
        await tx.execute(text("update operations set lease_until = clock_timestamp() + interval '1 minute', status = 'running'"))
        assert await service.due(tx) == (0, 0.0)
        await tx.execute(text("update operations set lease_until = clock_timestamp() - interval '30 seconds'"))
        waiting, age_s = await service.due(tx)
    assert waiting == 1
    assert 0 <= age_s < 31


async def test_connections_in_use_are_counted(db):
    assert db.connections_in_use == 0
    async with db.system_transaction():
        assert db.connections_in_use == 1
    assert db.connections_in_use == 0
    assert db.connections_max == 10
