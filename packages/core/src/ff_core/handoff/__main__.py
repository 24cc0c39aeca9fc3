"""A program of its own that packs and unpacks: it runs as the workspace's user, and is killed when nobody wants it any more.

The process that waits for it as the only word, an order on standard input (:data:`ff_core.handoff.orders.Order`), the answer on
standard output; lines of progress on standard error. Exit code 3: the answer is :class:`Failed`.
"""

import errno
import logging
import os
import signal
import sys
import threading
import time
from typing import TYPE_CHECKING

from pydantic import TypeAdapter, ValidationError

from ff_core.contract.base import ErrorView, View
from ff_core.errors import FFError
from ff_core.git.errors import CloneDiskFull
from ff_core.handoff.child import FAILED
from ff_core.handoff.errors import HandoffDiskFull, HandoffFailed
from ff_core.handoff.orders import Failed, Land, Look, Obstacles, Order, Pack, Progress, Settle, Survey, Unpack

if TYPE_CHECKING:
    from ff_core.handoff.look import OnProgress

NICENESS = 5
TELL_EVERY_S = 0.2
ORPHAN_S = 0.2
"""How soon it notices that nobody waits for it any more."""


def main() -> int:
    """See the module."""
    os.nice(NICENESS)
    threading.Thread(target=_end_with_parent, args=(int(sys.argv[1]),), daemon=True).start()
    try:
        order: Order = TypeAdapter(Order).validate_json(sys.stdin.buffer.read())
        answer, code = _carry_out(order, _Telling()), 0
    except FFError as exc:
        answer, code = _failed(HandoffDiskFull() if isinstance(exc, CloneDiskFull) else exc), FAILED
    except OSError as exc:
        if exc.errno in {errno.ENOSPC, errno.EDQUOT}:
            answer = _failed(HandoffDiskFull())
        else:
            logging.getLogger("ff_core.handoff").exception("a file could not be read or written")
            answer = _failed(HandoffFailed(f"A file of the workspace could not be read or written: {exc.strerror}."))
        code = FAILED
    except ValidationError:
        answer, code = _failed(HandoffFailed("The packing process did not understand its order.")), FAILED
    sys.stdout.write(answer.model_dump_json())
    sys.stdout.flush()
    return code


def _end_with_parent(parent: int) -> None:
    """Somebody who was killed can't kill us, and whoever comes after him may begin the same again."""
    while os.getppid() == parent:
        time.sleep(ORPHAN_S)
    if os.getpgrp() == os.getpid():
        os.killpg(0, signal.SIGTERM)  # with git, which takes its lock files away
    os.kill(os.getpid(), signal.SIGKILL)


def _carry_out(order: Order, telling: "OnProgress") -> View:  # noqa: PLR0911  (one for each order)
    from ff_core.handoff.landing import fingerprint_of, land, obstacles  # noqa: PLC0415
    from ff_core.handoff.pack import pack, survey  # noqa: PLC0415  (each order loads what it needs)
    from ff_core.handoff.settle import settle  # noqa: PLC0415
    from ff_core.handoff.unpack import unpack  # noqa: PLC0415

    match order:
        case Unpack():
            return unpack(order, telling)
        case Settle():
            return settle(order)
        case Look():
            return fingerprint_of(order, telling)
        case Obstacles():
            return obstacles(order)
        case Land():
            return land(order, telling)
        case Pack():
            return pack(order, telling)
        case Survey():
            return survey(order, telling)


def _failed(error: FFError) -> Failed:
    readable = error.detail.encode(errors="backslashreplace").decode()  # names of folders need not be text
    return Failed(error=ErrorView(code=error.code, message=readable))


class _Telling:
    """Lines on standard error, not too many; the first of a step always."""

    def __init__(self) -> None:
        self._step, self._at_s = "", 0.0

    def __call__(self, progress: Progress) -> None:
        now_s = time.monotonic()
        if progress.step == self._step and now_s - self._at_s < TELL_EVERY_S:
            return
        self._step, self._at_s = progress.step, now_s
        sys.stderr.write(progress.model_dump_json() + "\n")
        sys.stderr.flush()


if __name__ == "__main__":
    sys.exit(main())
