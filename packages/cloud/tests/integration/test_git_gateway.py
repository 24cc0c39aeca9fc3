"""Real git through the gateway to a real git server that asks for a credential; and scripted servers that behave badly."""

import asyncio
import gzip
import os
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx2
import pytest
from pydantic import SecretStr
from starlette.applications import Starlette
from starlette.requests import ClientDisconnect, Request
from starlette.responses import PlainTextResponse, RedirectResponse, Response, StreamingResponse
from starlette.routing import Route

sys.path.insert(0, str(Path(__file__).parent))  # shared with the process that is started below
from git_gateway_parts import OneVm, gateway_app

from ff_cloud.gateway.git_relay import upstream_client
from ff_core.contract.daemon import GitAccess
from ff_core.git.gateway import install
from ff_core.process import Completed, clean_env, run
from ff_core.testing.git_server import GitServer
from ff_core.testing.serve import serving

VM_TOKEN = "ffv_vm-token-of-this-vm"
REAL = "ghp_RealTokenOfTheOwner4711"
BEARER = {"authorization": f"Bearer {VM_TOKEN}"}
MIB = 1 << 20

Answer = Callable[[Request], Awaitable[Response]]


@dataclass
class Place:
    """A user's home and what git does in it."""

    home: Path

    async def git(self, *argv: str, cwd: Path | None = None) -> Completed:
        return await run(
            ["git", *argv],
            cwd=cwd or self.home,
            env=clean_env(HOME=str(self.home), LC_ALL="C"),  # prompts are not switched off: none may come
            timeout_s=60,
            output_bytes_max=MIB,
        )

    async def done(self, *argv: str, cwd: Path | None = None) -> str:
        ended = await self.git(*argv, cwd=cwd)
        assert ended.exit_code == 0, ended
        return ended.stdout.decode() + ended.stderr.decode()

    async def fails(self, *argv: str, cwd: Path | None = None) -> str:
        ended = await self.git(*argv, cwd=cwd)
        assert ended.exit_code not in (0, None), ended
        return ended.stderr.decode()


@pytest.fixture
async def http() -> AsyncIterator[httpx2.AsyncClient]:
    async with upstream_client() as client:
        yield client


@pytest.fixture
def vm() -> OneVm:
    return OneVm(VM_TOKEN, REAL)


@pytest.fixture
def place(tmp_path: Path) -> Place:
    (tmp_path / "home").mkdir()
    return Place(tmp_path / "home")


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[GitServer]:
    (tmp_path / "served").mkdir()
    async with GitServer(tmp_path / "served", credentials=("x-access-token", REAL)) as server:
        await server.create("team/app", {"README.md": "hello\n"})
        yield server


@asynccontextmanager
async def gateway(
    place: Place, vm: OneVm, http: httpx2.AsyncClient, github: str, *others: str, **more: int
) -> AsyncIterator[str]:
    """A gateway, and the user's git told to go through it."""
    async with serving(gateway_app(vm, http, github=github, hosts=others, **more)) as address:
        await install(
            GitAccess(gateway_url=address, token=SecretStr(VM_TOKEN), hosts=(github, *others)), home=place.home, run_as=None
        )
        yield address


@asynccontextmanager
async def scripted(answer: Answer) -> AsyncIterator[str]:
    async with serving(Starlette(routes=[Route("/{rest:path}", answer, methods=["GET", "POST"])])) as origin:
        yield origin


