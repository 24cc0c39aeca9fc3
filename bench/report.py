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
    """What was measured under one name. Limits are in ``unit``: ``limit`` for the median, ``limit_p95``; None: only reported."""

    name: str
    unit: str
    samples: Sequence[float]
    limit: float | None = None
    limit_p95: float | None = None
    failures: int = 0
    """Attempts that have no sample, since they came to nothing."""
    success_min: float = 0.0
    reason: str | None = None
    """Why it could not be measured, or why some attempts failed."""

    @property
    def median(self) -> float:
        """The middle of the samples."""
        return statistics.median(self.samples)

    @property
    def promised(self) -> bool:
        """Whether a budget stands behind it."""
        return self.limit is not None or self.limit_p95 is not None or self.success_min > 0

    @property
    def ok(self) -> bool:
        """Whether there is something measured, where something was tried, and the promise is kept."""
        if not self.samples:
            return self.reason is None and self.failures == 0 and self.limit is None and self.limit_p95 is None
        return (
            (self.limit is None or self.median <= self.limit)
            and (self.limit_p95 is None or self.quantile(0.95) <= self.limit_p95)
            and self.success >= self.success_min
        )

    @property
    def success(self) -> float:
        """The share of attempts that came to something; 1 without any."""
        attempts = len(self.samples) + self.failures
        return len(self.samples) / attempts if attempts else 1.0

    def quantile(self, share: float) -> float:
        """The smallest sample that is not exceeded by this share of them."""
        ordered = sorted(self.samples)
        return ordered[min(len(ordered) - 1, int(share * len(ordered)))]

    def as_json(self) -> dict[str, Any]:
        """One row of the file."""
        values: dict[str, float | None] = dict.fromkeys(("p50", "p95", "p99"))
        if self.samples:
            values = {"p50": self.median, "p95": self.quantile(0.95), "p99": self.quantile(0.99)}
        return {
            "name": self.name,
            **{f"{name}_{self.unit}": None if value is None else round(value, 3) for name, value in values.items()},
            f"limit_{self.unit}": _rounded(self.limit),
            f"limit_p95_{self.unit}": _rounded(self.limit_p95),
            "n": len(self.samples),
            "failures": self.failures,
            "success_rate": round(self.success, 4),
            "ok": self.ok,
            "reason": self.reason,
        }


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 4)


def publish(name: str, rows: Sequence[Row]) -> int:
    """Print and write the rows; the exit code of the benchmark, 1 when a promise is not kept."""
    print(f"{'':44} {'p50':>9} {'p95':>9} {'limit':>9} {'p95 limit':>9}      n")
    for row in rows:
        print(_line(row))
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / f"{name}.json").write_text(json.dumps([row.as_json() for row in rows], indent=2) + "\n")
    return 0 if all(row.ok for row in rows if row.promised) else 1


def _line(row: Row) -> str:
    label = f"{row.name} [{row.unit}]"
    numbers = (row.median, row.quantile(0.95)) if row.samples else (None, None)
    cells = " ".join(f"{'' if cell is None else f'{cell:.2f}':>9}" for cell in (*numbers, row.limit, row.limit_p95))
    verdict = ("ok" if row.ok else "MISSED") if row.promised else ("" if row.ok else "FAILED")
    failed = f"{row.failures} failed" if row.failures else ""
    return f"{label:44} {cells} {len(row.samples):6}  {verdict} {failed} {row.reason or ''}".rstrip()
