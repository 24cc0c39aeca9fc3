"""A program of its own that packs: it takes neither the daemon's time nor its memory, and is killed when nobody wants it.

An order on standard input, the archive on standard output; nothing there and exit code 0: nothing changed. Exit code 3: an error
document on standard error.
"""

import errno
import os
import sys

from ff_core.checkpoint.errors import PACKER_FAILED, CheckpointDiskFull
from ff_core.checkpoint.order import PackOrder
from ff_core.checkpoint.pack import Order, pack
from ff_core.contract.base import ErrorView
from ff_core.errors import FFError
from ff_core.store.snapshot import copy_database

NICENESS = 10


def main() -> int:
    """See the module."""
    os.nice(NICENESS)
    wanted = PackOrder.model_validate_json(sys.stdin.buffer.read())
    order = Order(
        root=wanted.root,
        lists=wanted.lists,
        number=wanted.number,
        base=wanted.base,
        made_at=wanted.made_at,
        ignored=frozenset(map(bytes.fromhex, wanted.ignored)),
        copy_database=copy_database,
    )
    try:
        pack(order, sys.stdout.buffer)
        sys.stdout.buffer.flush()
    except FFError as exc:
        return _failed(exc)
    except OSError as exc:
        if exc.errno in {errno.ENOSPC, errno.EDQUOT}:
            return _failed(CheckpointDiskFull())
        raise
    return 0


def _failed(error: FFError) -> int:
    sys.stderr.write(ErrorView(code=error.code, message=error.detail).model_dump_json())
    return PACKER_FAILED


if __name__ == "__main__":
    sys.exit(main())