async def test_clone_fetch_and_push_with_a_credential_that_is_nowhere_here(place, vm, http, server, tmp_path):
    async with gateway(place, vm, http, server.origin):
        await place.done("clone", server.url("team/app"), "app")
        app = place.home / "app"
        assert (app / "README.md").read_text() == "hello\n"
        assert (await place.done("config", "remote.origin.url", cwd=app)).strip() == server.url("team/app")
        (app / "mine").write_text("pushed\n")
        await place.done("add", "mine", cwd=app)
        await place.done("-c", "user.name=x", "-c", "user.email=x@x", "commit", "-qm", "mine", cwd=app)
        await place.done("push", "origin", "HEAD:refs/heads/feature", cwd=app)
        await server.commit("team/app", {"theirs": "fetched\n"})
        await place.done("fetch", cwd=app)
        assert (await place.done("show", "origin/main:theirs", cwd=app)) == "fetched\n"
    there = await place.done("--git-dir", str(tmp_path / "served/team/app.git"), "show", "feature:mine")
    assert there == "pushed\n"
    kept = [file for file in place.home.rglob("*") if file.is_file() and REAL.encode() in file.read_bytes()]
    assert kept == []
    holders = [file.name for file in place.home.rglob("*") if file.is_file() and VM_TOKEN.encode() in file.read_bytes()]
    assert holders == ["gitconfig"]


async def test_no_process_of_a_fetch_shows_a_token(place, vm, http):
    seen: list[bytes] = []

    async def looks(_: Request) -> Response:
        """While git waits for us: the arguments and environment of everything that works in this home."""
        for process in Path("/proc").glob("[0-9]*"):  # noqa: ASYNC240  (memory, not a disk)
            try:
                environment, arguments = (process / "environ").read_bytes(), (process / "cmdline").read_bytes()
            except OSError:
                continue  # it ended, or is not ours
            if str(place.home).encode() in environment:
                seen.append(arguments + b"\n" + environment)
        return PlainTextResponse("", 404)

    async with scripted(looks) as origin, gateway(place, vm, http, origin):
        await place.fails("clone", f"{origin}/o/r", "r")
    assert any(b"remote-http" in text for text in seen)
    assert not [text for text in seen if REAL.encode() in text or VM_TOKEN.encode() in text]


async def test_refusals_are_sentences_that_git_shows(place, vm, http, server):
    async with gateway(place, vm, http, server.origin):
        vm.github_token = None
        missing = await place.fails("clone", server.url("team/app"), "app")
        assert "remote: " in missing
        assert "asks for a credential for team/app" in missing
        assert "`ff credential set github_token`" in missing
        vm.github_token = "ghp_wrong"
        assert "does not accept your github_token" in await place.fails("clone", server.url("team/app"), "app")
        vm.github_token = REAL
        await place.done("clone", server.url("team/app"), "app")
        assert "not found" in await place.fails("clone", server.url("team/none"), "none")


async def test_a_revoked_vm_token_is_refused_at_once_without_a_prompt(place, vm, http, server):
    async with gateway(place, vm, http, server.origin) as address:
        await place.done("clone", server.url("team/app"), "app")
        vm.token = None
        refused = await place.fails("fetch", cwd=place.home / "app")
        assert "does not know this machine" in refused
        assert "Username" not in refused
        async with httpx2.AsyncClient() as client:
            answer = await client.get(
                f"{address}/git/{server.origin.replace('://', '/')}/team/app.git/info/refs?service=git-upload-pack"
            )
            assert answer.status_code == 401


async def test_a_host_that_is_not_on_the_list_is_refused_and_never_asked(place, vm, http, server):
    async def never(_: Request) -> Response:
        raise AssertionError

    async with scripted(never) as other, gateway(place, vm, http, server.origin) as address, httpx2.AsyncClient() as client:
        answer = await client.get(
            f"{address}/git/{other.replace('://', '/')}/o/r/info/refs?service=git-upload-pack", headers=BEARER
        )
    assert answer.status_code == 403
    assert "FF_GIT_HOSTS" in answer.text


async def test_another_allowed_server_gets_no_credential(place, vm, http, server, tmp_path):
    seen: list[dict[str, str]] = []

    async def other(request: Request) -> Response:
        seen.append(dict(request.headers))
        return PlainTextResponse("no", 404)

    async with scripted(other) as origin, gateway(place, vm, http, server.origin, origin):
        assert "not found" in await place.fails("clone", f"{origin}/o/r", "r")
    assert seen
    assert all("authorization" not in headers for headers in seen)


