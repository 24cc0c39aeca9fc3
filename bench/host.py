"""What runs on this host costs: memory, processor time and files, of containers by their cgroup and of processes by name."""

import os
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

CGROUPS = Path("/sys/fs/cgroup")


@dataclass(frozen=True)
class Cost:
    """Bytes without page cache that can be given back, and seconds of processor time since the start."""

    memory_bytes: int
    cpu_s: float


def container_cost(pid: int) -> Cost:
    """Of the container whose first process has this pid; cgroup version 1 or 2."""
    paths = {}
    for line in Path(f"/proc/{pid}/cgroup").read_text().splitlines():
        _, controllers, path = line.split(":", 2)
        for controller in controllers.split(","):
            paths[controller] = path.lstrip("/")
    if "memory" in paths:
        memory = CGROUPS / "memory" / paths["memory"]
        used, inactive = int((memory / "memory.usage_in_bytes").read_text()), "total_inactive_file"
        cpu_s = int((CGROUPS / "cpuacct" / paths["cpuacct"] / "cpuacct.usage").read_text()) / 1e9
    else:
        memory = CGROUPS / paths[""]
        used, inactive = int((memory / "memory.current").read_text()), "inactive_file"
        cpu_s = _fields(memory / "cpu.stat")["usage_usec"] / 1e6
    return Cost(used - _fields(memory / "memory.stat")[inactive], cpu_s)


def process_cost(pid: int) -> Cost:
    """Of one process; pages that several share count in parts."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    cpu_s = (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        if line.startswith("Pss:"):
            return Cost(int(line.split()[1]) * 1024, cpu_s)
    return Cost(0, cpu_s)


def sum_of(costs: list[Cost]) -> Cost:
    """All together."""
    return Cost(sum(cost.memory_bytes for cost in costs), sum(cost.cpu_s for cost in costs))


def processes(wanted: Callable[[list[str]], bool]) -> dict[int, Cost]:
    """The processes whose command line is wanted, and their costs."""
    found = {}
    for folder in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):  # it ended meanwhile
            words = (folder / "cmdline").read_bytes().decode(errors="replace").split("\0")
            if wanted(words):
                found[int(folder.name)] = process_cost(int(folder.name))
    return found


def family(pid: int) -> dict[int, Cost]:
    """A process and all its descendants."""
    parents = {}
    for folder in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            parents[int(folder.name)] = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
    wanted, found = {pid}, {}
    while wanted:
        each = wanted.pop()
        with suppress(OSError):
            found[each] = process_cost(each)
        wanted |= {child for child, parent in parents.items() if parent == each}
    return found


def memory_available_bytes() -> int:
    """What new programs could have."""
    return _fields(Path("/proc/meminfo"))["MemAvailable:"] * 1024


def files_open() -> int:
    """Open files of the whole machine."""
    return int(Path("/proc/sys/fs/file-nr").read_text().split()[0])


def _fields(path: Path) -> dict[str, int]:
    return {words[0]: int(words[1]) for line in path.read_text().splitlines() if len(words := line.split()) >= 2}
