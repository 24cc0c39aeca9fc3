"""A server of ours, as a client sees it: one connection that is kept, an access token, and the public API."""

import asyncio
import json
import secrets
import time
from base64 import b64decode
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import aiohttp

WORDS = ["echo", "ready"]
READY = b"ready\n"
POLL_S = 0.02
SETTLE_TIMEOUT_S = 240.0
REQUEST_TIMEOUT_S = 150.0
TOKEN_RENEW_S = 240.0


class Failed(Exception):
    """An attempt came to nothing; the text says why."""


@dataclass(frozen=True)
class Started:
    """One workspace from the order to its first output; milliseconds from the order. ``hit``: a warm VM was there."""

    path: str
    hit: bool
    posted_ms: float
    output_ms: float


class Ours:
    """One account of one server. Raises :class:`Failed` wherever something does not come about."""

    def __init__(self, http: aiohttp.ClientSession) -> None:
        self._http = http
        self._account = {"email": f"bench-{secrets.token_hex(4)}@example.com", "password": secrets.token_urlsafe(24)}
        self._token_at = 0.0
        self._made: set[str] = set()

    async def sign_up(self) -> None:
        """Open the account; on a fresh server its administrator, with the largest plan."""
        self._keep(await self._json("POST", "/v1/auth/signup", self._account))

    async def renew(self) -> None:
        """Log in again when the token ends soon: not while the clock runs."""
        if time.monotonic() - self._token_at > TOKEN_RENEW_S:
            self._keep(await self._json("POST", "/v1/auth/login", self._account))

    async def start(self, name: str) -> Started:
        """Order a workspace and run a command in it at once."""
        began = time.perf_counter()
        workspace = await self._json("POST", "/v1/workspaces", {"name": name})
        posted_ms = (time.perf_counter() - began) * 1000
        path = f"/v1/workspaces/{workspace['id']}"
        self._made.add(path)
        hit = (workspace.get("vm") or {}).get("status") == "RUNNING"
        at = await self.output(path)
        return Started(path, hit, posted_ms, (at - began) * 1000)

    async def start_many(self, names: Sequence[str]) -> list[Started | Failed]:
        """:meth:`start` for all of them at once."""

        async def one(name: str) -> Started | Failed:
            try:
                return await self.start(name)
            except Failed as failed:
                return failed

        return await asyncio.gather(*(one(name) for name in names))

    async def output(self, path: str) -> float:
        """The moment of a command's first output, its answer read to the end."""
        at: float | None = None
        try:
            async with self._http.post(f"{path}/exec", json={"argv": WORDS}) as answer:
                if answer.status != 200:
                    raise Failed(f"exec: {await _problem(answer)}")
                async for line in answer.content:
                    frame = json.loads(line)
                    if frame["kind"] == "output" and at is None:
                        at = time.perf_counter()
                        if b64decode(frame["data"]) != READY:
                            raise Failed(f"exec wrote {frame['data']}")
                    elif frame["kind"] == "error":
                        raise Failed(f"exec: {frame['code']}: {frame['message']}")
        except (aiohttp.ClientError, TimeoutError) as error:
            raise Failed(f"exec: {error!r}") from error
        if at is None:
            raise Failed("exec wrote nothing")
        return at

    async def ready(self, path: str) -> None:
        """Wait until the workspace is READY."""
        await until(lambda: self._is(path, "status", "READY"), f"{path} is not READY")

    async def suspend(self, path: str) -> float:
        """Have it suspended; milliseconds until its VM is."""
        began = time.perf_counter()
        await self._json("POST", f"{path}/suspend", {})
        await until(lambda: self._is(path, "vm.status", "SUSPENDED"), f"{path} is not suspended")
        return (time.perf_counter() - began) * 1000

    async def wake(self, path: str) -> float:
        """Run a command in a suspended workspace; milliseconds to its first output."""
        began = time.perf_counter()
        return (await self.output(path) - began) * 1000

    async def clear(self) -> None:
        """Delete all workspaces that were made, also by attempts that failed, and wait until nothing is left of them."""
        for path in sorted(self._made):
            await self._json("DELETE", path)
        for path in sorted(self._made):
            await until(partial(self._gone, path), f"{path} is not gone")
            self._made.discard(path)

    async def running(self) -> int:
        """How many of the workspaces are READY with a VM that runs and was never replaced."""
        page = await self._json("GET", "/v1/workspaces?limit=100")
        return sum(
            each["status"] == "READY" and each["vm"]["status"] == "RUNNING" and each["vm"]["generation"] == 1
            for each in page["items"]
        )

    async def turn(self, path: str, prompt: str, *, timeout_s: float) -> None:
        """Open a session, have the agent answer a prompt, and leave the session open."""
        session = await self._json("POST", f"{path}/sessions", {"permissions": "YOLO"})
        address = f"/v1/sessions/{session['id']}"
        await self._json("POST", f"{address}/messages", {"text": prompt})

        async def answered() -> bool:
            now = await self._json("GET", address)
            if now["error"] is not None:
                raise Failed(f"the turn failed: {now['error']}")
            return bool(now["status"] == "RUNNING" and now["activity"] == "IDLE" and not now["queued"])

        await until(answered, "the agent does not answer", timeout_s)

    async def full_pool(self) -> None:
        """Wait until as many warm VMs wait as are wanted, and none is being made."""
        await until(self._pool_is_full, "the pool does not fill")

    async def _pool_is_full(self) -> bool:
        pool = await self._json("GET", "/v1/admin/pool")
        return bool(pool["warm"] >= pool["target"] and not pool["warming"])

    async def _is(self, path: str, field: str, wanted: str) -> bool:
        found: Any = await self._json("GET", path)
        if found["status"] == "FAILED":
            raise Failed(f"the workspace failed: {found['error']}")
        for name in field.split("."):
            found = found[name]
        return bool(found == wanted)

    async def _gone(self, path: str) -> bool:
        async with self._http.get(path) as answer:
            await answer.read()
            return answer.status == 404

    def _keep(self, tokens: Any) -> None:
        self._http.headers["Authorization"] = f"Bearer {tokens['access_token']}"
        self._token_at = time.monotonic()

    async def _json(self, method: str, path: str, body: Any = None) -> Any:
        try:
            async with self._http.request(method, path, json=body) as answer:
                if not answer.ok:
                    raise Failed(f"{method} {path}: {await _problem(answer)}")
                return await answer.json()
        except (aiohttp.ClientError, TimeoutError) as error:
            raise Failed(f"{method} {path}: {error!r}") from error


async def _problem(answer: aiohttp.ClientResponse) -> str:
    return f"{answer.status} {(await answer.text())[:300]}"


async def until(true: Callable[[], Awaitable[bool]], otherwise: str, timeout_s: float = SETTLE_TIMEOUT_S) -> None:
    """Ask again and again. Raises :class:`Failed` with ``otherwise``."""
    deadline = time.monotonic() + timeout_s
    while not await true():
        if time.monotonic() > deadline:
            raise Failed(f"{otherwise} after {timeout_s:g} s")
        await asyncio.sleep(POLL_S)


@asynccontextmanager
async def account_on(url: str) -> AsyncIterator[Ours]:
    """A new account of the server at ``url``."""
    timeout = aiohttp.ClientTimeout(total=REQUEST_TIMEOUT_S)
    connector = aiohttp.TCPConnector(limit=0, keepalive_timeout=60)
    async with aiohttp.ClientSession(url, timeout=timeout, connector=connector, trust_env=False) as http:
        ours = Ours(http)
        await ours.sign_up()
        yield ours
