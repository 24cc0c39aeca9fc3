"""The only module that talks to the Docker Engine about VMs: questions, answers and refusals, nothing about what they mean."""

import asyncio
import json
import os
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

import aiodocker
import aiohttp
from aiodocker.exceptions import DockerError

from ff_cloud.vms.engine.reading import Refused, translate
from ff_cloud.vms.errors import DockerUnreachable
from ff_core.errors import InvalidInput

DEFAULT_URL = "unix:///var/run/docker.sock"
CONNECT_TIMEOUT_S = 5.0


class DockerClient:
    """One Docker Engine; made by :func:`docker_client`. Everything is to be asked inside of :func:`door`."""

    def __init__(self, docker: aiodocker.Docker, *, local: bool) -> None:
        self.local = local
        """Whether it is reached by a socket of this machine."""
        self._docker = docker

    async def ask(
        self, method: str, path: str, *, body: Mapping[str, Any] | None = None, params: Mapping[str, str] | None = None
    ) -> Any:
        """The answer of a question. Raises ``Refused``."""
        try:
            return await self._docker._query_json(path, method, data=body, params=params)  # noqa: SLF001  (no typed method)
        except DockerError as exc:
            raise Refused(exc.status, str(exc.message)) from exc

    async def find(self, path: str, *, params: Mapping[str, str] | None = None) -> Any:
        """What there is, or null when there is no such thing."""
        return await self.drop("GET", path, params=params)

    async def drop(
        self, method: str, path: str, *, body: Mapping[str, Any] | None = None, params: Mapping[str, str] | None = None
    ) -> Any:
        """The answer, or null when there is no such thing to act on."""
        try:
            return await self.ask(method, path, body=body, params=params)
        except Refused as exc:
            if exc.status == 404:
                return None
            raise

    async def lines(self, path: str, *, params: Mapping[str, str]) -> AsyncGenerator[bytes, None]:
        """An endless answer, line by line. aiodocker's own subscription keeps an unbounded queue."""
        forever = aiohttp.ClientTimeout(sock_connect=CONNECT_TIMEOUT_S)
        async with self._docker._query(path, params=params, timeout=forever) as response:  # noqa: SLF001
            try:
                async for line in response.content:
                    yield line
            finally:
                response.close()


@asynccontextmanager
async def docker_client(url: str | None) -> AsyncIterator[DockerClient]:
    """The Docker Engine at ``url``, else DOCKER_HOST, else the local socket. Nothing is asked yet. Raises ``InvalidInput``."""
    chosen = url or os.environ.get("DOCKER_HOST") or DEFAULT_URL
    try:
        docker = aiodocker.Docker(chosen, timeout=aiohttp.ClientTimeout(sock_connect=CONNECT_TIMEOUT_S))
    except ValueError as exc:
        raise InvalidInput(f"{chosen!r} is no address of a Docker Engine. Set DOCKER_HOST to one such as {DEFAULT_URL}.") from exc
    try:
        yield DockerClient(docker, local=chosen.startswith("unix:"))
    finally:
        await docker.close()


@asynccontextmanager
async def door(limit_s: float | None) -> AsyncIterator[None]:
    """Let nothing foreign through: neither Docker's refusals nor its silence."""
    try:
        async with asyncio.timeout(limit_s):
            yield
    except TimeoutError as exc:
        raise DockerUnreachable(
            f"The Docker Engine did not answer within {limit_s:g} s. Look at the load of its machine, then try again."
        ) from exc
    except aiohttp.ClientError as exc:
        raise DockerUnreachable from exc
    except DockerError as exc:
        raise translate(Refused(exc.status, str(exc.message))) from exc
    except Refused as exc:
        raise translate(exc) from exc


def filters(**wanted: list[str]) -> dict[str, str]:
    """The parameter of Docker's lists that narrows them down."""
    return {"filters": json.dumps(wanted)}