async def test_only_known_headers_go_out_and_no_cookie_comes_back_for_another(place, vm, http):
    seen: list[dict[str, str]] = []

    async def answer(request: Request) -> Response:
        seen.append(dict(request.headers))
        headers = {"set-cookie": "session=mine", "x-secret": "1", "content-type": "application/x-git-upload-pack-advertisement"}
        return Response(b"0000", headers=headers)

    async with scripted(answer) as origin, gateway(place, vm, http, origin) as address, httpx2.AsyncClient() as client:
        more = {"cookie": "a=b", "x-forwarded-for": "1.2.3.4", "git-protocol": "version=2", "connection": "x-hop", "x-hop": "1"}
        for _ in range(2):
            url = f"{address}/git/{origin.replace('://', '/')}/o/r/info/refs?service=git-upload-pack"
            answered = await client.get(url, headers={**BEARER, **more})
    assert answered.status_code == 200
    assert not {"set-cookie", "x-secret"} & set(answered.headers)
    for headers in seen:
        assert headers["git-protocol"] == "version=2"
        assert not {"cookie", "x-forwarded-for", "x-hop"} & set(headers)
        assert VM_TOKEN not in str(headers)
        assert headers["authorization"].startswith("Basic ")


async def test_packed_bodies_pass_unopened_in_both_directions(place, vm, http):
    packed = gzip.compress(b"x" * 10_000)
    seen: list[tuple[bytes, str, str]] = []

    async def answer(request: Request) -> Response:
        seen.append((await request.body(), request.headers.get("content-encoding", ""), request.headers["accept-encoding"]))
        return Response(packed, headers={"content-encoding": "gzip", "content-type": "application/x-git-upload-pack-result"})

    async with scripted(answer) as origin, gateway(place, vm, http, origin) as address, httpx2.AsyncClient() as client:
        url = f"{address}/git/{origin.replace('://', '/')}/o/r/git-upload-pack"
        headers = {**BEARER, "content-encoding": "gzip", "accept-encoding": "gzip, br"}
        async with client.stream("POST", url, headers=headers, content=packed) as answered:
            assert b"".join([chunk async for chunk in answered.aiter_raw()]) == packed
            assert answered.headers["content-encoding"] == "gzip"
    assert seen == [(packed, "gzip", "gzip, br")]


async def test_who_waits_for_a_go_ahead_gets_it_and_who_leaves_while_sending_takes_the_request_with_him(place, vm, http):
    got: list[bytes] = []
    left = asyncio.Event()

    async def receives(request: Request) -> Response:
        assert "expect" not in request.headers
        try:
            async for chunk in request.stream():
                got.append(chunk)  # noqa: PERF401  (what came before the end counts too)
        except ClientDisconnect:
            left.set()
        return PlainTextResponse("")

    async with scripted(receives) as origin, gateway(place, vm, http, origin) as address:
        host, port = address.removeprefix("http://").split(":")
        reader, writer = await asyncio.open_connection(host, int(port))
        path = f"/git/{origin.replace('://', '/')}/o/r/git-receive-pack"
        head = [f"POST {path} HTTP/1.1", f"Host: {host}", f"Authorization: Bearer {VM_TOKEN}", "Expect: 100-continue"]
        writer.write("\r\n".join([*head, "Transfer-Encoding: chunked", "", ""]).encode())
        assert (await reader.readline()).startswith(b"HTTP/1.1 100 ")
        writer.write(b"4\r\npack\r\n")
        await writer.drain()
        writer.close()
        await left.wait()
    assert b"".join(got) in (b"", b"pack")


