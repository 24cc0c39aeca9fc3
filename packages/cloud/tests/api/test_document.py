"""The API keeps to its own OpenAPI document: no 5xx, no status, type or shape of an answer that the document does not have.

schemathesis makes requests up from the document, good and bad ones, one by one and in chains that use what earlier ones answered,
as an administrator, against the whole app on a loopback port with a real PostgreSQL. Here in a short form; ``make soak`` sets
``FF_SOAK_S`` for a long one.
"""

import asyncio
import os
import re
import socket
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import httpx2
import pytest
import uvicorn

from ff_cloud.kit.db import Database
from ff_cloud.testing.whole_app import whole_app
from ff_core.world import SystemWorld

SOAK_S = int(os.environ.get("FF_SOAK_S", "0"))
SHORT_S = 15
ACCOUNT = {"email": "ann@example.com", "password": "tangerine lamp over the river"}
CHECKS = "not_a_server_error,status_code_conformance,content_type_conformance,response_schema_conformance"
# What would end the login that all other requests need, and streams, which by their nature do not end.
LEFT_OUT = r"/events$|/auth/logout$|/auth/sessions|/me$"
UNLIMITED = {"rate_auth": 0, "rate_read": 0, "rate_write": 0, "rate_stream": 0}
CONFIG = """
request-timeout = 20
headers = {{ Authorization = "Bearer ${{FF_TEST_TOKEN}}" }}
[generation]
max-examples = {examples}
database = "none"
"""


@pytest.fixture
async def url(db: Database) -> AsyncIterator[str]:
    async with whole_app(db, SystemWorld(), **UNLIMITED) as app:
        listener = socket.create_server(("127.0.0.1", 0))
        server = uvicorn.Server(uvicorn.Config(app, log_config=None, access_log=False, lifespan="off"))
        serving = asyncio.create_task(server.serve(sockets=[listener]))
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        server.should_exit = True
        await asyncio.wait_for(serving, 30)


@pytest.mark.timeout(SOAK_S + 180)
async def test_every_answer_is_in_the_document(url: str, tmp_path: Path) -> None:
    async with httpx2.AsyncClient(base_url=url, trust_env=False) as http:
        token = (await http.post("/v1/auth/signup", json=ACCOUNT)).json()["access_token"]
        operations = sum(len(item) for item in (await http.get("/openapi.json")).json()["paths"].values())
    (tmp_path / "schemathesis.toml").write_text(CONFIG.format(examples=200 if SOAK_S else 3))
    command = [str(Path(sys.executable).with_name("schemathesis")), "--config-file", str(tmp_path / "schemathesis.toml")]
    command += ["run", f"{url}/openapi.json", "--checks", CHECKS, "--exclude-path-regex", LEFT_OUT, "--no-color", "--no-shrink"]
    command += ["--continue-on-failure", "--warnings", "off", "--suppress-health-check", "all"]
    command += ["--max-time", str(SOAK_S or SHORT_S)] + ([] if SOAK_S else ["--generation-deterministic"])
    command += ["--phases", "fuzzing,stateful" if not SOAK_S else "examples,coverage,fuzzing,stateful"]
    process = await asyncio.create_subprocess_exec(
        *command,
        cwd=tmp_path,
        env={**os.environ, "FF_TEST_TOKEN": token},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    try:
        output = (await asyncio.wait_for(process.communicate(), SOAK_S + 120))[0].decode()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    assert process.returncode == 0, output[-20_000:]
    # It did run: otherwise an empty document would pass.
    selected = re.search(r"Operations:\s+(\d+) selected / (\d+) total", output)
    assert selected is not None, output[-2_000:]
    assert int(selected[2]) == operations
    assert int(selected[1]) >= operations - 8
