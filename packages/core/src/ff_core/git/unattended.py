"""Git that a server runs for itself: no configuration of its account or machine, no HOME, no redirect, bounded in all it does.

A credential found on the machine would make a private repository look public, and a host that is allowed must not lead to one
that is not.
"""

import asyncio
import os
import shutil
from dataclasses import dataclass
from pathlib import Path

from ff_core.git.clone import CREDENTIAL_HELPER
from ff_core.git.errors import CloneTimedOut, explain
from ff_core.git.remote import Credential, RepoUrl
from ff_core.git.run import git_env
from ff_core.process import ProgramTimedOut, run

LISTING_BYTES_MAX = 16 << 20
GRACE_S = 5
"""What git gets beyond its time when nobody is there to end it."""
_ULIMIT_BLOCK_BYTES = 512

# The credential goes to descriptor 9 (see ff_core.git.clone). ``timeout`` ends git also when we are gone, and no file may
# become larger than is allowed: a pack beyond that ends the clone while it is received, in words rather than by a signal.
_RUN = 'exec 9<&0 </dev/null; trap "" XFSZ; ulimit -f "$1"; shift; exec "$@"'

_SETTINGS = {
    "core.hooksPath": os.devnull,
    "core.fsync": "committed,reference",
    "credential.helper": "",
    "gc.auto": "0",
    "http.followRedirects": "false",
    "http.lowSpeedLimit": "1000",
    "http.lowSpeedTime": "30",
    "pack.windowMemory": "64m",
    "repack.writeBitmaps": "false",
    "transfer.bundleURI": "false",
}


@dataclass(frozen=True)
class Listing:
    """What a server says it has."""

    refs: dict[str, str] | None
    """Branches and tags with their objects; None when there are too many to compare."""


async def look(url: RepoUrl, *, credential: Credential | None, timeout_s: float, folder: Path) -> Listing:
    """Ask the server for its branches and tags: proof that ``credential`` (None: anybody) may read now.

    ``folder`` must exist, belong to us, and hold no configuration of git. Raises the errors of :mod:`ff_core.git.errors`.
    """
    argv = words(url, credential, gentle=False)
    try:
        done = await run(
            bounded([*argv, "ls-remote", "--heads", "--tags", "--", str(url)], timeout_s, file_bytes_max=0),
            cwd=folder,
            env=environment(url, folder),
            timeout_s=timeout_s,
            output_bytes_max=LISTING_BYTES_MAX,
            stdin=None if credential is None else credential.spoken().encode(),
        )
    except ProgramTimedOut as error:
        raise CloneTimedOut(f"The git server did not answer within {timeout_s:g} s.") from error
    if done.exit_code != 0:
        raise explain(done.exit_code, done.stderr.decode(errors="replace"), url=str(url))
    return Listing(None if done.truncated else await asyncio.to_thread(_listed, done.stdout))


def words(url: RepoUrl, credential: Credential | None, *, gentle: bool) -> list[str]:
    """Git with our settings; its credential comes on descriptor 9 and is for the server of ``url`` only.

    ``gentle``: with the lowest priority.
    """
    settings = dict(_SETTINGS)
    if credential is not None:
        settings[f"credential.{url.origin}.helper"] = CREDENTIAL_HELPER
    slow = []
    if gentle:
        settings["pack.threads"] = "1"
        slow = ["nice", "-n", "19", *(["ionice", "-c", "3"] if shutil.which("ionice") else [])]
    return [*slow, "git", *(word for name, value in settings.items() for word in ("-c", f"{name}={value}"))]


def bounded(argv: list[str], timeout_s: float, *, file_bytes_max: int) -> list[str]:
    """A command that moves its standard input to descriptor 9, ends in time and writes no larger file."""
    blocks = str(-(-file_bytes_max // _ULIMIT_BLOCK_BYTES))
    return ["sh", "-c", _RUN, "sh", blocks, "timeout", f"{timeout_s + GRACE_S:.0f}", *argv]


def environment(url: RepoUrl, home: Path) -> dict[str, str]:
    """What git may know of where it runs."""
    return git_env((url.scheme,)) | {
        "HOME": str(home),  # curl looks there for passwords
        "GIT_CONFIG_GLOBAL": os.devnull,
        "GIT_CONFIG_NOSYSTEM": "1",
    }


def _listed(text: bytes) -> dict[str, str]:
    """What ``git ls-remote`` lists, without what annotated tags point to. Names are bytes, with any alphabet's line ends."""
    pairs = (line.partition(b"\t") for line in text.split(b"\n"))
    return {os.fsdecode(ref): name.decode("ascii", "replace") for name, _, ref in pairs if ref and not ref.endswith(b"^{}")}
