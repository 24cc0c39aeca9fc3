"""The network between a desktop and a server, which can be cut."""

import asyncio
import socket
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from urllib.parse import urlsplit

CHUNK_BYTES = 65_536
_RESET = struct.pack("ii", 1, 0)
"""``SO_LINGER``: closing such a socket resets its connection."""


class Cable:
    """A relay. ``to`` is the server's URL, and may become another one."""

    def __init__(self, to: str) -> None:
        self.to = to
        self.port = 0
        self._server: asyncio.Server | None = None
        self._writers: set[asyncio.StreamWriter] = set()

    @property
    def url(self) -> str:
        """The server, through this."""
        return f"http://127.0.0.1:{self.port}"

    async def plug(self) -> None:
        """It works, at the same port as before. May be repeated."""
        if self._server is None:
            self._server = await asyncio.start_server(self._serve, "127.0.0.1", self.port)
            self.port = self._server.sockets[0].getsockname()[1]

    def cut(self) -> None:
        """Connections are reset, and new ones are refused. May be repeated."""
        if self._server is not None:
            self._server.close()
            self._server = None
        for writer in self._writers:
            writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
            writer.transport.abort()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        where = urlsplit(self.to)
        far: asyncio.StreamWriter | None = None
        self._writers.add(writer)
        try:
            answers, far = await asyncio.open_connection(where.hostname, where.port)
            self._writers.add(far)
            await asyncio.gather(_pass(reader, far), _pass(answers, writer))
        except OSError:
            pass
        finally:
            for each in (writer, far):
                if each is not None:
                    self._writers.discard(each)
                    each.transport.abort()


async def _pass(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(CHUNK_BYTES):
        writer.write(data)
        await writer.drain()
    with suppress(OSError):
        writer.write_eof()


@asynccontextmanager
async def cable(to: str) -> AsyncIterator[Cable]:
    """One that works, until the block is left."""
    found = Cable(to)
    await found.plug()
    try:
        yield found
    finally:
        found.cut()
