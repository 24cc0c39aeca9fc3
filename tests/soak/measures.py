"""What must not grow, however many workspaces came and went."""

import os
import shutil
import subprocess
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from place import Place, docker

from ff_cloud.vms.engine.hardening import LABEL_DEPLOYMENT

DISKS = Path("/var/lib/ff-vms")
MIB = 1 << 20

EQUAL = 0
ALLOWED: dict[str, int | None] = {
    "containers": EQUAL,
    "docker volumes": EQUAL,
    "folders of disks": EQUAL,
    "files beside disks": EQUAL,
    "mounts": EQUAL,
    "loop devices": EQUAL,
    "cables": EQUAL,
    "firewall rules": EQUAL,
    "rows: workspaces": EQUAL,
    "rows: vms": EQUAL,
    "rows: operations active": EQUAL,
    "rows: operations stuck": EQUAL,
    "rows: checkpoints": EQUAL,
    "blobs of checkpoints": EQUAL,
    "server: children": EQUAL,
    "server: files open": 12,  # connections that are kept for a while
    "server: threads": 8,  # of the pool for what blocks
    "server: memory, MiB": 64,
    "database: connections": 6,
    "database: size, MiB": 96,  # finished operations stay for a while, and dead rows until they are vacuumed
    "disks of VMs: used, MiB": 64,
    "machine: files of dockerd": None,
    "machine: disk used, MiB": None,
}
"""By how much each may be larger at the end. None: of the whole machine, shown only, since others may be at work on it."""


def measure(place: Place) -> dict[str, int]:
    """All of them, now: the pool should be full and nothing else be there."""
    disks = DISKS / place.deployment
    label = f"label={LABEL_DEPLOYMENT}={place.deployment}"
    bridge = _bridge(place)
    server = Path("/proc") / str(place.server.pid)
    return {
        "containers": len(place.containers()),
        "docker volumes": len(docker("volume", "ls", "--quiet", "--filter", label).split()),
        "folders of disks": len(list((disks / "volumes").glob("*"))),
        "files beside disks": sum(1 for _ in _files(disks)),
        "mounts": sum(f" {disks}/" in line for line in Path("/proc/self/mounts").read_text().splitlines()),
        "loop devices": _count(Path("/sys/block").glob("loop*/loop/backing_file"), lambda text: str(disks) in text),
        "cables": len(list(Path(f"/sys/class/net/{bridge}/brif").glob("*"))),
        "firewall rules": _firewall_rules(bridge),
        "rows: workspaces": _rows(place, "workspaces"),
        "rows: vms": _rows(place, "vms"),
        "rows: operations active": _rows(place, "operations where status in ('queued', 'running')"),
        "rows: operations stuck": _rows(place, "operations where status = 'stuck'"),
        "rows: checkpoints": _rows(place, "checkpoints"),
        "blobs of checkpoints": sum(path.is_file() for path in (place.folder / "data" / "checkpoints").rglob("*")),
        "server: children": len((server / f"task/{place.server.pid}/children").read_text().split()),
        "server: files open": len(list((server / "fd").iterdir())),
        "server: threads": len(list((server / "task").iterdir())),
        "server: memory, MiB": _status_kib(server, "VmRSS") >> 10,
        "database: connections": _rows(place, "pg_stat_activity where datname = current_database()") - 1,
        "database: size, MiB": int(place.ask("select pg_database_size(current_database())")[0][0]) // MIB,
        "disks of VMs: used, MiB": sum(path.stat().st_blocks * 512 for path in _files(disks, disks_too=True)) // MIB,
        "machine: files of dockerd": _files_of_dockerd(),
        "machine: disk used, MiB": shutil.disk_usage(place.folder).used // MIB,
    }


def table(begin: dict[str, int], end: dict[str, int]) -> str:
    """For people."""
    lines = [f"{'':28}{'begin':>9}{'end':>9}{'allowed':>9}"]
    for name, allowed in ALLOWED.items():
        most = "-" if allowed is None else str(begin[name] + allowed)
        mark = "  GREW" if name in grown(begin, end) else ""
        lines.append(f"{name:28}{begin[name]:>9}{end[name]:>9}{most:>9}{mark}")
    return "\n".join(lines)


def grown(begin: dict[str, int], end: dict[str, int]) -> list[str]:
    """What is larger than it may be."""
    return [name for name, allowed in ALLOWED.items() if allowed is not None and end[name] > begin[name] + allowed]


def _rows(place: Place, of: str) -> int:
    return int(place.ask(f"select count(*) from {of}")[0][0])


def _files(disks: Path, *, disks_too: bool = False) -> list[Path]:
    """Below the folder, not on the disks themselves."""
    found = []
    for folder, folders, names in os.walk(disks):
        folders[:] = [name for name in folders if name != "mnt"]
        found += [Path(folder) / name for name in names if disks_too or name != "disk.ext4"]
    return [path for path in found if path.exists()]


def _count(paths: object, wanted: Callable[[str], bool]) -> int:
    found = 0
    for path in paths:  # type: ignore[attr-defined]
        with suppress(OSError):
            found += wanted(path.read_text())
    return found


def _bridge(place: Place) -> str:
    """Docker names it by the network, unless it is told otherwise, which we do not."""
    return f"br-{docker('network', 'inspect', '--format', '{{.Id}}', place.network.name)[:12]}"


def _firewall_rules(bridge: str) -> int:
    try:
        said = subprocess.run(["iptables-save"], check=True, text=True, capture_output=True, timeout=30).stdout
    except (OSError, subprocess.SubprocessError):
        return 0
    return sum(bridge in line for line in said.splitlines())


def _status_kib(process: Path, field: str) -> int:
    return next(int(line.split()[1]) for line in (process / "status").read_text().splitlines() if line.startswith(field))


def _files_of_dockerd() -> int:
    with suppress(OSError, ValueError):
        return len(list(Path(f"/proc/{int(Path('/var/run/docker.pid').read_text())}/fd").iterdir()))
    return 0
