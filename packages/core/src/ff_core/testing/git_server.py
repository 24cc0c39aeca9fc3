"""A real git server over HTTP: git's own ``http-backend``, with and without credentials.

``python -m ff_core.testing.git_server --root D`` prints its URL as the first line and serves every repository in D; the
environment variable ``GIT_SERVER_CREDENTIAL`` (``user:token``) makes it ask for that.
"""

import argparse
import asyncio
import base64
import contextlib
import hmac
import os
import re
import signal
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from types import TracebackType

from starlette.applications import Starlette
from starlette.requests import ClientDisconnect, Request
from starlette.responses import PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route

from ff_core.process import clean_env, run
from ff_core.testing.serve import serving, until_signal

CHUNK_BYTES = 64 << 10
GIT_TIMEOUT_S = 60
END_TIMEOUT_S = 5
_CGI_HEAD_BYTES_MAX = 64 << 10
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*(/[A-Za-z0-9][A-Za-z0-9._-]*)*")


class GitServer:
    """Serves the repositories in ``root``; anybody admitted may push. ``async with GitServer(root) as server``."""

    origin: str = ""
    """The server's own URL, once entered."""

    def __init__(self, root: Path, *, host: str = "127.0.0.1", port: int = 0, credentials: tuple[str, str] | None = None) -> None:
        self._root = root.resolve()
        self._host, self._port = host, port
        self._expected = None if credentials is None else base64.b64encode(":".join(credentials).encode()).decode()
        self._exit = contextlib.AsyncExitStack()

    async def __aenter__(self) -> "GitServer":
        app = Starlette(routes=[Route("/{path:path}", self._serve, methods=["GET", "POST"])])
        self.origin = await self._exit.enter_async_context(serving(app, host=self._host, port=self._port))
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self._exit.aclose()

    def url(self, name: str) -> str:
        """The address to clone the repository ``name`` from; it has no credential in it."""
        return f"{self.origin}/{name}.git"

    async def create(self, name: str, files: Mapping[str, str | bytes] | None = None, *, branch: str = "main") -> str:
        """Make a bare repository, with one commit of ``files`` on ``branch`` (None: empty); return its address."""
        if not _NAME.fullmatch(name):
            raise ValueError(f"not a repository name: {name!r}")
        folder = self._root / f"{name}.git"
        await self._git("init", "--quiet", "--bare", f"--initial-branch={branch}", str(folder))
        await self._git("-C", str(folder), "config", "http.receivepack", "true")
        if files is not None:
            await self.commit(name, files, branch=branch)
        return self.url(name)

    async def commit(self, name: str, files: Mapping[str, str | bytes], *, branch: str = "main") -> None:
        """Add a commit that sets ``files`` on top of ``branch``, or begins it."""
        folder = str(self._root / f"{name}.git")
        ref = f"refs/heads/{branch}"
        begun = await run(
            ["git", "-C", folder, "rev-parse", "--quiet", "--verify", ref],
            cwd=self._root,
            env=clean_env(),
            timeout_s=GIT_TIMEOUT_S,
            output_bytes_max=CHUNK_BYTES,
        )
        parent = f"from {ref}^0\n" if begun.exit_code == 0 else ""
        who = "Git Server <git-server@example.invalid> now"
        script = bytearray(f"commit {ref}\ncommitter {who}\ndata 4\nwork\n{parent}".encode())
        for path, content in files.items():
            data = content.encode() if isinstance(content, str) else content
            script += f"M 100644 inline {path}\ndata {len(data)}\n".encode() + data + b"\n"
        await self._git("-C", folder, "fast-import", "--quiet", "--date-format=now", stdin=bytes(script))

    async def _git(self, *arguments: str, stdin: bytes | None = None) -> None:
        done = await run(
            ["git", *arguments],
            cwd=self._root,
            env=clean_env(),
            timeout_s=GIT_TIMEOUT_S,
            output_bytes_max=CHUNK_BYTES,
            stdin=stdin,
        )
        if done.exit_code != 0:
            raise RuntimeError(f"git {arguments[0]}: {done.stderr.decode(errors='replace')}")

    async def _serve(self, request: Request) -> Response:
        if not self._admits(request.headers.get("authorization", "")):
            realm = {"www-authenticate": 'Basic realm="git"'}
            return PlainTextResponse("Unauthorized\n", 401, realm)
        process = await asyncio.create_subprocess_exec(
            *("git", "http-backend"),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.DEVNULL,
            start_new_session=True,
            limit=_CGI_HEAD_BYTES_MAX,
            env=clean_env(**self._cgi_variables(request)),
        )
        try:
            # All of it before the response begins: the response listens for a disconnect on the same channel. Git reads
            # a request whole before it answers, so neither waits for the other.
            await _feed(request, process)
            status, headers = await _head(process)
        except BaseException:
            await _end(process)
            raise
        return StreamingResponse(_body(process), status, headers)

    def _admits(self, authorization: str) -> bool:
        return self._expected is None or hmac.compare_digest(authorization, f"Basic {self._expected}")

    def _cgi_variables(self, request: Request) -> dict[str, str]:
        headers = request.headers
        variables = {
            "GIT_PROJECT_ROOT": str(self._root),
            "GIT_HTTP_EXPORT_ALL": "1",
            "REQUEST_METHOD": request.method,
            "PATH_INFO": request.url.path,
            "QUERY_STRING": request.url.query,
            "CONTENT_TYPE": headers.get("content-type", ""),
            "CONTENT_LENGTH": headers.get("content-length", ""),
            "HTTP_CONTENT_ENCODING": headers.get("content-encoding", ""),
            "GIT_PROTOCOL": headers.get("git-protocol", ""),
            "REMOTE_USER": "somebody",
            "REMOTE_ADDR": request.client.host if request.client else "",
        }
        return {name: value for name, value in variables.items() if value}


