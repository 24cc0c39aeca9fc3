"""The same promises from every store of blobs: a folder, and S3 over real HTTP."""

import asyncio
import hashlib
import itertools
import os
import random
from collections.abc import AsyncGenerator, AsyncIterator
from datetime import timedelta
from pathlib import Path

import boto3
import pytest
from moto.server import ThreadedMotoServer

from ff_cloud.kit import blobs_s3
from ff_cloud.kit.blobs import BlobDamaged, BlobMissing, Blobs, BlobsUnavailable, FolderBlobs, Stored
from ff_cloud.kit.blobs_s3 import S3Blobs
from ff_core.world import SystemWorld

NOW = SystemWorld().now
SIZES = [0, 1, 1024 * 1024, 8 * 1024 * 1024 - 1, 8 * 1024 * 1024, 20 * 1024 * 1024 + 3]


@pytest.fixture(scope="module")
def s3() -> AsyncIterator[str]:
    """Address of an S3 service."""
    variables = {"AWS_ACCESS_KEY_ID": "key", "AWS_SECRET_ACCESS_KEY": "secret", "AWS_REGION": "us-east-1"}
    before = {name: os.environ.get(name) for name in variables}
    os.environ.update(variables)
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()
    for name, value in before.items():
        os.environ.pop(name) if value is None else os.environ.update({name: value})


def client(url: str):
    return boto3.client("s3", endpoint_url=url, region_name="us-east-1")


_buckets = itertools.count(1)


