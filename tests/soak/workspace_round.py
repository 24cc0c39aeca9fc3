"""One round: a workspace is made, used, sometimes put to sleep and woken, and deleted, through the public API."""

import asyncio
import json
import secrets
import time
from base64 import b64decode
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from random import Random
from typing import Any

import aiohttp
from faults import HEAL_S
from place import Place

STEP_TIMEOUT_S = 180.0
"""The longest that any one step of a round may take, with all its repetitions."""
REQUEST_TIMEOUT_S = 60.0
RETRY_S = 0.25
SLEEP_IN = 10
READY_IN = 2
TOKEN_RENEW_S = 240.0
_AGAIN = frozenset({401, 408, 409, 425, 429, 500, 502, 503, 504})


class Broken(Exception):
    """A promise was broken: the soak has failed. The text says which and of what."""


class FailedHonestly(Exception):
    """The workspace is FAILED, and says so with a code."""


@dataclass
class Tally:
    """What happened in all rounds."""

    done: int = 0
    round_s: list[float] = field(default_factory=list)
    refusals: Counter[str] = field(default_factory=Counter)
    """Answers that were asked for again, by code; a round that saw some is still good."""
    failed: Counter[str] = field(default_factory=Counter)
    """Workspaces that came to be FAILED while a fault was healed, by code."""
    broken: list[str] = field(default_factory=list)
    sleeps: int = 0


