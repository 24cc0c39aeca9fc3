"""What the numbers were measured on, without what only this machine is called."""

import os
import platform
import subprocess
from pathlib import Path
from typing import Any

TIMEOUT_S = 30


def facts(image: str) -> dict[str, Any]:
    """Processors, memory, kernel, Docker Engine, and the size of the image."""
    meminfo = dict(line.split(":", 1) for line in Path("/proc/meminfo").read_text().splitlines())
    return {
        "processors": os.cpu_count(),
        "processor": _processor(),
        "memory_gb": round(int(meminfo["MemTotal"].split()[0]) * 1024 / 1e9, 1),
        "kernel": platform.release(),
        "docker": _docker("version", "--format", "{{.Server.Version}}"),
        "default_runtime": _docker("info", "--format", "{{.DefaultRuntime}}"),
        "storage_driver": _docker("info", "--format", "{{.Driver}}"),
        "cgroup_version": _docker("info", "--format", "{{.CgroupVersion}}"),
        "image_mb": round(int(_docker("image", "inspect", "--format", "{{.Size}}", image)) / 1e6),
    }


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.split(":", 1)[1].strip()
    return platform.machine()


def _docker(*arguments: str) -> str:
    return subprocess.run(["docker", *arguments], check=True, text=True, capture_output=True, timeout=TIMEOUT_S).stdout.strip()
