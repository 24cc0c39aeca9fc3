"""The workspace image with another program in place of the daemon, for tests of what surrounds it."""

import json
import secrets
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from ff_cloud.vms.image import LATEST

TIMEOUT_S = 60


@contextmanager
def image_running(argv: Sequence[str]) -> Iterator[str]:
    """The tag of an image that runs ``argv``; it goes when this is left. Needs ``ff-cloud image build`` to have been run."""
    tag = f"ff-test:{secrets.token_hex(4)}"
    _docker(["build", "--quiet", "--tag", tag, "-"], f"FROM {LATEST}\nCMD {json.dumps(list(argv))}\n")
    try:
        yield tag
    finally:
        _docker(["rmi", "--force", tag])


def _docker(argv: Sequence[str], stdin: str = "") -> None:
    subprocess.run(["docker", *argv], input=stdin, text=True, check=True, capture_output=True, timeout=TIMEOUT_S)
