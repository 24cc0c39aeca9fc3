"""One id, and one trace, from a request through the operation it orders to the daemon that is called for it."""

import asyncio
import io
import json
import logging
import sys
from contextlib import asynccontextmanager, suppress

import httpx2
import pytest
import structlog
from fastapi import APIRouter
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from ff_cloud.kit import correlation
from ff_cloud.kit.http import Db
from ff_cloud.kit.http_server import listen, serving
from ff_cloud.kit.telemetry import Telemetry, configure_logging
from ff_cloud.kit.tracing import UNTRACED, open_tracing, traces_url
from ff_cloud.operations import service
from ff_cloud.operations.engine import Operations
from ff_cloud.operations.errors import Fatal
from ff_cloud.operations.model import Effects, Kind, Step
from ff_cloud.testing.accounts import accounts_app
from ff_cloud.testing.engine import FakeEngine
from ff_cloud.vms.daemon_client import DaemonClient
from ff_cloud.vms.daemon_http import DaemonHttp
from ff_cloud.vms.errors import DockerUnreachable
from ff_cloud.vms.traced import TracedDaemonHttp, traced
from ff_core.ids import OperationId, VmId
from ff_core.world import SystemWorld

WORLD = SystemWorld()
TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
PARENT = f"00-{TRACE}-00f067aa0ba902b7-01"

router = APIRouter()


@router.post("/acts/{name}")
async def act(db: Db, name: str):
    async with db.system_transaction() as tx:
        id_ = await service.start(tx, "act", key=name, user_id=None, input={"name": name}, world=WORLD)
    structlog.get_logger("test").info("act.ordered", name=name)
    return {"id": str(id_)}


@asynccontextmanager
async def serve(app, name):
    async with serving(app, listen("127.0.0.1", 0, "FF_PORT"), shutdown_s=1, name=name) as address:
        yield address


class Daemon:
    """Answers nothing of use; keeps the headers it was sent."""

    def __init__(self):
        self.heard = []

    async def answer(self, request: Request) -> Response:
        self.heard.append(dict(request.headers))
        return JSONResponse([])

    def app(self):
        return Starlette(routes=[Route("/v1/sessions", self.answer)])


class CallsDaemon(Step):
    name = "call"

    def __init__(self, client, engine):
        self._client = client
        self._engine = engine

    async def do(self, op):
        await self._engine.observe(VmId(WORLD.new_id()))
        await self._client.sessions()
        return Effects()


class Fails(Step):
    name = "fail"

    async def do(self, op):
        raise Fatal("broken", f"What {op.input['name']} wrote is a secret.")


class Receiver:
    """An OTLP/HTTP receiver; keeps the spans it was sent."""

    def __init__(self):
        self.spans = []
        self.services = set()

    async def take(self, request: Request) -> Response:
        assert request.headers["content-type"] == "application/x-protobuf"
        sent = ExportTraceServiceRequest.FromString(await request.body())
        for resource in sent.resource_spans:
            self.services |= {each.value.string_value for each in resource.resource.attributes if each.key == "service.name"}
            self.spans += [span for scope in resource.scope_spans for span in scope.spans]
        return Response(media_type="application/x-protobuf")

    def app(self):
        return Starlette(routes=[Route("/v1/traces", self.take, methods=["POST"])])

    def named(self, name):
        (found,) = [span for span in self.spans if span.name == name]
        return found


@asynccontextmanager
async def stage(db, tracing, *more_steps):
    """API, worker and daemon; yields an HTTP client, a wait for operations, and the daemon."""
    daemon, telemetry = Daemon(), Telemetry.build(WORLD, tracing)
    app = accounts_app(db, WORLD, routers=(router,), telemetry=telemetry)
    http_of_daemons = TracedDaemonHttp(tracing) if tracing.on else DaemonHttp()
    async with serve(daemon.app(), "daemon") as address, serve(app, "api") as api, http_of_daemons as pool:
        host, port = address.removeprefix("http://").split(":")
        client = DaemonClient(host, int(port), "a-token", 1, pool)
        engine = traced(FakeEngine(), tracing)
        kind = Kind(name="act", steps=[CallsDaemon(client, engine), *more_steps])
        operations = Operations(db, [kind], WORLD, metrics=telemetry.metrics.operations, tracing=tracing)
        working = asyncio.create_task(operations.work())
        try:
            async with httpx2.AsyncClient(base_url=api, trust_env=False) as http:
                yield http, operations, daemon, telemetry
        finally:
            working.cancel()
            with suppress(asyncio.CancelledError):
                await working


