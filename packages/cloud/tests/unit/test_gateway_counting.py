"""What the gateway passes is counted by where it leads, how it ended, and how much it was each way."""

import httpx2
import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route

from ff_cloud.gateway.counting import Counted, upstream_of
from ff_cloud.kit.metrics import Metrics


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("/anthropic/v1/messages", "model"),
        ("/git/https/github.com/a/b.git/info/refs", "git"),
        ("/github-api/repos/a/b/pulls", "github"),
        ("/gitignore", "other"),
        ("/api/hello", "other"),
        ("/", "other"),
    ],
)
def test_where_a_request_leads(path, kind):
    assert upstream_of(path) == kind


async def echo(request: Request) -> Response:
    body = await request.body()
    return Response(body * 2, status_code=201)


async def breaks(_request: Request) -> Response:
    async def pieces():
        yield b"1234"
        raise RuntimeError("in the middle")

    return StreamingResponse(pieces())


@pytest.fixture
async def counted():
    metrics = Metrics.build()
    app = Starlette(routes=[Route("/git/{rest:path}", echo, methods=["POST"]), Route("/anthropic/breaks", breaks)])
    transport = httpx2.ASGITransport(Counted(app, metrics.gateway), raise_app_exceptions=False)
    async with httpx2.AsyncClient(transport=transport, base_url="http://gateway") as http:

        def value(name, **labels):
            return metrics.registry.get_sample_value(f"ff_gateway_{name}_total", labels)

        yield http, value


async def test_bytes_each_way(counted):
    http, value = counted
    for _ in range(2):
        await http.post("/git/x", content=b"12345")
    assert value("requests", upstream="git", status="2xx") == 2
    assert value("bytes", upstream="git", status="2xx", direction="from_vm") == 10
    assert value("bytes", upstream="git", status="2xx", direction="to_vm") == 20
    assert value("requests", upstream="model", status="2xx") == 0


async def test_an_answer_that_breaks_off_is_counted_as_far_as_it_came(counted):
    http, value = counted
    await http.get("/anthropic/breaks")
    assert value("requests", upstream="model", status="2xx") == 1
    assert value("bytes", upstream="model", status="2xx", direction="to_vm") == 4


async def test_refusals_are_counted_too(counted):
    http, value = counted
    await http.get("/git/x")
    assert value("requests", upstream="git", status="4xx") == 1