async def _feed(request: Request, process: asyncio.subprocess.Process) -> None:
    """Give the request's body to the program as it comes; a large push never lies in memory."""
    assert process.stdin is not None  # noqa: S101  (for the type checker)
    with contextlib.suppress(ConnectionError, ClientDisconnect):
        async for chunk in request.stream():
            process.stdin.write(chunk)
            await process.stdin.drain()
    process.stdin.close()


async def _head(process: asyncio.subprocess.Process) -> tuple[int, dict[str, str]]:
    """Read the CGI headers: status and headers of the response."""
    assert process.stdout is not None  # noqa: S101  (for the type checker)
    status, headers = 200, {}
    while line := (await process.stdout.readline()).decode("latin-1").strip():
        name, _, value = line.partition(":")
        if name.lower() == "status":
            status = int(value.split()[0])
        else:
            headers[name.lower()] = value.strip()
    return status, headers


async def _body(process: asyncio.subprocess.Process) -> AsyncIterator[bytes]:
    assert process.stdout is not None  # noqa: S101  (for the type checker)
    try:
        while chunk := await process.stdout.read(CHUNK_BYTES):
            yield chunk
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(process.wait(), END_TIMEOUT_S)
    finally:
        await _end(process)


async def _end(process: asyncio.subprocess.Process) -> None:
    """Leave nothing behind, also when the client went away in the middle."""
    if process.returncode is None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
    # What was not read yet would keep the pipe open; asyncio has no public way to say that nobody will, and waiting for it
    # could be cancelled once more.
    process._transport.close()  # type: ignore[attr-defined]  # noqa: SLF001
    await process.wait()


async def _main(arguments: argparse.Namespace, credential: str | None) -> None:
    user, _, token = (credential or "").partition(":")
    asked = (user, token) if credential else None
    async with GitServer(arguments.root, host=arguments.host, port=arguments.port, credentials=asked) as server:
        for name in arguments.create:
            await server.create(name, {"README.md": f"# {name}\n\nA repository to try things on.\n"})
        print(server.origin, flush=True)  # noqa: T201  (whoever started us reads it)
        await until_signal()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m ff_core.testing.git_server")
    parser.add_argument("--root", type=Path, required=True, help="folder of the repositories, NAME.git each")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=0, help="0: any free port")
    parser.add_argument("--create", action="append", default=[], metavar="NAME", help="make NAME with a README first")
    asyncio.run(_main(parser.parse_args(), os.environ.get("GIT_SERVER_CREDENTIAL")))