@pytest.fixture
def logged(monkeypatch):
    """The log lines as they are written."""
    root = logging.getLogger()
    before = root.handlers[:], root.level, structlog.get_config()
    stream = io.StringIO()
    monkeypatch.setattr(sys, "stderr", stream)
    configure_logging("json")
    yield lambda: [json.loads(line) for line in stream.getvalue().splitlines()]
    root.handlers = before[0]
    root.setLevel(before[1])
    structlog.configure(**before[2])
    logging.getLogger("uvicorn.access").disabled = False


async def test_one_id_from_the_request_to_the_operation_to_the_daemon(db, logged):
    async with stage(db, UNTRACED) as (http, operations, daemon, _):
        answer = await http.post("/acts/w", headers={"X-Request-Id": "my-id.7"})
        op = await operations.wait(OperationId(answer.json()["id"]))
    assert answer.headers["x-request-id"] == "my-id.7"
    assert op.request_id == "my-id.7"
    assert [heard["x-request-id"] for heard in daemon.heard] == ["my-id.7"]
    assert "traceparent" not in daemon.heard[0]
    events = {line["event"] for line in logged() if line.get("request_id") == "my-id.7"}
    assert {"act.ordered", "http.request", "operation.settled"} <= events
    assert correlation.request_id() is None


async def test_an_id_of_our_own_is_as_good(db, logged):
    async with stage(db, UNTRACED) as (http, operations, daemon, _):
        answer = await http.post("/acts/w", headers={"X-Request-Id": "not good!"})
        await operations.wait(OperationId(answer.json()["id"]))
    given = answer.headers["x-request-id"]
    assert len(given) == 32
    assert daemon.heard[0]["x-request-id"] == given


async def test_what_the_server_orders_by_itself_has_the_id_of_its_operation(db, logged):
    async with stage(db, UNTRACED) as (_, operations, daemon, _telemetry):
        async with db.system_transaction() as tx:
            id_ = await service.start(tx, "act", key="w", user_id=None, input={}, world=WORLD)
        op = await operations.wait(id_)
    assert op.request_id is None
    assert daemon.heard[0]["x-request-id"] == f"operation-{id_}"


async def test_operations_are_counted_by_step_and_outcome(db):
    async with stage(db, UNTRACED, Fails()) as (http, operations, _, telemetry):
        answer = await http.post("/acts/w")
        await operations.wait(OperationId(answer.json()["id"]))
        value = telemetry.metrics.registry.get_sample_value
        async with asyncio.timeout(10):
            while not value("ff_operations_total", {"kind": "act", "outcome": "undone"}):
                await asyncio.sleep(0.01)

    def attempts(step, outcome):
        return value("ff_operation_attempts_total", {"kind": "act", "step": step, "outcome": outcome})

    assert (attempts("call", "done"), attempts("call", "undone"), attempts("fail", "failed")) == (1, 1, 1)
    assert attempts("fail", "undone") == 1
    assert value("ff_operation_duration_seconds_count", {"kind": "act"}) == 1
    route = {"method": "POST", "route": "/acts/{name}"}
    assert value("ff_http_requests_total", route | {"status": "2xx"}) == 1
    assert value("ff_http_request_duration_seconds_count", route) == 1
    assert value("ff_http_requests_total", {"method": "other", "route": "other", "status": "2xx"}) == 0