async def test_redirects_stay_on_the_server(place, vm, http, server):
    went: list[str] = []

    async def elsewhere(request: Request) -> Response:
        went.append(request.url.path)
        return PlainTextResponse("?", 404)

    async with scripted(elsewhere) as other:

        async def moved(request: Request) -> Response:
            _, owner, name, *rest = request.url.path.split("/")
            if owner == "away":
                return RedirectResponse(f"{other}/{name}/{'/'.join(rest)}?{request.url.query}", 301)
            if name == "old.git":
                return RedirectResponse(f"/o/new.git/{'/'.join(rest)}?{request.url.query}", 301)
            return PlainTextResponse(f"reached {request.url.path}", 404)

        async with scripted(moved) as origin, gateway(place, vm, http, origin):
            said = await place.fails("clone", f"{origin}/o/old.git", "x")
            assert "/o/new.git/info/refs" in said
            assert "to another place" in await place.fails("clone", f"{origin}/away/r.git", "x")
    assert went == []


async def test_lfs_is_told_that_it_is_not_there(place, vm, http, server):
    async with gateway(place, vm, http, server.origin) as address, httpx2.AsyncClient() as client:
        url = f"{address}/git/{server.origin.replace('://', '/')}/team/app.git/info/lfs/objects/batch"
        answer = await client.post(url, headers=BEARER, json={})
    assert answer.status_code == 501
    assert answer.headers["content-type"] == "application/vnd.git-lfs+json"
    assert "GIT_LFS_SKIP_SMUDGE" in answer.json()["message"]


async def test_a_server_that_is_away_or_breaks_off_is_an_error_never_half_an_answer(place, vm, http):
    async def breaks(_: Request) -> Response:
        async def some() -> AsyncIterator[bytes]:
            yield b"001e# service=git-upload-pack\n0000"
            raise ConnectionError

        return StreamingResponse(some(), headers={"content-type": "application/x-git-upload-pack-advertisement"})

    async with scripted(breaks) as origin, gateway(place, vm, http, origin):
        assert "fatal" in await place.fails("ls-remote", f"{origin}/o/r")
    async with gateway(place, vm, http, origin):  # nobody listens there any more
        assert "can't be reached" in await place.fails("ls-remote", f"{origin}/o/r")


async def test_a_vm_has_so_many_transfers_at_once_and_no_more(place, vm, http):
    arrived, leave = asyncio.Event(), asyncio.Event()

    async def waits(_: Request) -> Response:
        arrived.set()
        await leave.wait()
        return PlainTextResponse("", 404)

    async with (
        scripted(waits) as origin,
        gateway(place, vm, http, origin, transfers_max=1) as address,
        httpx2.AsyncClient() as client,
    ):
        url = f"{address}/git/{origin.replace('://', '/')}/o/r/info/refs?service=git-upload-pack"
        first = asyncio.create_task(client.get(url, headers=BEARER))
        await arrived.wait()
        assert (await client.get(url, headers=BEARER)).status_code == 429
        leave.set()
        assert (await first).status_code == 404
        assert (await client.get(url, headers=BEARER)).status_code == 404


async def test_a_server_is_read_no_faster_than_the_vm_takes_it_and_left_when_it_goes(place, vm, http):
    ahead_max, total, step = 24 * MIB, 96 * MIB, 1 << 16
    given = 0
    ended = asyncio.Event()

    async def pours(_: Request) -> Response:
        async def pack() -> AsyncIterator[bytes]:
            nonlocal given
            try:
                while given < 100 * total:
                    given += step
                    yield bytes(step)
                    await asyncio.sleep(0)  # uvicorn's send to somebody who left never waits, and would not be told
            finally:
                ended.set()

        return StreamingResponse(pack(), headers={"content-type": "application/x-git-upload-pack-result"})

    async with scripted(pours) as origin, gateway(place, vm, http, origin) as address, httpx2.AsyncClient() as client:
        url = f"{address}/git/{origin.replace('://', '/')}/o/r/git-upload-pack"
        taken = worst = 0
        async with client.stream("POST", url, headers=BEARER, content=b"0000") as answer:
            async for chunk in answer.aiter_raw():
                taken += len(chunk)
                worst = max(worst, given - taken)
                for _ in range(20):
                    await asyncio.sleep(0)  # everybody else gets far more turns than we do
                if taken > total:
                    break
        await ended.wait()  # we went away, and so the gateway did
    assert worst < ahead_max
    assert given - taken < ahead_max


