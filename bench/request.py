"""What the API itself takes of the way to a first command, as a client on a kept connection sees it.

`ff-cloud api` is a process of its own over the embedded PostgreSQL with everything durable; in place of VMs there is a daemon
that answers at once, so what is measured is the server: authentication, rate limit, transactions, and calling the daemon.
Requests come one at a time, all kinds in turns.
"""

import asyncio
import http.client
import json
import shutil
import socket
import sys
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from uuid import uuid4  # noqa: TID251  (names VMs of the benchmark)

import psycopg
from bench.budgets import REQUEST
from bench.report import Row, publish

from ff_cloud.kit.db import libpq_arguments
from ff_cloud.kit.migrate import migrate
from ff_cloud.kit.postgres import LOGIN, EmbeddedPostgres
from ff_cloud.testing.server import LISTENING, own_environment, program, running, scratch_folder
from ff_core.contract.base import Channel, dump
from ff_core.contract.daemon import Health, Use
from ff_core.contract.execution import ExecExit, ExecOutput
from ff_core.ids import VmId
from ff_core.world import SystemWorld

ROUNDS = 200
UNCOUNTED = 40
IMAGE = "bench:1"
ACCOUNT = {"email": "ann@example.com", "password": "tangerine lamp over the river"}
COMMAND = {"argv": ["echo", "ready"]}
NEVER_TOO_OFTEN = {f"FF_RATE_{kind}": "1000000" for kind in ("AUTH", "READ", "WRITE", "STREAM")}  # and yet they count
WARM_VMS = """
    insert into vms (id, status, generation, image, health_failures, created_at, admitted_at, warm_at, address, port)
    select id, 'WARM', 1, %s, 0, now(), now(), now(), '127.0.0.1', %s from unnest(%s::uuid[]) as id
"""


class Daemon(asyncio.Protocol):
    """Answers every request at once and keeps the connection: a command's output, else the daemon's health."""

    def __init__(self) -> None:
        now = SystemWorld().now()
        use = Use(turns=0, commands=0, processes=0, followers=0, active_at=now)
        health = Health(
            vm_id=VmId(uuid4()),
            generation=1,
            version="1",
            uptime_s=1,
            bound=True,
            workspace_id=None,
            journal_seq=0,
            working=0,
            use=use,
        )
        self._health = _answer([json.dumps(dump(health)).encode()])
        frames = (ExecOutput(channel=Channel.STDOUT, data=b"ready\n"), ExecExit(exit_code=0))
        self._output = _answer([frame.model_dump_json().encode() + b"\n" for frame in frames])
        self._got = b""
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """See :class:`asyncio.Protocol`."""
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        """See :class:`asyncio.Protocol`."""
        self._got += data
        head, end, rest = self._got.partition(b"\r\n\r\n")
        length = int(head.lower().partition(b"content-length: ")[2].split(b"\r\n")[0] or 0)
        if end and len(rest) >= length and self._transport is not None:
            self._transport.write(self._output if head.startswith(b"POST /v1/exec ") else self._health)
            self._got = rest[length:]


def _answer(pieces: list[bytes]) -> bytes:
    head = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n"
    return head + b"".join(b"%x\r\n%s\r\n" % (len(piece), piece) for piece in pieces) + b"0\r\n\r\n"


async def serve_daemon() -> None:
    """Be the daemon until killed."""
    server = await asyncio.get_running_loop().create_server(Daemon, "127.0.0.1", 0)
    print(f"listening  http://127.0.0.1:{server.sockets[0].getsockname()[1]}", flush=True)
    await server.serve_forever()


