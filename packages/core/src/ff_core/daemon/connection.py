"""One connection: what the wire says becomes requests, and answers become what the wire says.

HTTP/1.1 itself is h11's. Uvicorn and Starlette would do the same; importing them took a fifth of the time from the start of
a VM to its first command (docs/decisions/0010-the-daemons-own-http.md).
"""

import asyncio
import contextlib
import logging
from contextlib import aclosing
from dataclasses import dataclass
from typing import Protocol, cast

import h11

from ff_core.daemon.http import BUFFERED_BYTES_MAX, Body, ClientGone, Reply, Request, Response, Stream

HEAD_BYTES_MAX = 32 << 10

log = logging.getLogger("ff_core.daemon")


@dataclass(frozen=True)
class Patience:
    """How long we wait for others."""

    keep_alive_s: float = 75.0
    """A connection on which nothing is asked for so long is closed."""
    request_s: float = 20.0
    """For a new connection's first request; and for the rest of a body that was refused, which is thrown away: whoever is cut
    off while he sends would not hear why."""
    send_s: float = 60.0
    """A caller that takes nothing for so long is gone."""
    grace_s: float = 1.0
    """For open answers to end after everything behind them was stopped."""


class Application(Protocol):
    """What is behind the door."""

    async def handle(self, request: Request) -> Reply:
        """The answer. May raise anything."""
        ...

    def refuse(self, request: Request, error: Exception) -> Response:
        """The answer when :meth:`handle`, or the first piece of its stream, raised."""
        ...

    def begin(self, request: Request, answer: Reply) -> None:
        """The answer is about to be sent; its headers may still be added to."""
        ...


