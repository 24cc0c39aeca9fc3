"""Draws ``vms.json`` as a picture: medians with their way to the 95th percentile, on a logarithmic scale.

Runs in an environment of its own (``bench/requirements-plot.txt``); :mod:`bench.publish` calls it as
``plot.py vms.json picture.png``.
"""

import importlib
import json
import sys
from pathlib import Path

BARS = (
    ("warm", "warm pool: ours", "ours"),
    ("burst_20", "20 at once, pool of 20: ours", "ours"),
    ("wake", "suspended, woken by a command: ours", "ours"),
    ("cold", "no warm VM: ours", "ours"),
    ("burst_100_hits", "100 at once, pool of 20: ours, hits", "ours"),
    ("burst_100_misses", "100 at once, pool of 20: ours, misses", "ours"),
    ("docker_run_crun", "docker run, crun", "peer"),
    ("docker_run", "docker run", "peer"),
    ("swe_rex", "SWE-ReX", "peer"),
    ("jupyterhub", "JupyterHub + DockerSpawner", "peer"),
)
COLOURS = {"ours": "#2a78d6", "peer": "#8a8984"}
INK, MUTED, GRID = "#0b0b0b", "#52514e", "#e1e0d9"


def main(source: Path, target: Path) -> None:
    """Draw."""
    matplotlib = importlib.import_module("matplotlib")
    matplotlib.use("Agg")
    pyplot = importlib.import_module("matplotlib.pyplot")
    rows = {row["name"]: row for row in json.loads(source.read_text())}
    bars = [(label, kind, rows[name]) for name, label, kind in BARS if rows.get(name, {}).get("p50_ms") is not None]
    bars.sort(key=lambda bar: -bar[2]["p50_ms"])
    figure, axes = pyplot.subplots(figsize=(9.6, 0.46 * len(bars) + 1.5), dpi=150)
    for place, (_, kind, row) in enumerate(bars):
        p50, p95 = row["p50_ms"], row["p95_ms"]
        axes.barh(place, p50, height=0.56, color=COLOURS[kind], zorder=2)
        axes.plot([p50, p95], [place, place], color=INK, linewidth=1.2, zorder=3, solid_capstyle="butt")
        axes.plot([p95, p95], [place - 0.14, place + 0.14], color=INK, linewidth=1.2, zorder=3)
        axes.annotate(_ms(p50), (p95, place), xytext=(6, 0), textcoords="offset points", va="center", color=INK, fontsize=9)
    axes.set_yticks(range(len(bars)), [label for label, _, _ in bars], fontsize=9, color=INK)
    axes.set_xscale("log")
    axes.set_xlim(10, max(row["p95_ms"] for _, _, row in bars) * 2.2)
    axes.xaxis.set_major_formatter(lambda value, _: _ms(value))
    axes.tick_params(axis="x", colors=MUTED, labelsize=8)
    axes.tick_params(axis="both", which="both", length=0)
    axes.grid(axis="x", color=GRID, zorder=0)
    for side in axes.spines.values():
        side.set_visible(False)
    axes.set_xlabel("median, logarithmic; the line goes to the 95th percentile", fontsize=8, color=MUTED)
    axes.set_title("From asking for a place to a command's first output", fontsize=11, color=INK, loc="left")
    figure.tight_layout()
    figure.savefig(target, metadata={"Software": None})


def _ms(value: float) -> str:
    return f"{value / 1000:.3g} s" if value >= 1000 else f"{value:.0f} ms"


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