@pytest.fixture(params=["folder", "s3"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Blobs:
    if request.param == "folder":
        return FolderBlobs(tmp_path / "deep" / "store")
    url = request.getfixturevalue("s3")
    bucket = f"bucket-{next(_buckets)}"
    made = client(url)
    made.create_bucket(Bucket=bucket)
    made.close()
    return S3Blobs(bucket, "some/prefix", endpoint=url)


async def chunks(content: bytes, size: int = 100_000) -> AsyncGenerator[bytes, None]:
    for at in range(0, len(content), size):
        yield content[at : at + size]


async def content(store: Blobs, key: str, expected: Stored | None = None) -> bytes:
    return b"".join([chunk async for chunk in store.get(key, expected=expected)])


async def names(store: Blobs, prefix: str = "") -> set[str]:
    return {info.key async for info in store.list(prefix)}


@pytest.mark.parametrize("size", SIZES)
async def test_what_is_put_is_got(store: Blobs, size: int) -> None:
    data = random.Random(size).randbytes(size)
    stored = await store.put("a/b", chunks(data))
    assert stored == Stored(size, hashlib.sha256(data).hexdigest())
    assert await content(store, "a/b", stored) == data
    head = await store.head("a/b")
    assert head is not None
    assert (head.key, head.size) == ("a/b", size)
    assert abs(head.modified_at - NOW()) < timedelta(minutes=1)


async def test_what_is_there_is_replaced_as_a_whole(store: Blobs) -> None:
    await store.put("a", chunks(b"x" * 1_000_000))
    await store.put("a", chunks(b"new"))
    assert await content(store, "a") == b"new"


@pytest.mark.parametrize("size", [100, 20 * 1024 * 1024])
async def test_a_source_that_breaks_leaves_nothing(store: Blobs, size: int) -> None:
    class Broken(Exception):
        pass

    async def breaking() -> AsyncGenerator[bytes, None]:
        async for chunk in chunks(b"x" * size):
            yield chunk
        raise Broken

    with pytest.raises(Broken):
        await store.put("a/b", breaking())
    assert await store.head("a/b") is None
    assert await names(store) == set()
    await store.put("a/b", chunks(b"old"))
    with pytest.raises(Broken):
        await store.put("a/b", breaking())
    assert await content(store, "a/b") == b"old"


@pytest.mark.parametrize("size", [100, 20 * 1024 * 1024])
async def test_who_is_cancelled_leaves_nothing(store: Blobs, s3: str, size: int) -> None:
    reached = asyncio.Event()

    async def endless() -> AsyncGenerator[bytes, None]:
        async for chunk in chunks(b"x" * size):
            yield chunk
        reached.set()
        await asyncio.Event().wait()

    putting = asyncio.create_task(store.put("a", endless()))
    await reached.wait()
    putting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await putting
    assert await names(store) == set()
    if isinstance(store, S3Blobs):
        made = client(s3)
        for bucket in made.list_buckets()["Buckets"]:
            assert "Uploads" not in made.list_multipart_uploads(Bucket=bucket["Name"])
        made.close()
    else:
        assert await store.tidy(NOW() + timedelta(hours=1)) == 0


async def test_what_is_missing(store: Blobs) -> None:
    assert await store.head("a/b") is None
    with pytest.raises(BlobMissing):
        await content(store, "a/b")
    await store.delete("a/b")
    assert await names(store) == set()


async def test_what_was_changed_is_not_taken_for_whole(store: Blobs) -> None:
    stored = await store.put("a", chunks(b"as it was"))
    await store.put("a", chunks(b"as it is!"))
    with pytest.raises(BlobDamaged):
        await content(store, "a", stored)


async def test_listing_and_deleting(store: Blobs) -> None:
    keys = {"a/1", "a/2", "a/b/3", "ab/4", "c"}
    for key in keys:
        await store.put(key, chunks(key.encode()))
    assert await names(store) == keys
    assert await names(store, "a/") == {"a/1", "a/2", "a/b/3"}
    assert await names(store, "none/") == set()
    assert {info.size async for info in store.list("a/b/")} == {5}
    await store.delete("a/1")
    await store.delete("a/1")
    assert await names(store, "a/") == {"a/2", "a/b/3"}


@pytest.mark.parametrize("key", ["", "/a", "a/", "../a", "a/../b", "a//b", ".incoming/x", "a\0b", "ä", "a b", "x" * 501])
async def test_what_is_no_key(store: Blobs, key: str) -> None:
    with pytest.raises(ValueError, match="not a key"):
        await store.put(key, chunks(b""))
    with pytest.raises(ValueError, match="not a key"):
        await content(store, key)


async def test_many_at_once(store: Blobs) -> None:
    data = {f"k/{n}": random.Random(n).randbytes(300_000) for n in range(20)}
    await asyncio.gather(*(store.put(key, chunks(value)) for key, value in data.items()))
    found = await asyncio.gather(*(content(store, key) for key in data))
    assert dict(zip(data, found, strict=True)) == data


def below(folder: Path) -> list[Path]:
    return list(folder.rglob("*"))


async def test_a_folder_is_for_our_eyes_and_tidy(tmp_path: Path) -> None:
    store = FolderBlobs(tmp_path / "store")
    await store.put("a/b", chunks(b"x"))
    modes = {path.relative_to(tmp_path).as_posix(): path.stat().st_mode & 0o777 for path in below(tmp_path)}
    assert modes == {"store": 0o700, "store/.incoming": 0o700, "store/a": 0o700, "store/a/b": 0o600}
    left = tmp_path / "store" / ".incoming" / "left"
    left.write_bytes(b"half")
    assert await store.tidy(NOW() - timedelta(hours=1)) == 0
    assert await store.tidy(NOW() + timedelta(hours=1)) == 1
    await store.delete("a/b")
    await store.tidy(NOW())
    assert [path.name for path in (tmp_path / "store").iterdir()] == [".incoming"]
    await store.put("a/b", chunks(b"x"))


async def test_a_folder_that_can_not_be(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(BlobsUnavailable):
        await FolderBlobs(tmp_path / "file" / "store").put("a", chunks(b""))


async def test_a_service_that_is_not_there(s3: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(blobs_s3, "RETRIES_MAX", 0)
    with pytest.raises(BlobsUnavailable):
        await S3Blobs("bucket", endpoint="http://127.0.0.1:9").put("a", chunks(b"x"))
    with pytest.raises(BlobMissing):  # no such bucket
        await S3Blobs("no-such-bucket", endpoint=s3).put("a", chunks(b"x"))
