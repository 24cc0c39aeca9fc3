"""The daemon's own HTTP, byte by byte: a real server on loopback, an application that the test decides."""

import asyncio
import contextlib
import os
import signal
import socket
from collections.abc import AsyncGenerator, Awaitable, Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ff_core.contract import daemon as contract
from ff_core.daemon.connection import Patience
from ff_core.daemon.http import BUFFERED_BYTES_MAX, ClientGone, Reply, Request, Response, Route, Router, Stream
from ff_core.daemon.listening import PORT, listen
from ff_core.daemon.server import CONNECTIONS_MAX, Server

LIMIT_S = 10


async def echo(request: Request) -> Reply:
    body = b"".join([piece async for piece in request.stream()])
    return Response(b"%s %s %s" % (request.method.encode(), request.path.encode(), body), media_type="text/plain")


class App:
    def __init__(self, handle: Callable[[Request], Awaitable[Reply]]) -> None:
        self.handle = handle
        self.errors: list[Exception] = []
        self.begun: list[int] = []

    def refuse(self, _request: Request, error: Exception) -> Response:
        self.errors.append(error)
        return Response(b"refused", 418)

    def begin(self, _request: Request, answer: Reply) -> None:
        self.begun.append(answer.status)


class Client:
    """Says and hears bytes."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer

    def say(self, *lines: str, body: bytes = b"") -> None:
        self.writer.write("".join(f"{line}\r\n" for line in [*lines, ""]).encode() + body)

    async def hear(self, *, head: bool = False) -> tuple[int, dict[str, str], bytes]:
        """One reply."""
        first, *lines = (await self.reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")[:-2]
        headers = {name.lower(): value for name, value in (line.split(": ", 1) for line in lines)}
        body = b""
        if headers.get("transfer-encoding") == "chunked":
            while size := int(await self.reader.readuntil(b"\r\n"), 16):
                body += (await self.reader.readexactly(size + 2))[:-2]
            await self.reader.readexactly(2)
        elif not head:
            body = await self.reader.readexactly(int(headers.get("content-length", "0")))
        return int(first.split()[1]), headers, body


@contextlib.asynccontextmanager
async def serving(app: App, **patience: float) -> AsyncGenerator[Callable[[], Awaitable[Client]], None]:
    """Give a way to connect; ends in order, as a SIGTERM would end it."""
    listener = listen("127.0.0.1", 0)
    address = listener.getsockname()
    stopped = []

    async def stop() -> None:
        stopped.append(True)

    async with asyncio.timeout(LIMIT_S):
        running = asyncio.create_task(Server(app, listener=listener, stop=stop, patience=Patience(**patience)).serve())
        clients = []

        async def connect() -> Client:
            clients.append(Client(*await asyncio.open_connection(*address)))
            return clients[-1]

        try:
            await asyncio.sleep(0)
            yield connect
        finally:
            os.kill(os.getpid(), signal.SIGTERM)
            await running
            for client in clients:
                client.writer.close()
            assert stopped == [True]


async def test_one_connection_takes_request_after_request():
    async with serving(App(echo)) as connect:
        client = await connect()
        for number in range(3):
            client.say(f"POST /p{number}?x=1 HTTP/1.1", "Host: x", "Content-Length: 2", body=b"%02d" % number)
            assert await client.hear() == (
                200,
                {"content-type": "text/plain", "content-length": "11"},
                b"POST /p%d %02d" % (number, number),
            )


REQUESTS = b"".join(
    [
        b"GET /a HTTP/1.1\r\nHost: x\r\n\r\n",
        b"POST /b HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nhello",
        b"PUT /c%20d HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n2;x=y\r\nde\r\n0\r\n\r\n",
        b"DELETE /e HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n",
    ]
)
ANSWERS = [b"GET /a ", b"POST /b hello", b"PUT /c d abcde", b"DELETE /e "]


@settings(max_examples=40, deadline=None)
@given(st.lists(st.integers(1, len(REQUESTS) - 1), max_size=12))
def test_however_the_bytes_are_cut_and_however_early_they_come_the_answers_are_the_same(cuts: list[int]) -> None:
    async def go() -> None:
        async with serving(App(echo)) as connect:
            client = await connect()
            ends = sorted({*cuts, len(REQUESTS)})
            for begin, end in zip([0, *ends], ends, strict=False):
                client.writer.write(REQUESTS[begin:end])
                await client.writer.drain()
                await asyncio.sleep(0)
            assert [(await client.hear())[2] for _ in ANSWERS] == ANSWERS
            assert await client.reader.read() == b""

    asyncio.run(go())


@pytest.mark.parametrize(
    ("said", "status"),
    [
        (b"nonsense\r\n\r\n", 400),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", 400),  # TLS
        (b"GET / HTTP/1.1\r\n\r\n", 400),  # no Host
        (b"GET / HTTP/1.1\r\nHost: x\r\nX: " + b"x" * 400_000, 431),
        (b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n", 400),
        (b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n", 400),
        (b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: gzip\r\n\r\n", 501),
    ],
)
async def test_what_is_not_http_is_refused_and_cut(said, status):
    app = App(echo)
    async with serving(app) as connect:
        client = await connect()
        client.writer.write(said)
        assert (await client.hear())[0] == status
        with contextlib.suppress(ConnectionResetError):
            assert await client.reader.read() == b""
    assert app.begun == []


async def test_a_body_that_turns_out_to_be_broken_is_an_end_without_an_answer():
    ends = []

    async def handle(request: Request) -> Reply:
        try:
            return await echo(request)
        except ClientGone:
            ends.append("gone")
            raise

    async with serving(App(handle)) as connect:
        client = await connect()
        client.say("POST / HTTP/1.1", "Host: x", "Transfer-Encoding: chunked", body=b"zz\r\n")
        assert await client.reader.read() == b""
    assert ends == ["gone"]


async def test_a_client_that_wants_to_be_invited_is_only_when_somebody_reads():
    async with serving(App(echo)) as connect:
        client = await connect()
        client.say("POST / HTTP/1.1", "Host: x", "Content-Length: 2", "Expect: 100-continue")
        assert (await client.reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 100 ")
        client.writer.write(b"hi")
        assert (await client.hear())[2] == b"POST / hi"

    async def refuse(_request: Request) -> Reply:
        raise KeyError

    app = App(refuse)
    async with serving(app) as connect:
        client = await connect()
        client.say("POST / HTTP/1.1", "Host: x", "Content-Length: 2", "Expect: 100-continue")
        assert (await client.hear())[0] == 418
    assert [type(error) for error in app.errors] == [KeyError]


async def test_head_is_answered_without_a_body():
    async with serving(App(echo)) as connect:
        client = await connect()
        for _ in range(2):
            client.say("HEAD /a HTTP/1.1", "Host: x")
            assert await client.hear(head=True) == (200, {"content-type": "text/plain", "content-length": "8"}, b"")


async def test_an_old_client_gets_a_stream_that_ends_with_the_connection():
    async def pieces():
        yield b""
        yield b"a"
        yield b"b"

    async def handle(_request: Request) -> Reply:
        return Stream(pieces(), "text/x")

    async with serving(App(handle)) as connect:
        client = await connect()
        client.say("GET / HTTP/1.0")
        head, _, body = (await client.reader.read()).partition(b"\r\n\r\n")
        assert (head[:12], body) == (b"HTTP/1.1 200", b"ab")


async def test_a_body_comes_in_no_faster_than_it_is_read_and_any_size_passes():
    go_on = asyncio.Event()
    received = 0

    async def handle(request: Request) -> Reply:
        nonlocal received
        async for piece in request.stream():
            await go_on.wait()
            received += len(piece)
        return Response(b"done")

    async with serving(App(handle)) as connect:
        client = await connect()
        size = 64 << 20
        client.say("PUT / HTTP/1.1", "Host: x", f"Content-Length: {size}")
        sent = 0

        async def send() -> None:
            nonlocal sent
            while sent < size:
                client.writer.write(bytes(1 << 20))
                await client.writer.drain()
                sent += 1 << 20

        sending = asyncio.create_task(send())
        stalled_at = -1
        while stalled_at != sent:
            stalled_at = sent
            await asyncio.sleep(0.1)
        assert sent < BUFFERED_BYTES_MAX + (32 << 20)  # what two socket buffers hold
        go_on.set()
        await sending
        assert (await client.hear())[2] == b"done"
        assert received == size


async def test_the_rest_of_a_refused_body_is_thrown_away_for_some_time():
    async def refuse(_request: Request) -> Reply:
        raise KeyError

    async with serving(App(refuse), request_s=1) as connect:
        client = await connect()
        size = 16 << 20
        for _ in range(2):
            client.say("PUT / HTTP/1.1", "Host: x", f"Content-Length: {size}", body=bytes(size))
            assert (await client.hear())[0] == 418
        client.say("PUT / HTTP/1.1", "Host: x", f"Content-Length: {size}")
        assert (await client.hear())[0] == 418
        with pytest.raises(ConnectionError):
            while True:
                client.writer.write(b"x")
                await client.writer.drain()
                await asyncio.sleep(0.01)


@pytest.mark.parametrize("first", [True, False], ids=["before its first piece", "between pieces"])
async def test_a_stream_whose_reader_goes_away_is_cancelled_where_it_waits_and_cleans_up(first):
    waiting, cleaned = asyncio.Event(), asyncio.Event()

    async def pieces():
        try:
            if not first:
                yield b"a"
            waiting.set()
            await asyncio.Event().wait()
            yield b"never"
        finally:
            await asyncio.sleep(0.01)
            cleaned.set()

    async def handle(_request: Request) -> Reply:
        return Stream(pieces(), "text/x")

    async with serving(App(handle)) as connect:
        client = await connect()
        client.say("POST / HTTP/1.1", "Host: x", "Content-Length: 1", body=b"x")
        await waiting.wait()
        client.writer.close()
        await cleaned.wait()


async def test_other_work_goes_on_when_its_client_goes_away():
    arrived, go_on, done = asyncio.Event(), asyncio.Event(), asyncio.Event()

    async def handle(_request: Request) -> Reply:
        arrived.set()
        await go_on.wait()
        done.set()
        return Response(b"for nobody")

    async with serving(App(handle)) as connect:
        client = await connect()
        client.say("POST / HTTP/1.1", "Host: x")
        await arrived.wait()
        client.writer.close()
        await asyncio.sleep(0.05)
        go_on.set()
        await done.wait()


async def test_a_stream_runs_no_faster_than_it_is_read():
    made = 0

    async def pieces():
        nonlocal made
        while True:
            made += 1
            yield bytes(1 << 16)

    async def handle(_request: Request) -> Reply:
        return Stream(pieces(), "text/x")

    async with serving(App(handle)) as connect:
        client = await connect()
        client.say("GET / HTTP/1.1", "Host: x")
        before = -1
        while before != made:
            before = made
            await asyncio.sleep(0.1)
        assert made < 1000
        await client.reader.readexactly(made << 16)
        assert made > before


async def test_an_error_before_the_first_piece_is_an_answer_and_one_after_it_a_cut(caplog):
    broken_after = 0

    async def pieces():
        for _ in range(broken_after):
            yield b"a"
        raise KeyError

    async def handle(_request: Request) -> Reply:
        return Stream(pieces(), "text/x")

    app = App(handle)
    async with serving(app) as connect:
        client = await connect()
        client.say("GET / HTTP/1.1", "Host: x")
        assert (await client.hear())[0] == 418
        broken_after = 1
        client.say("GET / HTTP/1.1", "Host: x")
        with pytest.raises(asyncio.IncompleteReadError):
            await client.hear()
    assert app.begun == [418, 200]
    assert "GET / broke" in caplog.text


async def test_callers_beyond_the_bound_are_turned_away():
    async with serving(App(echo)) as connect:
        clients = [await connect() for _ in range(CONNECTIONS_MAX)]
        clients[-1].say("GET /a HTTP/1.1", "Host: x")
        assert (await clients[-1].hear())[0] == 200
        late = await connect()
        assert (await late.hear())[0] == 503
        clients[0].writer.close()
        await clients[0].writer.wait_closed()
        await asyncio.sleep(0.05)
        again = await connect()
        again.say("GET /a HTTP/1.1", "Host: x")
        assert (await again.hear())[0] == 200


async def test_who_says_nothing_or_reads_nothing_is_given_up():
    cleaned = asyncio.Event()

    async def pieces():
        try:
            while True:
                yield bytes(1 << 20)
        finally:
            cleaned.set()

    async def handle(request: Request) -> Reply:
        return Stream(pieces(), "text/x") if request.path == "/stream" else await echo(request)

    async with serving(App(handle), keep_alive_s=0.1, request_s=0.1, send_s=0.1) as connect:
        silent, idle, deaf = await connect(), await connect(), await connect()
        idle.say("GET /a HTTP/1.1", "Host: x")
        assert (await idle.hear())[0] == 200
        deaf.say("GET /stream HTTP/1.1", "Host: x")
        assert await silent.reader.read() == b""
        assert await idle.reader.read() == b""
        await cleaned.wait()


async def test_it_ends_at_once_when_nobody_is_served_and_cuts_who_stays_too_long():
    arrived = asyncio.Event()

    async def handle(_request: Request) -> Reply:
        arrived.set()
        await asyncio.Event().wait()
        return Response(b"never")

    loop = asyncio.get_running_loop()
    async with serving(App(echo)) as connect:
        client = await connect()
        client.say("GET / HTTP/1.1", "Host: x")
        await client.hear()
        begun_s = loop.time()
    assert loop.time() - begun_s < 0.1
    async with serving(App(handle), grace_s=0.1) as connect:
        client = await connect()
        client.say("GET / HTTP/1.1", "Host: x")
        await arrived.wait()
        begun_s = loop.time()
    assert 0.1 <= loop.time() - begun_s < 2


async def test_answers_in_pieces_do_not_wait_for_each_other():
    """Nagle's algorithm and delayed acknowledgements together would hold back the second piece for 40 ms."""

    async def pieces():
        for _ in range(3):
            yield b"x"

    async def handle(_request: Request) -> Reply:
        return Stream(pieces(), "text/x")

    async with serving(App(handle)) as connect:
        client = await connect()
        took_s = []
        for _ in range(10):
            begun_s = asyncio.get_running_loop().time()
            client.say("GET / HTTP/1.1", "Host: x")
            await client.hear()
            took_s.append(asyncio.get_running_loop().time() - begun_s)
    assert sorted(took_s)[5] < 0.03


