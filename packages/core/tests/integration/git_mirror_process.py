"""``python git_mirror_process.py FOLDER URL ROUNDS``: a process that keeps a mirror, to race with and to be killed."""

import asyncio
import sys
from contextlib import suppress
from pathlib import Path

from ff_core.git.locks import LockBusy
from ff_core.git.mirror import Mirror
from ff_core.git.remote import parse_repo_url
from ff_core.world import SystemWorld


async def main(folder: Path, url: str, rounds: int) -> None:
    mirror = Mirror(folder, parse_repo_url(url, allow_plain_http=True), world=SystemWorld())
    sys.stdout.write("begun\n")
    sys.stdout.flush()
    for _ in range(rounds):
        await mirror.ensure(credential=None, timeout_s=60, bytes_max=1 << 30)
        with suppress(LockBusy):
            await mirror.tidy(timeout_s=60)
    sys.stdout.write("done\n")


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])))