class Client:
    """One connection, kept."""

    def __init__(self, url: str) -> None:
        at = urlsplit(url)
        self._http = http.client.HTTPConnection(str(at.hostname), at.port, timeout=30)
        self._http.connect()
        self._http.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.credential = ""

    def ask(self, method: str, path: str, body: Any = None, *, until: bytes = b"") -> tuple[Any, float]:
        """The answer, and the milliseconds to its end, or to the line that has ``until`` in it."""
        content = None if body is None else json.dumps(body).encode()
        headers = {"Authorization": f"Bearer {self.credential}"} if self.credential else {}
        began = time.perf_counter()
        self._http.request(method, path, content, {**headers, "Content-Type": "application/json"})
        answer = self._http.getresponse()
        found = b""
        while until and until not in found:
            found += answer.readline()
        took_ms = (time.perf_counter() - began) * 1000
        found += answer.read()
        if not until:
            took_ms = (time.perf_counter() - began) * 1000
        if answer.status not in {200, 201}:
            raise SystemExit(f"bench: {method} {path}: {answer.status} {found.decode()}")
        return (None if until else json.loads(found)), took_ms


@contextmanager
def server(folder: Path) -> Iterator[str]:
    """The API over a database with a warm VM for every order, all of them the one daemon."""
    with ExitStack() as stack:
        daemon = [sys.executable, "-m", "bench.request", "daemon"]
        log = folder / "daemon.log"
        at = stack.enter_context(running(daemon, environment=own_environment({}), log=log, ready=LISTENING))
        postgres = EmbeddedPostgres(folder / "postgres")
        postgres.start()
        stack.callback(postgres.stop)
        migrate(postgres.url())
        with psycopg.connect(**libpq_arguments(postgres.admin_url(LOGIN)), autocommit=True) as connection:
            connection.execute("update plans set workspaces_max = 100000, running_vms_max = 100000")
            ids = [uuid4() for _ in range(ROUNDS + UNCOUNTED)]
            connection.execute(WARM_VMS, [IMAGE, urlsplit(at.url).port, ids])
        url = postgres.url().render_as_string(hide_password=False)
        settings = {"FF_DATABASE_URL": url, "FF_DATA_DIR": str(folder / "data"), "FF_PORT": "0", "FF_VM_IMAGE": IMAGE}
        environment = own_environment({**settings, **NEVER_TOO_OFTEN})
        api = running([program("ff-cloud"), "api"], environment=environment, log=folder / "api.log", ready=LISTENING)
        yield stack.enter_context(api).url


def measure(url: str) -> dict[str, list[float]]:
    """Milliseconds of each kind of request."""
    by_token, by_key, nobody = Client(url), Client(url), Client(url)
    by_token.credential = by_token.ask("POST", "/v1/auth/signup", ACCOUNT)[0]["access_token"]
    wanted = {"name": "bench", "scopes": ["account:read"], "expires_in_days": 1}
    by_key.credential = by_token.ask("POST", "/v1/api-keys", wanted)[0]["key"]
    took: defaultdict[str, list[float]] = defaultdict(list)
    for number in range(UNCOUNTED + ROUNDS):
        if number == UNCOUNTED:
            took.clear()
        took["without authentication"].append(nobody.ask("GET", "/healthz")[1])
        took["GET /v1/me by access token"].append(by_token.ask("GET", "/v1/me")[1])
        took["GET /v1/me by API key"].append(by_key.ask("GET", "/v1/me")[1])
        workspace, posted_ms = by_token.ask("POST", "/v1/workspaces", {"name": f"bench {number}"})
        if workspace["vm"]["status"] != "RUNNING":
            raise SystemExit(f"bench: no warm VM was claimed: {workspace['vm']}")
        path = f"/v1/workspaces/{workspace['id']}/exec"
        _, output_ms = by_token.ask("POST", path, COMMAND, until=b'"output"')
        took["POST /v1/workspaces, VM claimed and bound"].append(posted_ms)
        took["exec, to the first output"].append(output_ms)
        took["both"].append(posted_ms + output_ms)
    return took


def main() -> int:
    """Measure and publish."""
    folder = scratch_folder("ff-bench-")
    try:
        with server(folder) as url:
            took = measure(url)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    limits = {"GET /v1/me by access token": REQUEST.me_ms_max, "both": REQUEST.warm_ms_max}
    return publish("request", [Row(name, "ms", samples, limits.get(name)) for name, samples in took.items()])


if __name__ == "__main__":
    sys.exit(asyncio.run(serve_daemon()) if sys.argv[1:] == ["daemon"] else main())
