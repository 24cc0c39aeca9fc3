"""Puts what ``bench/results`` holds into docs/benchmarks.md, between its marks, and draws docs/benchmarks.png."""

import asyncio
import json
import sys
from pathlib import Path
from typing import Any

from bench.peers.base import command
from bench.peers.install import python_with
from bench.report import RESULTS

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs/benchmarks.md"
PICTURE = ROOT / "docs/benchmarks.png"
PLOT_TIMEOUT_S = 120.0
FILES = ("vms", "daemon", "mirrors", "handoff", "gateway", "auth", "capacity")
MEANINGS = {
    "warm": "order to first output, a warm VM waiting",
    "warm_post": "… of it, the order's answer",
    "warm_exec": "… of it, the command",
    "warm_missed": "the pool was full, and yet none was found",
    "suspend": "asked to suspend, until its VM is stopped",
    "wake": "command in a suspended workspace, to first output",
    "burst_20": "20 orders at once, a pool of 20",
    "burst_20_hits": "… that found a warm VM",
    "burst_20_misses": "… that found none",
    "burst_100": "100 orders at once, a pool of 20",
    "burst_100_hits": "… that found a warm VM",
    "burst_100_misses": "… that found none",
    "cold": "order to first output, no pool",
    "cold_post": "… of it, the order's answer",
    "cold_exec": "… of it, the command, which waits for the VM",
    "docker_run": "`docker run --rm` of the same image, to first output",
    "docker_run_crun": "the same with `--runtime crun`",
    "swe_rex": "SWE-ReX, `DockerDeployment`",
    "jupyterhub": "JupyterHub with DockerSpawner",
    "warm_vs_docker_run": "medians",
    "warm_vs_swe_rex": "medians",
    "warm_vs_jupyterhub": "medians",
    "cold_vs_docker_run": "medians",
    "cold_vs_docker_run_crun": "medians",
    "warm_p95_vs_docker_run": "95th percentile of warm to the median of `docker run`",
}


def table(rows: list[dict[str, Any]]) -> str:
    """A table of one file."""
    lines = ["| | p50 | p95 | p99 | n | success | limit | |", "|---|--:|--:|--:|--:|--:|--:|---|"]
    for row in rows:
        unit = next(key.removeprefix("p50_") for key in row if key.startswith("p50_"))
        name = f"`{row['name']}`" if row["name"].replace("_", "").isalnum() else row["name"]
        meaning = f" {MEANINGS[row['name']]}" if row["name"] in MEANINGS else ""
        numbers = [_number(row[f"{share}_{unit}"], unit) for share in ("p50", "p95", "p99")]
        limit, limit_p95 = row[f"limit_{unit}"], row.get(f"limit_p95_{unit}")
        limits = [_number(limit, unit)] if limit is not None else []
        limits += [f"p95 {_number(limit_p95, unit)}"] if limit_p95 is not None else []
        success = f"{row['success_rate'] * 100:.4g} %" if row["n"] or row["failures"] else ""
        verdict = ("kept" if row["ok"] else "**missed**") if limits else ("" if row["ok"] else f"**failed**: {row['reason']}")
        lines.append(f"| {name}{meaning} | {' | '.join(numbers)} | {row['n']} | {success} | {', '.join(limits)} | {verdict} |")
    return "\n".join(lines)


def _number(value: float | None, unit: str) -> str:
    if value is None:
        return ""
    digits = f"{value:.0f}" if abs(value) >= 100 else f"{value:.3g}"
    return f"{digits} {unit}" if unit != "x" else f"{digits} ×"  # noqa: RUF001  (the sign is meant)


def between(text: str, mark: str, new: str) -> str:
    """``text`` with ``new`` between the two comments of ``mark``."""
    begin, end = f"<!-- {mark} -->", f"<!-- end of {mark} -->"
    before, found, rest = text.partition(begin)
    _, ended, after = rest.partition(end)
    if not found or not ended:
        raise SystemExit(f"publish: {PAGE.name} lacks the marks of {mark}")
    return f"{before}{begin}\n{new}\n{end}{after}"


def machine() -> str:
    """The sentence about the machine."""
    facts = json.loads((RESULTS / "machine.json").read_text())
    return (
        f"Measured on {facts['processors']} processors ({facts['processor']}), {facts['memory_gb']} GB, Linux {facts['kernel']}, "
        f"Docker Engine {facts['docker']} ({facts['storage_driver']}, cgroup version {facts['cgroup_version']}, default runtime "
        f"{facts['default_runtime']}); the image has {facts['image_mb']} MB."
    )


async def picture() -> None:
    """Draw it."""
    python = await python_with("plot") / "python"
    plot = Path(__file__).with_name("plot.py")
    await command(str(python), str(plot), str(RESULTS / "vms.json"), str(PICTURE), timeout_s=PLOT_TIMEOUT_S)


def main() -> int:
    """Publish what there is; a benchmark without results keeps its last table."""
    text = PAGE.read_text()
    for name in FILES:
        source = RESULTS / f"{name}.json"
        if source.exists():
            text = between(text, name, table(json.loads(source.read_text())))
    if (RESULTS / "machine.json").exists():
        text = between(text, "machine", machine())
    PAGE.write_text(text)
    if (RESULTS / "vms.json").exists():
        asyncio.run(picture())
    return 0


if __name__ == "__main__":
    sys.exit(main())