async def test_one_trace_from_the_client_to_the_daemon(db):
    receiver = Receiver()
    async with (
        serve(receiver.app(), "otlp") as address,
        open_tracing(address, version="7") as tracing,
        stage(db, tracing, Fails()) as (http, operations, daemon, _),
    ):
        answer = await http.post("/acts/w", headers={"traceparent": PARENT, "X-Request-Id": "my-id"})
        op = await operations.wait(OperationId(answer.json()["id"]))
        await http.get("/nowhere")
    assert receiver.services == {"ff-cloud"}
    mine = {span.name: span for span in receiver.spans if span.trace_id.hex() == TRACE}
    request, step, call, docker = (
        mine[name] for name in ("POST /acts/{name}", "act call", "daemon GET /v1/sessions", "docker observe")
    )
    assert request.parent_span_id.hex() == PARENT.split("-")[2]
    assert step.parent_span_id == request.span_id
    assert call.parent_span_id == docker.parent_span_id == step.span_id
    assert daemon.heard[0]["traceparent"] == f"00-{TRACE}-{call.span_id.hex()}-01"
    assert op.input["traceparent"] == f"00-{TRACE}-{request.span_id.hex()}-01"
    facts = {each.key: each.value for each in request.attributes}
    assert facts["ff.request_id"].string_value == "my-id"
    assert facts["http.route"].string_value == "/acts/{name}"
    assert facts["http.response.status_code"].int_value == 200
    # Failures are told by their code: sentences may quote what users wrote.
    assert (mine["act fail"].status.code, mine["act fail"].status.message) == (2, "operation_failed")
    assert b"secret" not in b"".join(span.SerializeToString() for span in receiver.spans)
    # Another request is another trace.
    assert receiver.named("GET").trace_id.hex() != TRACE


async def test_a_traceparent_that_is_none_begins_a_new_trace(db):
    receiver = Receiver()
    async with (
        serve(receiver.app(), "otlp") as address,
        open_tracing(address, version="7") as tracing,
        stage(db, tracing) as (http, _, _daemon, _telemetry),
    ):
        for odd in ("00-" + "0" * 32 + "-" + "0" * 16 + "-01", "x" * 5000, "00-zz-zz-01"):
            assert (await http.get("/nowhere", headers={"traceparent": odd})).status_code == 404
    assert len({span.trace_id for span in receiver.spans}) == 3
    assert {span.parent_span_id for span in receiver.spans} == {b""}


async def test_a_receiver_that_is_away_holds_nobody_up(db):
    async with open_tracing("http://127.0.0.1:1", version="7") as tracing, stage(db, tracing) as (http, operations, _, _t):
        answer = await http.post("/acts/w")
        op = await operations.wait(OperationId(answer.json()["id"]))
    assert (answer.status_code, op.status) == (200, "done")


async def test_without_an_endpoint_nothing_is_traced_and_nothing_imported(monkeypatch):
    for name in ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT"):
        monkeypatch.delenv(name, raising=False)
    async with open_tracing(None, version="7") as tracing:
        assert tracing is UNTRACED
        engine = FakeEngine()
        assert traced(engine, tracing) is engine
        with tracing.span("x") as span:
            span.rename("y")
            span.note({"a": 1})
            span.failed("z")
            assert correlation.traceparent() is None
    modules = "ff_cloud.kit.http, ff_cloud.operations.engine, ff_cloud.vms.traced"
    code = f"import sys, {modules}; print('opentelemetry.sdk' in sys.modules)"
    process = await asyncio.create_subprocess_exec(sys.executable, "-c", code, stdout=asyncio.subprocess.PIPE)
    out, _ = await process.communicate()
    assert out == b"False\n"


async def test_a_traced_engine_is_the_engine(db):
    async with serve(Receiver().app(), "otlp") as address, open_tracing(address, version="7") as tracing:
        real = FakeEngine()
        real.misbehave("observe_all", DockerUnreachable())
        engine = traced(real, tracing)
        with pytest.raises(DockerUnreachable):
            await engine.observe_all()
        assert await engine.observe_all() == []
        assert engine.calls is real.calls
        events = engine.events()
        await events.aclose()


@pytest.mark.parametrize(
    ("endpoint", "environment", "url"),
    [
        (None, {}, None),
        ("http://o:4318", {}, "http://o:4318/v1/traces"),
        ("http://o:4318/", {"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://p/x"}, "http://o:4318/v1/traces"),
        (None, {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://p:4318"}, "http://p:4318/v1/traces"),
        (None, {"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://p/x", "OTEL_EXPORTER_OTLP_ENDPOINT": "http://q"}, "http://p/x"),
    ],
)
def test_where_spans_go(endpoint, environment, url):
    assert traces_url(endpoint, environment) == url
