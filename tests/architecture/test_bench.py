"""The benchmark's own arithmetic: what counts as kept, what a table says, what it is compared with."""

import importlib
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch):
    """Modules of ``bench/``, which is not installed."""
    monkeypatch.syspath_prepend(str(ROOT))

    def module(name: str) -> ModuleType:
        return importlib.import_module(f"bench.{name}")

    return module


@pytest.mark.parametrize(
    ("samples", "promise", "kept"),
    [
        ([1.0, 2.0, 9.0], {}, True),
        ([1.0, 2.0, 9.0], {"limit": 2.0}, True),
        ([1.0, 2.0, 9.0], {"limit": 1.9}, False),
        ([1.0, 2.0, 9.0], {"limit": 2.0, "limit_p95": 8.0}, False),
        ([1.0, 2.0], {"failures": 1, "success_min": 1.0}, False),
        ([1.0, 2.0], {"failures": 1, "reason": "it died"}, True),
        ([], {"limit": 5.0}, False),
        ([], {"reason": "not here"}, False),
        ([], {}, True),
    ],
)
def test_a_promise_is_kept_by_median_tail_and_success(bench, samples, promise, kept):
    assert bench("report").Row("x", "ms", samples, **promise).ok is kept


def test_what_is_not_promised_fails_nothing(bench, tmp_path, monkeypatch, capsys):
    report = bench("report")
    monkeypatch.setattr(report, "RESULTS", tmp_path)
    absent = report.Row("swe_rex", "ms", [], reason="no network")
    assert report.publish("x", [report.Row("warm", "ms", [1.0], 2.0), absent]) == 0
    assert report.publish("x", [report.Row("warm", "ms", [3.0], 2.0), absent]) == 1
    assert "no network" in capsys.readouterr().out


def test_ratios_are_ours_to_theirs_and_left_out_without_a_peer(bench):
    row = bench("report").Row
    rows = {"warm": row("warm", "ms", [10.0, 20.0, 40.0]), "docker_run": row("docker_run", "ms", [200.0])}
    found = {each.name: each.median for each in bench("vms").ratios(rows)}
    assert found == {"warm_vs_docker_run": 0.1, "warm_p95_vs_docker_run": 0.2}


def test_the_table_of_the_page_has_what_was_promised_and_measured(bench):
    row = bench("report").Row("warm", "ms", [25.0], 30.0, 80.0)
    line = bench("publish").table([row.as_json()]).splitlines()[-1]
    assert "25 ms" in line
    assert "30 ms, p95 80 ms" in line
    assert "| kept |" in line


def test_only_what_stands_between_the_marks_is_replaced(bench):
    publish = bench("publish")
    page = "a\n<!-- vms -->\nold\n<!-- end of vms -->\nb\n"
    assert publish.between(page, "vms", "new") == "a\n<!-- vms -->\nnew\n<!-- end of vms -->\nb\n"
    with pytest.raises(SystemExit, match="lacks the marks of auth"):
        publish.between(page, "auth", "new")


def test_the_page_has_a_place_for_every_result(bench):
    publish = bench("publish")
    page = publish.PAGE.read_text()
    for name in (*publish.FILES, "machine"):
        assert f"<!-- {name} -->\nfresh\n<!-- end of {name} -->" in publish.between(page, name, "fresh")
