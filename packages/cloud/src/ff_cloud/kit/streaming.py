"""Responses that go on: until the source ends, or the caller goes away."""

import asyncio
import contextlib
from collections.abc import AsyncGenerator

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

SEND_TIMEOUT_S = 60.0
"""A caller that takes nothing for so long is gone."""


class Stream(Response):
    """Sends what ``chunks`` yields, piece by piece.

    The first piece may be empty: it says that all is well so far. An error before it is an ordinary problem
    response, one after it cuts the connection. When the caller goes away, ``chunks`` is cancelled where it waits and
    finishes its clean-up (Starlette's own streaming response cancels the clean-up too).
    """

    def __init__(self, chunks: AsyncGenerator[bytes, None], media_type: str) -> None:
        super().__init__(media_type=media_type, headers={"Cache-Control": "no-store"})
        del self.headers["content-length"]
        self._chunks = chunks

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:  # noqa: ARG002
        """Send everything."""
        async with contextlib.aclosing(self._chunks) as chunks:
            try:
                first = await anext(chunks)
            except StopAsyncIteration:
                first = b""
            pump = asyncio.create_task(self._pump(first, chunks, send))
            gone = asyncio.create_task(_gone(receive))
            try:
                await asyncio.wait({pump, gone}, return_when=asyncio.FIRST_COMPLETED)
            finally:
                for task in (pump, gone):
                    task.cancel()
                await asyncio.wait({pump, gone})
            if not pump.cancelled():
                pump.result()

    async def _pump(self, first: bytes, chunks: AsyncGenerator[bytes, None], send: Send) -> None:
        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        await _send(send, first, more=True)
        async for chunk in chunks:
            await _send(send, chunk, more=True)
            await asyncio.sleep(0)  # neither source nor connection need ever wait; others must get their turn
        await _send(send, b"", more=False)


async def _send(send: Send, body: bytes, *, more: bool) -> None:
    async with asyncio.timeout(SEND_TIMEOUT_S):
        await send({"type": "http.response.body", "body": body, "more_body": more})


async def _gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
