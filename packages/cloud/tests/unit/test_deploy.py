"""The dashboard, the alerts and docs/operations.md name what the server has, and all of it."""

import json
import re
from pathlib import Path

import pytest
import yaml
from typer.main import get_command

from ff_cloud.cli import app
from ff_cloud.kit.metrics import Metrics
from ff_cloud.settings import CloudSettings, variable

ROOT = Path(__file__).parents[4]
DASHBOARD = json.loads((ROOT / "deploy/grafana/ff-cloud.json").read_text())
ALERTS = [
    rule for group in yaml.safe_load((ROOT / "deploy/prometheus/alerts.yml").read_text())["groups"] for rule in group["rules"]
]
PAGE = (ROOT / "docs/operations.md").read_text()

METRIC = r"(?:ff|process)_[a-z0-9_]+"
USE = re.compile(rf"\b(?P<name>{METRIC})(?:{{(?P<matchers>[^}}]*)}})?")
MATCHER = re.compile(r"([a-z_]+)\s*(?:=~|!~|!=|=)")
GROUPING = re.compile(r"\b(?:by|without)\s*\(([^)]*)\)")
FROM_PROMETHEUS = {"job", "instance"}


def labels_of_series() -> dict[str, set[str]]:
    """Every series' name, with its labels."""
    metrics = Metrics.build()
    metrics.operations.expect("k", ["s"])
    metrics.loops.expect("l", 0.0)
    found: dict[str, set[str]] = {}
    for family in metrics.registry.collect():
        for sample in family.samples:
            found.setdefault(sample.name, set()).update(sample.labels)
    return found


SERIES = labels_of_series()


def expressions():
    """Every PromQL expression there is, with where it stands."""
    for panel in DASHBOARD["panels"]:
        for target in panel.get("targets", ()):
            yield f"panel {panel['title']}", target["expr"]
    for annotation in DASHBOARD["annotations"]["list"]:
        if "expr" in annotation:
            yield f"annotation {annotation['name']}", annotation["expr"]
    for variable_ in DASHBOARD["templating"]["list"]:
        if "definition" in variable_:
            yield f"variable {variable_['name']}", variable_["definition"]
    for rule in ALERTS:
        yield f"alert {rule['alert']}", rule["expr"]


@pytest.mark.parametrize(("where", "expression"), list(expressions()), ids=str)
def test_every_series_and_label_that_is_asked_for_exists(where, expression):
    asked = list(USE.finditer(expression))
    assert asked or "up{" in expression
    for use in asked:
        assert use["name"] in SERIES, use["name"]
        assert set(MATCHER.findall(use["matchers"] or "")) <= SERIES[use["name"]] | FROM_PROMETHEUS
    known = set().union(*(SERIES[use["name"]] for use in asked)) | FROM_PROMETHEUS if asked else FROM_PROMETHEUS
    for group in GROUPING.findall(expression):
        assert {label.strip() for label in group.split(",")} <= known


def test_the_labels_in_legends_are_those_that_are_left():
    for panel in DASHBOARD["panels"]:
        for target in panel.get("targets", ()):
            shown = set(re.findall(r"{{([a-z_]+)}}", target["legendFormat"]))
            grouped = {label.strip() for group in GROUPING.findall(target["expr"]) for label in group.split(",")}
            whole = not re.search(r"\b(sum|max|count|topk|histogram_quantile)\b", target["expr"])
            assert shown <= (FROM_PROMETHEUS if whole else grouped), panel["title"]


def test_every_metric_is_on_the_page_and_those_of_ours_on_the_dashboard():
    documented = set(re.findall(METRIC, PAGE))
    names = {re.sub(r"_(bucket|sum|count)$", "", name) if "_duration_" in name or "_lag_" in name else name for name in SERIES}
    assert names <= documented
    assert {name for name in documented if name.startswith("ff_")} <= names
    asked = {use["name"] for _, expression in expressions() for use in USE.finditer(expression)}
    shown = {re.sub(r"_(bucket|sum|count)$", "", name) if "_duration_" in name or "_lag_" in name else name for name in asked}
    assert {name for name in names if name.startswith("ff_")} <= shown


def test_every_alert_is_on_the_page_with_its_severity_and_no_other():
    rows = dict(re.findall(r"^\| `(Ff\w+)` \((\w+)\) \|", PAGE, re.MULTILINE))
    assert rows == {rule["alert"]: rule["labels"]["severity"] for rule in ALERTS}


def test_every_setting_on_the_page_exists():
    named = set(re.findall(r"\bFF_[A-Z_]+\b", PAGE))
    settings = {variable(field) for field in CloudSettings.model_fields}
    assert named <= settings


def test_every_command_on_the_page_exists():
    root = get_command(app)
    for line in sorted(set(re.findall(r"`?ff-cloud ((?:[a-z]+ ?)+)", PAGE))):
        command = root
        for word in line.split():
            if not hasattr(command, "commands"):
                break
            assert word in command.commands or command is not root, line
            command = command.commands.get(word, command)


def test_panels_don_t_overlap_and_have_ids_of_their_own():
    taken = set()
    for panel in DASHBOARD["panels"]:
        at = panel["gridPos"]
        cells = {(at["x"] + dx, at["y"] + dy) for dx in range(at["w"]) for dy in range(at["h"])}
        assert max(x for x, _ in cells) < 24
        assert not cells & taken, panel["title"]
        taken |= cells
    ids = [panel["id"] for panel in DASHBOARD["panels"]]
    assert len(set(ids)) == len(ids)


def test_the_example_files_are_well_formed():
    scrape = yaml.safe_load((ROOT / "deploy/prometheus/prometheus.yml").read_text())
    assert scrape["rule_files"] == ["alerts.yml"]
    assert {job["job_name"] for job in scrape["scrape_configs"]} == {"ff-cloud"}
    compose = yaml.safe_load((ROOT / "deploy/compose.yaml").read_text())
    optional = {name for name, service in compose["services"].items() if service.get("profiles") == ["monitoring"]}
    assert (set(compose["services"]), optional) == ({"postgres", "prometheus", "grafana"}, {"prometheus", "grafana"})
    mounts = [mount for service in compose["services"].values() for mount in service["volumes"] if mount.startswith("./")]
    assert all((ROOT / "deploy" / mount.split(":")[0]).is_dir() for mount in mounts)
    unit = (ROOT / "deploy/systemd/ff-cloud.service").read_text()
    assert "KillMode=mixed" in unit  # else systemd stops the embedded PostgreSQL before the server that uses it
    assert not re.search(r"^(Private|Protect)\w+=", unit, re.MULTILINE)
