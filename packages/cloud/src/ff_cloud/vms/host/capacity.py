"""What this machine has and has left, read from the kernel."""

import os
from collections.abc import Iterable
from pathlib import Path

from ff_cloud.vms.engine.base import Capacity

PROC = Path("/proc")
PORTS_MAX = 1023
"""Of a bridge of Linux."""
PIDS_PER_CONTAINER = 4
"""Of a container that rests: the Docker Engine's shim and init, the daemon."""


def measure(folders: Iterable[Path], *, proc: Path = PROC) -> Capacity:
    """``folders`` are where VMs write to; the fullest of their file systems counts."""
    memory = _memory(proc)
    disks = [(found.f_blocks * found.f_frsize, found.f_bavail * found.f_frsize) for found in map(_statvfs, folders) if found]
    total, free = min(disks, key=lambda disk: disk[1], default=(None, None))
    pids, pids_max = _pids(proc), _number(proc / "sys/kernel/pid_max")
    return Capacity(
        memory_total_bytes=memory.get("MemTotal"),
        memory_available_bytes=memory.get("MemAvailable"),
        cpus=len(os.sched_getaffinity(0)),
        disk_total_bytes=total,
        disk_free_bytes=free,
        pids=pids,
        pids_max=pids_max,
    )


def containers_max(running: int | None, pids: int | None, pids_max: int | None) -> int:
    """The most containers that a network and the process table allow, with ``running`` of them there now."""
    if running is None or pids is None or pids_max is None:
        return PORTS_MAX
    return min(PORTS_MAX, running + max(0, pids_max - pids) // PIDS_PER_CONTAINER)


def _memory(proc: Path) -> dict[str, int]:
    lines = (line.split() for line in (proc / "meminfo").read_text().splitlines())
    return {words[0].rstrip(":"): int(words[1]) * 1024 for words in lines if words[-1] == "kB"}


def _pids(proc: Path) -> int | None:
    """Processes and threads there are now, from ``running/all`` in the load average."""
    try:
        return int((proc / "loadavg").read_text().split()[3].partition("/")[2])
    except (OSError, ValueError, IndexError):
        return None


def _number(path: Path) -> int | None:
    try:
        return int(path.read_text())
    except (OSError, ValueError):
        return None


def _statvfs(folder: Path) -> os.statvfs_result | None:
    for place in (folder, *folder.parents):
        try:
            return os.statvfs(place)
        except FileNotFoundError:
            continue
        except OSError:
            return None
    return None
