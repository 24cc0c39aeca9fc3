"""A second clone of a repository: how long until it is checked out, with the machine's mirror and without.

Both ways go through a real daemon (a process here, not a container) and fetch over HTTP from a real git server in a process of
its own; they take turns in one run. The second way includes all it needs: asking the server whether the repository may be read,
the mirror's packs on their way into the daemon, and the clone that asks the server for what is newer.
"""

import argparse
import asyncio
import os
import random
import re
import secrets
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import cast
from urllib.parse import urlsplit

from bench.budgets import MIRRORS
from bench.report import Row, publish
from pydantic import SecretStr

from ff_cloud.credentials.service import Credentials
from ff_cloud.kit.db import Database
from ff_cloud.mirrors.folders import Folders
from ff_cloud.mirrors.policy import Rules
from ff_cloud.mirrors.service import Mirrors
from ff_cloud.testing.server import own_environment, running, running_git_server, scratch_folder
from ff_cloud.vms.daemon_client import DaemonClient
from ff_cloud.vms.daemon_http import DaemonHttp
from ff_cloud.vms.token import token_sha256
from ff_core.contract.daemon import Bind, ModelAccess, PrepareRepository
from ff_core.ids import UserId, WorkspaceId
from ff_core.world import SystemWorld

WORLD = SystemWorld()
SIZES = {"50 MB": (1, 7), "500 MB": (10, 3)}
"""What is multiplied by how much, and the rounds."""
TEXT_FILES, TEXT_BYTES = 400, 20_000
TEXT_COMMITS = 300
ASSETS, ASSET_BYTES, ASSET_VERSIONS = 10, 400_000, 11
TIMEOUT_S = 600.0
LISTENING = re.compile(r"listening on \S*?:(\d+)\n", re.MULTILINE)


