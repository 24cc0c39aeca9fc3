"""A seed on its way to a daemon: as slowly as that one takes it, and whatever goes wrong is an error of ours."""

import asyncio
from contextlib import aclosing, asynccontextmanager
from urllib.parse import urlsplit

import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from ff_cloud.vms.daemon_client import DaemonClient, VmUnreachable
from ff_cloud.vms.daemon_http import DaemonHttp
from ff_core.contract.problem import RemoteProblem
from ff_core.git.seed import SeedRefused
from ff_core.testing.serve import serving

MIB = 1 << 20


@asynccontextmanager
async def daemon(handler):
    app = Starlette(routes=[Route("/v1/repository/seed", handler, methods=["PUT"])])
    async with serving(app) as url, DaemonHttp() as http:
        at = urlsplit(url)
        yield DaemonClient(at.hostname, at.port, "t0ken", 4, http)


async def test_all_of_it_comes_with_token_and_generation():
    got = bytearray()

    async def take(request: Request) -> Response:
        assert request.headers["authorization"] == "Bearer t0ken"
        assert request.headers["ff-generation"] == "4"
        assert request.headers["content-type"] == "application/octet-stream"
        async for chunk in request.stream():
            got.extend(chunk)
        return JSONResponse({"url": "https://example.com/r", "size_bytes": 1, "took_ms": 1.0})

    async def stream():
        for number in range(5):
            yield bytes([number]) * 100_000

    async with daemon(take) as client:
        assert (await client.seed(stream())).url == "https://example.com/r"
    assert bytes(got) == b"".join(bytes([number]) * 100_000 for number in range(5))


async def test_a_daemon_that_takes_it_slowly_slows_it_down():
    go, sent = asyncio.Event(), 0

    async def take(request: Request) -> Response:
        await go.wait()
        async for _ in request.stream():
            pass
        return JSONResponse({"url": "https://example.com/r", "size_bytes": 1, "took_ms": 1.0})

    async def stream():
        nonlocal sent
        for _ in range(200):
            sent += 1
            yield bytes(MIB)

    async with daemon(take) as client:
        sending = asyncio.create_task(client.seed(stream()))
        before = -1
        while sent != before:  # until it stands still
            before = sent
            await asyncio.sleep(0.3)
        assert 0 < sent < 50
        go.set()
        await sending
    assert sent == 200


async def test_a_refusal_keeps_the_daemons_words_also_before_all_was_sent():
    async def refuse(request: Request) -> Response:
        async for _ in request.stream():
            break
        problem = {"title": "x", "status": 422, "code": "seed_refused", "detail": "This is none."}
        return JSONResponse(problem, 422, media_type="application/problem+json")

    closed = 0

    async def stream(pieces: int):
        nonlocal closed
        try:
            for _ in range(pieces):
                yield bytes(MIB)
        finally:
            closed += 1

    async with daemon(refuse) as client:
        with pytest.raises(RemoteProblem, match="This is none"):
            await client.seed(stream(1))
        # When much is left the connection may be cut before the words are read.
        with pytest.raises((RemoteProblem, VmUnreachable)):
            await client.seed(stream(100))
    while closed < 2:
        await asyncio.sleep(0.01)


async def test_a_stream_that_breaks_never_looks_whole():
    whole = []

    async def take(request: Request) -> Response:
        async for _ in request.stream():
            pass
        whole.append(True)
        return JSONResponse({"url": "https://example.com/r", "size_bytes": 1, "took_ms": 1.0})

    async def stream():
        yield b"x" * 1000
        raise SeedRefused

    async with daemon(take) as client, aclosing(stream()) as broken:
        with pytest.raises(VmUnreachable):
            await client.seed(broken)
    assert not whole
