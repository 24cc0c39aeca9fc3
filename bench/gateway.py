"""What the gateway adds between an agent and the model: to each token, to a whole stream, and in processor time.

Direct and through the gateway take turns in one run, so that both meet the same machine. For the way of a single token the
model writes the time into it; both ends have the same clock.
"""

import asyncio
import os
import re
import shutil
import statistics
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path

import httpx2
import psycopg
from bench.budgets import GATEWAY
from bench.report import Row, publish
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import StreamingResponse
from starlette.routing import Route

from ff_cloud.gateway.tokens import gateway_token
from ff_cloud.kit.db import libpq_arguments
from ff_cloud.kit.postgres import EmbeddedPostgres
from ff_cloud.kit.secrets import Secrets, master_secret
from ff_cloud.testing.server import own_environment, program, running, scratch_folder
from ff_core.ids import VmId
from ff_core.testing.model_api import ModelApi
from ff_core.testing.serve import serving
from ff_core.world import SystemWorld

ROUNDS = 8
TOKENS = 200
TOKENS_PER_S = 100
STREAMS = 10
READY = re.compile(r"^gateway +(http://\S+)\n", re.MULTILINE)
ROWS = """
    insert into users (id, email, name, plan, created_at) values (%(user)s, 'bench@example.com', 'bench', 'free', now());
    insert into workspaces (id, user_id, name, status, location, epoch, desired, last_active_at, created_at, updated_at)
        values (%(workspace)s, %(user)s, 'bench', 'READY', 'CLOUD', 1, 'PRESENT', now(), now(), now());
    insert into vms (id, user_id, workspace_id, status, generation, health_failures, created_at)
        values (%(vm)s, %(user)s, %(workspace)s, 'RUNNING', 1, 0, now())
"""


async def clocked(_request: Request) -> StreamingResponse:
    """A model that says what time it is, :data:`TOKENS` times."""

    async def tokens() -> AsyncIterator[bytes]:
        for _ in range(TOKENS):
            yield f"event: content_block_delta\ndata: {time.monotonic():.6f}\n\n".encode()
            await asyncio.sleep(1 / TOKENS_PER_S)

    return StreamingResponse(tokens(), media_type="text/event-stream")


async def ways_of_tokens(http: httpx2.AsyncClient, base: str) -> list[float]:
    """Milliseconds that each token of one stream was on its way."""
    async with http.stream("POST", f"{base}/v1/messages", json={}) as answer:
        lines = answer.raise_for_status().aiter_lines()
        return [(time.monotonic() - float(line[6:])) * 1000 async for line in lines if line.startswith("data: ")]


async def whole_stream(http: httpx2.AsyncClient, base: str) -> tuple[float, float]:
    """Milliseconds to the first byte and to the last of a stream of the scripted model."""
    messages = [{"role": "user", "content": f"%stream {TOKENS} {TOKENS_PER_S}"}]
    body = {"model": "claude-haiku-4-5", "stream": True, "tools": [{"name": "Bash"}], "messages": messages}
    began = time.monotonic()
    first = 0.0
    async with http.stream("POST", f"{base}/v1/messages", json=body) as answer:
        async for _ in answer.raise_for_status().aiter_raw():
            first = first or time.monotonic() - began
    return first * 1000, (time.monotonic() - began) * 1000


def processor_s(pid: int) -> float:
    """Seconds of processor time a process has used."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def admitted(data: Path) -> str:
    """A VM that the gateway in front of this data lets in; its token."""
    new_id = SystemWorld().new_id
    vm_id = VmId(new_id())
    ids = {"user": new_id(), "workspace": new_id(), "vm": vm_id}
    with psycopg.connect(**libpq_arguments(EmbeddedPostgres(data / "postgres").url())) as connection:
        connection.execute("set role ff_system")
        for statement in ROWS.split(";"):
            connection.execute(statement.encode(), ids)
    return gateway_token(Secrets(master_secret(None, data)).gateway_token_key, vm_id, 1)


async def measure(folder: Path) -> list[Row]:
    """All rows."""
    async with ModelApi() as scripted, serving(Starlette(routes=[Route("/v1/messages", clocked, methods=["POST"])])) as clock:
        found: dict[str, list[float]] = {}
        for name, upstream in (("clock", clock), ("scripted", scripted.url)):
            data = folder / name / "data"
            data.parent.mkdir(mode=0o711)
            settings = {
                "FF_DATA_DIR": str(data),
                "FF_GATEWAY_HOST": "127.0.0.1",
                "FF_GATEWAY_PORT": "0",
                "FF_MODEL_BASE_URL": upstream,
                "FF_MODEL_API_KEY": "sk-ant-bench",
            }
            command = [program("ff-cloud"), "gateway"]
            log = folder / f"{name}.log"
            with running(command, environment=own_environment(settings), log=log, ready=READY) as gateway:
                headers = {"x-api-key": admitted(data)}
                async with httpx2.AsyncClient(headers=headers, timeout=60, trust_env=False) as http:
                    bases = {"direct": upstream, "gateway": f"{gateway.url}/anthropic"}
                    for round_ in range(ROUNDS + 1):
                        for way, base in bases.items():
                            if name == "clock":
                                samples = {f"token {way}": await ways_of_tokens(http, base)}
                            else:
                                first, last = await whole_stream(http, base)
                                samples = {f"first {way}": [first], f"last {way}": [last]}
                            if round_:  # the first one makes connections
                                for key, more in samples.items():
                                    found.setdefault(key, []).extend(more)
                    if name == "scripted":
                        used = processor_s(gateway.pid)
                        began = time.monotonic()
                        await asyncio.gather(*(whole_stream(http, bases["gateway"]) for _ in range(STREAMS)))
                        share = (processor_s(gateway.pid) - used) / (time.monotonic() - began) / STREAMS * 100
    added = statistics.median(found["token gateway"]) - statistics.median(found["token direct"])
    ratio = statistics.median(found["last gateway"]) / statistics.median(found["last direct"])
    return [
        Row("a token's way, direct", "ms", found["token direct"]),
        Row("a token's way, through the gateway", "ms", found["token gateway"]),
        Row("added per token (medians)", "ms", [added], GATEWAY.added_ms_per_token_max),
        Row("first byte, direct", "ms", found["first direct"]),
        Row("first byte, through the gateway", "ms", found["first gateway"]),
        Row("whole stream, ratio of medians", "x", [ratio], GATEWAY.stream_ratio_max),
        Row(f"processor per stream, {STREAMS} at {TOKENS_PER_S}/s", "%", [share], GATEWAY.cpu_percent_per_stream_max),
    ]


def main() -> int:
    """Measure and publish."""
    folder = scratch_folder("ff-bench-")
    try:
        return publish("gateway", asyncio.run(measure(folder)))
    finally:
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    sys.exit(main())
