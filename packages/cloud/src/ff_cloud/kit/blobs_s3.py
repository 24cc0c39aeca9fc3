"""Blobs in a bucket of S3, or of anything that speaks as it does.

Credentials are those of the environment: ``AWS_…`` variables, or the role of the machine.
"""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Iterator
from contextlib import aclosing, contextmanager, suppress
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

import obstore
from obstore.exceptions import BaseError
from obstore.store import S3Store

from ff_cloud.kit.blobs import (
    CHUNK_BYTES,
    LIST_MAX,
    BlobInfo,
    BlobMissing,
    BlobsUnavailable,
    Stored,
    Tally,
    checked_key,
    checked_prefix,
    measured,
)

if TYPE_CHECKING:
    from obstore.store import S3Config

PART_BYTES = 8 * 1024 * 1024
"""S3 takes 10,000 parts: objects of up to 80 GB."""
PARTS_MAX = 4
"""Sent at the same time, and so in memory."""
CONNECT_TIMEOUT_S = 10
REQUEST_TIMEOUT_S = 120
"""Of one request, which is at most a part; a download in one request may take longer, as long as something comes."""
SILENCE_S_MAX = 60.0
RETRIES_MAX = 4
RETRY_S_MAX = 120


class S3Blobs:
    """Blobs below ``prefix`` in ``bucket``. ``endpoint`` is that of a service that is not Amazon's, such as ``https://minio:9000``."""

    def __init__(self, bucket: str, prefix: str = "", *, endpoint: str | None = None) -> None:
        config: S3Config = {"virtual_hosted_style_request": False}
        if endpoint is not None:
            config["endpoint"] = endpoint
        self._store = S3Store(
            bucket,
            prefix=prefix or None,
            client_options={
                "connect_timeout": timedelta(seconds=CONNECT_TIMEOUT_S),
                "timeout": timedelta(seconds=REQUEST_TIMEOUT_S),
                "allow_http": endpoint is not None and endpoint.startswith("http://"),
            },
            retry_config={"max_retries": RETRIES_MAX, "retry_timeout": timedelta(seconds=RETRY_S_MAX)},
            config=config,
        )

    async def put(self, key: str, chunks: AsyncIterable[bytes]) -> Stored:
        """See :class:`ff_cloud.kit.blobs.Blobs`."""
        checked_key(key)
        tally = Tally()
        async with aclosing(measured(chunks, tally)) as source:
            head = bytearray()
            async for chunk in source:
                head += chunk
                if len(head) >= PART_BYTES:
                    await self._in_parts(key, bytes(head), source)
                    return tally.stored()
            with _translated():
                await obstore.put_async(self._store, key, bytes(head), use_multipart=False)
        return tally.stored()

    async def get(self, key: str, *, expected: Stored | None = None) -> AsyncGenerator[bytes, None]:
        """See :class:`ff_cloud.kit.blobs.Blobs`."""
        checked_key(key)
        tally = Tally()
        with _translated():
            found = (await obstore.get_async(self._store, key)).stream(min_chunk_size=CHUNK_BYTES)
        while True:
            try:
                with _translated():
                    async with asyncio.timeout(SILENCE_S_MAX):
                        chunk = bytes(await anext(found))
            except StopAsyncIteration:
                break
            except TimeoutError as exc:
                raise BlobsUnavailable from exc
            tally.add(chunk)
            yield chunk
        tally.require(expected)

    async def head(self, key: str) -> BlobInfo | None:
        """See :class:`ff_cloud.kit.blobs.Blobs`."""
        try:
            with _translated():
                meta = await obstore.head_async(self._store, checked_key(key))
        except BlobMissing:
            return None
        return BlobInfo(key, meta["size"], meta["last_modified"])

    async def delete(self, key: str) -> None:
        """See :class:`ff_cloud.kit.blobs.Blobs`."""
        with _translated(), suppress(FileNotFoundError):
            await obstore.delete_async(self._store, checked_key(key))

    async def list(self, prefix: str = "") -> AsyncGenerator[BlobInfo, None]:
        """See :class:`ff_cloud.kit.blobs.Blobs`."""
        pages = obstore.list(self._store, prefix=checked_prefix(prefix).rstrip("/") or None, chunk_size=LIST_MAX)
        while True:
            try:
                with _translated():
                    page = await anext(pages)
            except StopAsyncIteration:
                return
            for meta in page:
                yield BlobInfo(meta["path"], meta["size"], meta["last_modified"])

    async def tidy(self, older_than: datetime) -> int:  # noqa: ARG002
        """Nothing: parts of an interrupted upload can't be seen from here; the bucket's lifecycle rule for them removes them."""
        return 0

    async def _in_parts(self, key: str, head: bytes, source: AsyncIterator[bytes]) -> None:
        """Upload what is long. When we are cancelled the upload is given up in order, so that no part of it stays behind."""
        given_up = asyncio.Event()
        upload = asyncio.ensure_future(
            obstore.put_async(self._store, key, _until(given_up, head, source), chunk_size=PART_BYTES, max_concurrency=PARTS_MAX)
        )
        try:
            with _translated():
                await asyncio.shield(upload)
        except asyncio.CancelledError:
            given_up.set()
            with suppress(Exception):
                await upload
            raise


class _GivenUp(Exception):
    """Ends an upload."""


async def _until(given_up: asyncio.Event, head: bytes, source: AsyncIterator[bytes]) -> AsyncGenerator[bytes, None]:
    yield head
    stop = asyncio.create_task(given_up.wait())
    more: asyncio.Future[bytes] | None = None
    try:
        while True:
            more = asyncio.ensure_future(anext(source))
            await asyncio.wait({more, stop}, return_when=asyncio.FIRST_COMPLETED)
            if stop.done():
                raise _GivenUp
            try:
                yield more.result()
            except StopAsyncIteration:
                return
    finally:
        for task in (stop, more):
            if task is not None and not task.done():
                task.cancel()
                await asyncio.wait({task})


@contextmanager
def _translated() -> Iterator[None]:
    try:
        yield
    except FileNotFoundError as exc:
        raise BlobMissing from exc
    except BaseError as exc:
        raise BlobsUnavailable from exc
