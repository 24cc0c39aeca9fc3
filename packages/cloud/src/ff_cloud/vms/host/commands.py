"""Programs of the host: argv lists only, with a time limit, in a language that can be parsed. Blocks: for threads."""

import os
import subprocess
from collections.abc import Sequence

from ff_cloud.vms.host.errors import HostFailed

TIMEOUT_S = 20.0
COMPLAINT_CHARS_MAX = 300
_SBIN = "/usr/sbin:/sbin"
"""Where Debian keeps such programs; not on the path of everybody who may run them."""


def run(argv: Sequence[str], *, stdin: str = "", good: Sequence[int] = (0,), timeout_s: float = TIMEOUT_S) -> str:
    """What the program prints. Raises ``HostFailed`` when there is no such program, or it fails or takes too long."""
    environment = {**os.environ, "LC_ALL": "C", "PATH": f"{os.environ.get('PATH', '/usr/bin:/bin')}:{_SBIN}"}
    try:
        done = subprocess.run(
            argv, input=stdin, env=environment, capture_output=True, text=True, errors="replace", check=False, timeout=timeout_s
        )
    except OSError as error:
        raise HostFailed(f"{argv[0]} can't be run here ({error.strerror}). Install it, or run `ff-cloud doctor`.") from error
    except subprocess.TimeoutExpired as error:
        raise HostFailed(f"{argv[0]} took longer than {timeout_s:g} s. Look at the load of this machine.") from error
    if done.returncode not in good:
        said = " ".join((done.stderr or done.stdout).split())[:COMPLAINT_CHARS_MAX]
        raise HostFailed(f"{argv[0]} failed ({said or done.returncode}). Run `ff-cloud doctor` on this machine.")
    return done.stdout
