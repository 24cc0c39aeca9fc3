"""The same over a real server and socket: what a test transport can't show."""

import asyncio
import json
import socket

import httpx2
import pytest

from ff_cloud.kit.db import Database
from ff_cloud.kit.http_server import PortTaken, listen, serving
from ff_cloud.testing.accounts import accounts_app
from ff_core.world import SystemWorld

LIMIT = 2000
ALICE = {"email": "alice@example.com", "password": "tangerine lamp over the river"}


@pytest.fixture
async def address(db):
    app = accounts_app(db, SystemWorld(), body_bytes_max=LIMIT)
    listener = listen("127.0.0.1", 0, "FF_PORT")
    async with serving(app, listener, shutdown_s=10, name="api"):
        yield listener.getsockname()


async def raw(address, request, *, pieces=()):
    """Send bytes, read until the server closes or has answered in full."""
    reader, writer = await asyncio.open_connection(*address)
    try:
        async with asyncio.timeout(10):
            writer.write(request)
            for piece in pieces:
                writer.write(piece)
            head = await reader.readuntil(b"\r\n\r\n")
            length = int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0])
            return int(head.split()[1]), head, json.loads(await reader.readexactly(length))
    finally:
        writer.close()


async def test_sign_up_and_me(address):
    async with httpx2.AsyncClient(base_url=f"http://{address[0]}:{address[1]}", trust_env=False) as http:
        token = (await http.post("/v1/auth/signup", json=ALICE)).json()["access_token"]
        me = await http.get("/v1/me", headers={"Authorization": f"Bearer {token}"})
        assert me.json()["email"] == "alice@example.com"


async def test_a_huge_declared_body_is_refused_before_it_is_sent(address):
    head = b"POST /v1/auth/login HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 99999999999\r\n\r\n"
    status, headers, body = await raw(address, head)
    assert (status, body["code"]) == (413, "body_too_large")
    assert b"connection: close" in headers.lower()


async def test_an_endless_chunked_body_is_refused_at_the_limit(address):
    head = b"POST /v1/auth/login HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n"
    status, _, body = await raw(address, head, pieces=[b"64\r\n" + b"x" * 100 + b"\r\n"] * 25)
    assert (status, body["code"]) == (413, "body_too_large")


async def test_without_a_database_the_answer_is_a_sentence():
    async with Database("postgresql://nobody@127.0.0.1:1/none", connect_timeout_s=2) as away:
        app = accounts_app(away, SystemWorld())
        async with httpx2.AsyncClient(transport=httpx2.ASGITransport(app), base_url="http://cloud") as http:
            answer = await http.post("/v1/auth/login", json=ALICE)
        assert (answer.status_code, answer.json()["code"]) == (503, "database_unavailable")
        assert "127.0.0.1" not in answer.text


async def test_small_pieces_are_sent_at_once():
    """Else the second piece of an answer waits 40 ms for the client's acknowledgement of the first."""
    sockets = []
    accepted = asyncio.Event()

    class Peer(asyncio.Protocol):
        def connection_made(self, transport):
            sockets.append(transport.get_extra_info("socket"))
            accepted.set()

    loop = asyncio.get_running_loop()
    for host in ("127.0.0.1", "::1"):
        accepted.clear()
        async with await loop.create_server(Peer, sock=listen(host, 0, "FF_PORT")) as server:
            _, writer = await asyncio.open_connection(*server.sockets[0].getsockname()[:2])
            await accepted.wait()
            assert sockets[-1].getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
            writer.close()
            await writer.wait_closed()


def test_a_port_that_is_taken_is_told_with_the_setting_to_change():
    with listen("127.0.0.1", 0, "FF_PORT") as first:
        first.listen()
        with pytest.raises(PortTaken, match="FF_GATEWAY_PORT"):
            listen("127.0.0.1", first.getsockname()[1], "FF_GATEWAY_PORT")