class Lane:
    """One account, which does one round after the other."""

    def __init__(self, place: Place, http: aiohttp.ClientSession, tally: Tally, healing: Callable[[], bool]) -> None:
        self._place = place
        self._http = http
        self.tally = tally
        self._healing = healing
        self._account = {"email": f"soak-{secrets.token_hex(4)}@example.com", "password": secrets.token_urlsafe(24)}
        self._token: str | None = None
        self._token_at = 0.0

    async def sign_up(self) -> None:
        """Open the account."""
        tokens = await self._json("POST", "/v1/auth/signup", self._account, good=(201, 200))
        self._keep(tokens)

    async def round(self, number: int, chance: Random) -> None:
        """See the module. Adds to the tally; raises :class:`Broken`."""
        began = time.monotonic()
        name = f"soak-{number}-{secrets.token_hex(3)}"
        created = await self._json("POST", "/v1/workspaces", {"name": name}, key=name, good=(201,))
        path = f"/v1/workspaces/{created['id']}"
        try:
            await self._says(path, ["echo", str(number)], number)
            if chance.randrange(READY_IN) == 0:  # the others are deleted in the middle of being prepared
                await self._until(path, lambda seen: seen["status"] == "READY", "READY")
                await self._says(path, ["echo", str(number)], number)
            if chance.randrange(SLEEP_IN) == 0:
                await self._sleep_and_wake(path, number)
        except FailedHonestly as failed:
            self.tally.failed[str(failed)] += 1
        await self._delete(path)
        self.tally.done += 1
        self.tally.round_s.append(time.monotonic() - began)

    async def full_pool(self) -> bool:
        """Whether as many warm VMs wait as are wanted and none is being made; for the administrator."""
        pool = await self._json("GET", "/v1/admin/pool")
        return bool(pool["warm"] == pool["target"] and not pool["warming"])

    async def _sleep_and_wake(self, path: str, number: int) -> None:
        """What was written before is there afterwards."""
        await self._until(path, lambda seen: seen["status"] == "READY", "READY")
        await self._says(path, ["sh", "-c", f'echo {number} >"$HOME/kept" && cat "$HOME/kept"'], number)
        deadline = time.monotonic() + STEP_TIMEOUT_S
        while True:
            await self._json("POST", f"{path}/suspend", {}, good=(202,))
            try:
                await self._until(path, lambda seen: (seen["vm"] or {}).get("status") == "SUSPENDED", "suspended", timeout_s=15)
                break
            except Broken:  # it was in use, or its VM died: then the order came to nothing
                if time.monotonic() > deadline:
                    raise
                self.tally.refusals["suspend came to nothing"] += 1
        self.tally.sleeps += 1
        await self._says(path, ["sh", "-c", 'cat "$HOME/kept"'], number)

    async def _says(self, path: str, argv: list[str], number: int) -> None:
        deadline = time.monotonic() + STEP_TIMEOUT_S
        while True:
            try:
                output, code = await self._run(path, argv)
            except (aiohttp.ClientError, TimeoutError, ValueError) as error:
                output, code = b"", type(error).__name__
            if code == "0":
                if output == f"{number}\n".encode():
                    return
                raise Broken(f"wrong output: {path} wrote {output!r} for {argv}")
            if output not in {b"", f"{number}\n".encode()}:
                raise Broken(f"wrong output: {path} wrote {output!r} for {argv}, and then {code}")
            self.tally.refusals[f"exec {code}"] += 1
            await self._look(path)
            if time.monotonic() > deadline:
                raise Broken(f"stuck: {path} runs no command for {STEP_TIMEOUT_S:g} s, last {code}; {await self._facts(path)}")
            await asyncio.sleep(RETRY_S)

    async def _run(self, path: str, argv: list[str]) -> tuple[bytes, str]:
        """What a command wrote, and its exit code, or the code of what went wrong."""
        output, ended = b"", "cut"
        await self._renew()
        url = self._place.url(f"{path}/exec")
        async with self._http.post(url, json={"argv": argv}, headers=self._headers()) as answer:
            if answer.status == 404:
                raise Broken(f"lost: {path} is not there any more")
            if answer.status != 200:
                return b"", await _code(answer)
            async for line in answer.content:
                frame = json.loads(line)
                if frame["kind"] == "output":
                    output += b64decode(frame["data"])
                elif frame["kind"] == "exit":
                    ended = str(frame["exit_code"])
                elif frame["kind"] == "error":
                    ended = frame["code"]
        return output, ended

    async def _look(self, path: str) -> Any:
        """The workspace; raises when it is lost or failed."""
        seen = await self._json("GET", path)
        if seen["status"] == "FAILED":
            code = (seen["error"] or {}).get("code", "no code")
            if not self._healing():
                raise Broken(
                    f"failed without a fault in the last {HEAL_S:g} s: {path}: {seen['error']}; {await self._facts(path)}"
                )
            raise FailedHonestly(code)
        return seen

    async def _until(self, path: str, true: Callable[[Any], bool], what: str, timeout_s: float = STEP_TIMEOUT_S) -> None:
        deadline = time.monotonic() + timeout_s
        while not true(await self._look(path)):
            if time.monotonic() > deadline:
                raise Broken(f"stuck: {path} is not {what} after {timeout_s:g} s; {await self._facts(path)}")
            await asyncio.sleep(RETRY_S)

    async def _delete(self, path: str) -> None:
        await self._json("DELETE", path, good=(202, 404))
        deadline = time.monotonic() + STEP_TIMEOUT_S
        while await self._json("GET", path, good=(200, 404)) is not None:
            if time.monotonic() > deadline:
                raise Broken(f"stuck: {path} is not gone after {STEP_TIMEOUT_S:g} s; {await self._facts(path)}")
            await asyncio.sleep(RETRY_S)

    async def _json(
        self, method: str, path: str, body: Any = None, *, key: str | None = None, good: tuple[int, ...] = (200,)
    ) -> Any:
        """The answer, asked for again until it is a good one; None for a 404 that is good."""
        deadline = time.monotonic() + STEP_TIMEOUT_S
        while True:
            try:
                if not path.startswith("/v1/auth/"):
                    await self._renew()
                url, headers = self._place.url(path), self._headers(key)
                async with self._http.request(method, url, json=body, headers=headers) as answer:
                    if answer.status in good:
                        return None if answer.status == 404 else await answer.json()
                    code = await _code(answer)
                    if answer.status == 401:
                        self._token = None
                    if answer.status == 404:
                        raise Broken(f"lost: {method} {path}: 404")
                    if answer.status not in _AGAIN:
                        raise Broken(f"refused: {method} {path}: {answer.status} {code}")
            except (aiohttp.ClientError, TimeoutError) as error:
                code = type(error).__name__
            self.tally.refusals[f"{method} {code}"] += 1
            if time.monotonic() > deadline:
                raise Broken(f"stuck: {method} {path} has no good answer for {STEP_TIMEOUT_S:g} s, last {code}")
            await asyncio.sleep(RETRY_S)

    async def _renew(self) -> None:
        if self._token is None or time.monotonic() - self._token_at > TOKEN_RENEW_S:
            self._keep(await self._json("POST", "/v1/auth/login", self._account))

    def _keep(self, tokens: Any) -> None:
        self._token, self._token_at = tokens["access_token"], time.monotonic()

    def _headers(self, key: str | None = None) -> dict[str, str]:
        headers = {"Authorization": f"Bearer {self._token}"} if self._token is not None else {}
        return headers | ({"Idempotency-Key": key} if key is not None else {})

    async def _facts(self, path: str) -> str:
        """What the database has about it, and what the server said of it last."""
        workspace_id = path.rsplit("/", 1)[1]

        def look() -> str:
            vms = self._place.ask("select row_to_json(v)::text from vms v where workspace_id = %s", workspace_id)
            statement = "select kind, status, step_name, direction, attempts, error_code, error_message, run_at::text"
            acts = self._place.ask(f"{statement} from operations where key like %s order by created_at", f"%{workspace_id}%")
            vm_ids = [json.loads(row[0])["id"] for row in vms]
            return f"vms {vms}; operations {acts}; log:\n{self._place.said_last(workspace_id, *vm_ids)}"

        return await asyncio.to_thread(look)


async def _code(answer: aiohttp.ClientResponse) -> str:
    text = await answer.text()
    try:
        return f"{answer.status} {json.loads(text)['code']}"
    except (ValueError, KeyError, TypeError):
        return f"{answer.status} {text[:100]}"