class Connection(asyncio.Protocol):
    """Requests of one client, one after the other."""

    def __init__(self, app: Application, connections: "set[Connection]", patience: Patience) -> None:
        self._app, self._connections, self._patience = app, connections, patience
        self._wire = h11.Connection(h11.SERVER, max_incomplete_event_size=HEAD_BYTES_MAX)
        self._loop = asyncio.get_running_loop()
        self._timer: asyncio.TimerHandle | None = None
        self._task: asyncio.Task[None] | None = None
        self._body: Body | None = None
        self._streaming = False
        self._closing = False
        self._drained: asyncio.Future[None] | None = None
        self.over: asyncio.Future[None] = self._loop.create_future()
        """Done when nothing of the connection is left."""

    @property
    def busy(self) -> bool:
        """A request is being answered."""
        return self._task is not None

    def finish(self) -> None:
        """Close after the answer that is under way, or now."""
        self._closing = True
        if not self.busy:
            self._transport.close()

    def abort(self) -> None:
        """Cut it."""
        self._transport.abort()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Somebody called."""
        self._transport = cast("asyncio.Transport", transport)
        self._connections.add(self)
        self._expect(self._patience.request_s)

    def data_received(self, data: bytes) -> None:
        """Something was said."""
        self._wire.receive_data(data)
        self._advance()

    def eof_received(self) -> None:
        """Nothing more will be said; who does not listen for the answer either is gone, and we can't tell them apart."""

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002
        """It is over, whoever ended it."""
        self._connections.discard(self)
        self.over.set_result(None)
        self._expect(None)
        if self._body is not None:
            self._body.end(broken=True)
        self._resume_sending()
        if self._streaming and self._task is not None:
            self._task.cancel()

    def pause_writing(self) -> None:
        """The client is slower than we are."""
        self._drained = self._loop.create_future()

    def resume_writing(self) -> None:
        """It caught up."""
        self._resume_sending()

    def _resume_sending(self) -> None:
        if self._drained is not None and not self._drained.done():
            self._drained.set_result(None)
        self._drained = None

    def _advance(self) -> None:
        """Take what the wire has."""
        while not self._transport.is_closing():
            try:
                event = self._wire.next_event()
            except h11.RemoteProtocolError as exc:
                self._refuse(exc.error_status_hint)
                return
            match event:
                case h11.Request():
                    self._begin(event)
                case h11.Data():
                    self._take(event.data)
                case h11.EndOfMessage():
                    if self._body is not None:
                        self._body.end()
                        self._body = None
                    self._transport.resume_reading()  # to notice when the client goes away
                    self._next()
                case h11.PAUSED:
                    self._transport.pause_reading()  # the next request waits for the end of this answer
                    return
                case _:
                    return

    def _begin(self, event: h11.Request) -> None:
        self._expect(None)
        headers: dict[str, str] = {}
        for name, value in event.headers:
            headers.setdefault(name.decode("latin-1"), value.decode("latin-1"))
        self._body = Body(self._balance, self._invite)
        request = Request(event.method.decode("latin-1"), event.target.decode("latin-1"), headers, self._body)
        self._task = self._loop.create_task(self._serve(request))

    def _take(self, data: bytes) -> None:
        if self.busy and self._body is not None:
            self._body.feed(bytes(data))

    def _invite(self) -> None:
        """A client may want to hear that its body is welcome before it sends it."""
        if self._wire.they_are_waiting_for_100_continue and not self._transport.is_closing():
            self._send(h11.InformationalResponse(status_code=100, headers=[]))

    def _balance(self) -> None:
        """Let a body come in as fast as it is read."""
        if self._body is None or self._transport.is_closing():
            return
        if self._body.buffered_bytes > BUFFERED_BYTES_MAX:
            self._transport.pause_reading()
        else:
            self._transport.resume_reading()

    async def _serve(self, request: Request) -> None:
        """Reply a request, and make ready for the next."""
        try:
            await self._answer(request)
        except (ClientGone, asyncio.CancelledError):
            self._transport.abort()
        except Exception:
            log.exception("%s %s broke", request.method, request.path)
            self._transport.abort()
        finally:
            self._task = None
            self._streaming = False
            self._next()

    async def _answer(self, request: Request) -> None:
        try:
            answer = await self._app.handle(request)
            if isinstance(answer, Stream):
                await self._stream(request, answer)
                return
        except ClientGone:
            raise
        except Exception as exc:
            if self._wire.our_state is not h11.SEND_RESPONSE:
                raise
            answer = self._app.refuse(request, exc)
        self._whole(request, answer)

    def _whole(self, request: Request, answer: Response) -> None:
        self._app.begin(request, answer)
        length = [("Content-Length", str(len(answer.body)))]
        head = h11.Response(status_code=answer.status, headers=[*answer.headers.items(), *length])
        body = [h11.Data(data=answer.body)] if answer.body and request.method != "HEAD" else []
        self._send(head, *body, h11.EndOfMessage())

    async def _stream(self, request: Request, answer: Stream) -> None:
        self._streaming = True
        if self._transport.is_closing():
            raise ClientGone
        async with aclosing(answer.chunks) as chunks:
            first = await anext(chunks, b"")
            self._app.begin(request, answer)
            head = h11.Response(status_code=answer.status, headers=[*answer.headers.items()])
            self._send(head, *([h11.Data(data=first)] if first else []))
            async for chunk in chunks:
                await self._drain()
                if chunk:
                    self._send(h11.Data(data=chunk))
        self._send(h11.EndOfMessage())

    async def _drain(self) -> None:
        """Wait until the client can take more, and let others have their turn meanwhile."""
        if self._drained is None:
            await asyncio.sleep(0)
            return
        try:
            async with asyncio.timeout(self._patience.send_s):
                await asyncio.shield(self._drained)
        except TimeoutError as exc:
            raise ClientGone from exc

    def _send(self, *events: h11.Event) -> None:
        if self._transport.is_closing():
            raise ClientGone
        self._transport.write(b"".join(self._wire.send(event) or b"" for event in events))

    def _next(self) -> None:
        """Go on to the next request when this one is over on both sides."""
        if self.busy or self._transport.is_closing():
            return
        if self._wire.our_state is h11.DONE and self._wire.their_state is h11.DONE and not self._closing:
            self._wire.start_next_cycle()
            self._expect(self._patience.keep_alive_s)
            self._transport.resume_reading()
            self._loop.call_soon(self._advance)
        elif self._wire.our_state is h11.DONE and self._wire.their_state is h11.SEND_BODY and not self._closing:
            self._expect(self._patience.request_s)  # for the rest of a body that nobody reads
            self._transport.resume_reading()
        else:
            self._transport.close()

    def _refuse(self, status: int) -> None:
        """What was said is not HTTP; so is this the end of it."""
        with contextlib.suppress(h11.LocalProtocolError, ClientGone):
            if self._wire.our_state in (h11.IDLE, h11.SEND_RESPONSE) and not self.busy:
                close = ("Connection", "close")
                self._send(h11.Response(status_code=status, headers=[close, ("Content-Length", "0")]), h11.EndOfMessage())
        self._transport.close()

    def _expect(self, within_s: float | None) -> None:
        """Close the connection unless something happens in time."""
        if self._timer is not None:
            self._timer.cancel()
        self._timer = None if within_s is None else self._loop.call_later(within_s, self._transport.close)
