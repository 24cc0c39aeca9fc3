"""Results: a table for people and ``bench/results/NAME.json`` for programs."""

import json
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parent / "results"


@dataclass(frozen=True)
class Row:
    """What was measured under one name. ``limit`` is for the median, in ``unit``; None: only reported."""

    name: str
    unit: str
    samples: Sequence[float]
    limit: float | None = None

    @property
    def median(self) -> float:
        """The middle of the samples."""
        return statistics.median(self.samples)

    @property
    def ok(self) -> bool:
        """Whether the promise is kept."""
        return self.limit is None or self.median <= self.limit

    def quantile(self, share: float) -> float:
        """The smallest sample that is not exceeded by this share of them."""
        ordered = sorted(self.samples)
        return ordered[min(len(ordered) - 1, int(share * len(ordered)))]

    def as_json(self) -> dict[str, Any]:
        """One row of the file."""
        values = {"p50": self.median, "p95": self.quantile(0.95), "p99": self.quantile(0.99)}
        return {
            "name": self.name,
            **{f"{name}_{self.unit}": round(value, 3) for name, value in values.items()},
            f"limit_{self.unit}": self.limit,
            "n": len(self.samples),
            "ok": self.ok,
        }


def publish(name: str, rows: Sequence[Row]) -> int:
    """Print and write the rows; the exit code of the benchmark."""
    print(f"{'':44} {'p50':>9} {'p95':>9} {'limit':>9}      n")
    for row in rows:
        limit = "" if row.limit is None else f"{row.limit:9.2f}"
        verdict = "" if row.limit is None else ("  ok" if row.ok else "  MISSED")
        label = f"{row.name} [{row.unit}]"
        print(f"{label:44} {row.median:9.2f} {row.quantile(0.95):9.2f} {limit:>9} {len(row.samples):6}{verdict}")
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / f"{name}.json").write_text(json.dumps([row.as_json() for row in rows], indent=2) + "\n")
    return 0 if all(row.ok for row in rows) else 1