def history(scale: int) -> Iterator[bytes]:
    """A repository as ``git fast-import`` reads it: text that is changed again and again, and pictures that are replaced."""
    chance = random.Random(scale)
    words = [bytes(chance.choices(b"abcdefghijklmnopqrstuvwxyz", k=chance.randint(2, 10))) for _ in range(3000)]

    def commit(files: dict[str, bytes]) -> bytes:
        parts = [b"commit refs/heads/main\ncommitter B <b@example.invalid> now\ndata 4\nwork\n"]
        parts += [f"M 100644 inline {name}\ndata {len(data)}\n".encode() + data + b"\n" for name, data in files.items()]
        return b"".join(parts)

    def text() -> list[bytes]:
        return [b" ".join(chance.choices(words, k=8)) for _ in range(TEXT_BYTES // 56)]

    texts = [text() for _ in range(TEXT_FILES * min(scale, 5))]
    yield commit({f"src/m{number % 40}/f{number}.txt": b"\n".join(lines) for number, lines in enumerate(texts)})
    for _ in range(TEXT_COMMITS * scale):
        changed = {}
        for number in chance.sample(range(len(texts)), 5):
            texts[number][chance.randrange(len(texts[number]))] = b" ".join(chance.choices(words, k=8))
            changed[f"src/m{number % 40}/f{number}.txt"] = b"\n".join(texts[number])
        yield commit(changed)
    for _ in range(ASSET_VERSIONS):
        yield commit({f"assets/a{number}.bin": chance.randbytes(ASSET_BYTES) for number in range(ASSETS * scale)})


def generate(repository: Path, scale: int) -> float:
    """Fill a bare repository; megabytes of its packs."""
    git = ["git", "-C", str(repository), "-c", "core.bigFileThreshold=200k"]
    importing = [*git, "fast-import", "--quiet", "--date-format=now"]
    with subprocess.Popen(importing, stdin=subprocess.PIPE) as process:
        assert process.stdin is not None
        for piece in history(scale):
            process.stdin.write(piece)
        process.stdin.close()
    assert process.returncode == 0
    subprocess.run([*git, "repack", "-a", "-d", "-q"], check=True)
    return sum(path.stat().st_size for path in repository.glob("objects/pack/*")) / 1e6


@contextmanager
def daemon(folder: Path) -> Iterator[tuple[int, str]]:
    """A fresh daemon; its port and token."""
    token = secrets.token_hex(32)
    root = folder / "vm"
    environment = own_environment({}) | {
        "FF_ROOT": str(root),
        "FF_PORT": "0",
        "FF_VM_ID": str(WORLD.new_id()),
        "FF_GENERATION": "1",
        "FF_TOKEN_SHA256": token_sha256(token),
        "FF_CLAUDE": "/bin/false",
        "FF_ALLOW_PLAIN_HTTP": "1",
    }
    command = [sys.executable, "-m", "ff_core.daemon"]
    log = folder / "daemon.log"
    log.unlink(missing_ok=True)
    try:
        with running(command, environment=environment, log=log, ready=LISTENING) as process:
            yield int(process.url), token
    finally:
        shutil.rmtree(root, ignore_errors=True)


async def checked_out(port: int, token: str, url: str, mirrors: Mirrors | None) -> dict[str, float]:
    """Seconds of each part, from the order to the checkout."""
    took = {"seed": 0.0, "clone": 0.0}
    async with DaemonHttp() as http:
        client = DaemonClient("127.0.0.1", port, token, 1, http)
        model = ModelAccess(base_url="http://127.0.0.1:9", api_key=SecretStr("sk-bench"))
        await client.bind(Bind(workspace_id=WorkspaceId(WORLD.new_id()), name="bench", model=model))
        began = time.monotonic()
        if mirrors is not None:
            seed = await mirrors.seed_for(UserId(WORLD.new_id()), url)
            assert seed is not None
            await client.seed(seed)
            took["seed"] = time.monotonic() - began
        await client.prepare_repository(PrepareRepository(url=url, timeout_s=TIMEOUT_S))
        took["all"] = time.monotonic() - began
        took["clone"] = took["all"] - took["seed"]
    return took


async def measure(folder: Path, url: str, rounds: int, size: str, megabytes: float) -> list[Row]:
    """Rows of one repository."""
    rules = Rules(hosts=("://".join(urlsplit(url)[:2]),), github="", allow_plain_http=True, bytes_max=8 << 30, free_bytes_min=0)
    mirrors = Mirrors(
        folders=Folders(folder / "mirrors", WORLD),
        rules=rules,
        # Nobody's credential is asked for when a repository is public.
        db=cast(Database, None),
        credentials=cast(Credentials, None),
        world=WORLD,
    )
    address = rules.admitted(url)
    assert address is not None
    began = time.monotonic()
    await mirrors.make(UserId(WORLD.new_id()), address)
    made_s = time.monotonic() - began
    plain: list[dict[str, float]] = []
    seeded: list[dict[str, float]] = []
    for number in range(rounds + 1):
        for which in (None, mirrors):
            with daemon(folder) as (port, token):
                took = await checked_out(port, token, url, which)
            if number:  # the first one fills the page cache
                (plain if which is None else seeded).append(took)
    first, second = [took["all"] for took in plain], [took["all"] for took in seeded]
    limit = MIRRORS.large_ratio_max if megabytes > 200 else MIRRORS.ratio_max
    return [
        Row(f"{size}: packs", "MB", [megabytes]),
        Row(f"{size}: the mirror is made, in the background", "s", [made_s]),
        Row(f"{size}: checked out, first clone", "s", first),
        Row(f"{size}: checked out, from the mirror", "s", second),
        Row(f"{size}: of which the seed, asked for and sent", "s", [took["seed"] for took in seeded]),
        Row(f"{size}: of which the clone from it", "s", [took["clone"] for took in seeded]),
        Row(f"{size}: ratio of medians", "x", [statistics.median(second) / statistics.median(first)], limit),
    ]


def main() -> int:
    """Measure and publish."""
    parser = argparse.ArgumentParser(prog="python -m bench.mirrors", description=__doc__)
    parser.add_argument("--sizes", nargs="*", default=list(SIZES), choices=list(SIZES))
    sizes = parser.parse_args().sizes
    folder = scratch_folder("ff-bench-")
    rows = []
    try:
        with running_git_server(folder, "127.0.0.1", []) as server:
            for size in sizes:
                scale, rounds = SIZES[size]
                repository = folder / "repositories" / f"r{scale}.git"
                subprocess.run(["git", "init", "--quiet", "--bare", "--initial-branch=main", str(repository)], check=True)
                megabytes = generate(repository, scale)
                os.sync()
                rows += asyncio.run(measure(folder, f"{server.url}/r{scale}.git", rounds, size, megabytes))
        return publish("mirrors", rows)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    sys.exit(main())