async def test_a_large_pack_takes_no_memory_in_either_direction(place, vm, server, tmp_path):
    big = tmp_path / "big"
    with big.open("wb") as file:
        for _ in range(100):
            file.write(os.urandom(MIB))  # can't be compressed
    script = Path(__file__).with_name("git_gateway_process.py")
    process = subprocess.Popen(  # noqa: ASYNC220  (takes a moment once)
        [sys.executable, str(script), server.origin, VM_TOKEN], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    try:
        process.stdin.write(REAL + "\n")
        process.stdin.flush()
        address = (await asyncio.to_thread(process.stdout.readline)).strip()
        access = GitAccess(gateway_url=address, token=SecretStr(VM_TOKEN), hosts=(server.origin,))
        await install(access, home=place.home, run_as=None)
        app = place.home / "app"
        await place.done("clone", server.url("team/app"), "app")
        before = peak_bytes(process.pid)
        big.rename(app / "big")
        await place.done("add", "big", cwd=app)
        await place.done("-c", "user.name=x", "-c", "user.email=x@x", "commit", "-qm", "big", cwd=app)
        await place.done("push", "origin", "HEAD:main", cwd=app)
        pushed = peak_bytes(process.pid)
        await place.done("clone", server.url("team/app"), "again")
        cloned = peak_bytes(process.pid)
        assert (place.home / "again/big").stat().st_size == 100 * MIB
    finally:
        process.stdin.close()
        process.wait(20)
        process.stdout.close()
    assert pushed - before < 16 * MIB
    assert cloned - before < 16 * MIB


def peak_bytes(pid: int) -> int:
    """The most memory a process ever held."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM"))


async def test_github_is_read_with_the_owners_token_and_links_lead_back_here(vm, http):
    seen: list[tuple[str, str, str | None]] = []

    async def api(request: Request) -> Response:
        seen.append((request.method, str(request.url.path), request.headers.get("authorization")))
        if request.url.path.endswith("/old/pulls"):
            return RedirectResponse("/repos/o/new/pulls", 301)
        if request.url.path.endswith("/gone/pulls"):
            return RedirectResponse("/repositories/1/pulls", 301)
        link = f'<{str(request.base_url).rstrip("/")}/repos/o/r/pulls?page=2>; rel="next"'
        return Response(b'[{"number":7}]', headers={"content-type": "application/json", "link": link, "etag": '"x"'})

    async with (
        scripted(api) as origin,
        serving(gateway_app(vm, http, github="https://github.com", api_url=origin)) as address,
        httpx2.AsyncClient(base_url=address, headers=BEARER) as client,
    ):
        answer = await client.get("/github-api/repos/o/r/pulls?state=open")
        moved = await client.get("/github-api/repos/o/old/pulls")
        gone = await client.get("/github-api/repos/o/gone/pulls")
        refused = [await client.post("/github-api/repos/o/r/pulls", json={}), await client.get("/github-api/user")]
        client.headers["authorization"] = "Bearer ffv_other"
        stranger = await client.get("/github-api/repos/o/r/pulls")
    assert answer.json() == [{"number": 7}]
    assert answer.headers["link"] == '</github-api/repos/o/r/pulls?page=2>; rel="next"'
    assert moved.headers["location"] == "/github-api/repos/o/new/pulls"
    assert (gone.status_code, gone.json()["code"]) == (502, "git_moved")
    assert [(r.status_code, r.json()["code"]) for r in refused] == [(403, "github_path_refused")] * 2
    assert stranger.status_code == 401
    assert [method for method, _, _ in seen] == ["GET"] * 3
    assert {authorization for _, _, authorization in seen} == {f"Bearer {REAL}"}