def test_the_port_is_the_contracts():
    assert int(PORT) == contract.PORT


def test_callers_may_connect_before_anybody_serves():
    listener = listen("127.0.0.1", 0)
    with listener, socket.create_connection(listener.getsockname(), timeout=5):
        pass
    with pytest.raises(OSError, match="in use"), listen("127.0.0.1", 0) as other:
        listen(*other.getsockname())


UUID_TEXT = "00000000-0000-7000-8000-000000000001"


@pytest.mark.parametrize(
    ("path", "found"),
    [
        ("/a", "fixed"),
        (f"/a/{UUID_TEXT}", "one"),
        (f"/a/{UUID_TEXT.upper()}/b/{UUID_TEXT}", "two"),
        ("/a/", None),
        ("/a/x", None),
        (f"/a/{UUID_TEXT}/", None),
        (f"/a/{UUID_TEXT}\n", None),
        (f"/a/x{UUID_TEXT}", None),
        ("http://host/a", None),
    ],
)
def test_addresses_are_found_whole_or_not_at_all(path, found):
    async def never(_request: Request) -> Reply:
        raise AssertionError

    router = Router([Route("/a", never, methods=["fixed"]), Route("/a/{x:uuid}", never, methods=["one"])])
    router.add([Route("/a/{x:uuid}/b/{y:uuid}", never, methods=["two"])])
    methods, params = router.find(Request("GET", path, {}, None))
    assert list(methods) == ([found] if found else [])
    assert all(str(value) == UUID_TEXT for value in params.values())
