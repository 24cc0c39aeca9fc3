"""The import contracts cover every room, and the documents name what the code has."""

import re
import tomllib
from pathlib import Path
from typing import Any

import pytest

from ff_core.contract import events
from ff_core.contract.base import View

ROOT = Path(__file__).parents[2]
SEEN_FROM_OUTSIDE = {"contract", "errors", "ids", "world"}


@pytest.fixture(scope="module")
def contracts() -> dict[str, Any]:
    options = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]
    return {contract["id"]: contract for contract in options["contracts"]}


def rooms(package: str) -> set[str]:
    found = (ROOT / "packages" / package.removeprefix("ff_") / "src" / package).iterdir()
    return {path.stem for path in found if path.suffix in {"", ".py"} and not path.name.startswith("_")}


def test_each_room_of_core_is_open_or_closed_to_the_other_packages(contracts: dict[str, Any]) -> None:
    closed = {module.removeprefix("ff_core.") for module in contracts["core-from-outside"]["forbidden_modules"]}
    assert closed == rooms("ff_core") - SEEN_FROM_OUTSIDE


@pytest.mark.parametrize(
    "table", sorted((ROOT / "packages/cloud/src/ff_cloud").glob("*/tables.py")), ids=lambda path: path.parent.name
)
def test_each_room_with_tables_is_their_only_writer(table: Path, contracts: dict[str, Any]) -> None:
    room = table.parent.name
    if room == "kit":  # holds the metadata they are declared on, no table
        return
    assert f"ff_cloud.{room}.tables" in contracts[f"data-of-{room}"]["protected_modules"]


@pytest.mark.parametrize("package", ["ff_core", "ff_cloud", "ff_desktop"])
def test_the_architecture_page_names_each_room(package: str) -> None:
    page = (ROOT / "docs/architecture.md").read_text()
    section = page.split(f"### `{package}`", 1)[1].split("\n#", 1)[0]
    named = set(re.findall(r"`([a-z_]+)`", section))
    assert rooms(package) <= named


def test_the_events_page_has_each_kind_with_its_members() -> None:
    page = (ROOT / "docs/reference/events.md").read_text().split("| Kind |", 1)[1]
    rows = re.findall(r"^\| `([a-z.]+)` \|.*\| ([^|]+) \|$", page, re.MULTILINE)
    documented = {kind: set(re.findall(r"`([a-z_]+)`", members)) for kind, members in rows}
    models = [model for model in vars(events).values() if isinstance(model, type) and issubclass(model, View)]
    fields = {
        model.model_fields["kind"].default: set(model.model_fields) - {"kind"} for model in models if "kind" in model.model_fields
    }
    assert documented == fields
    assert set(documented) == set(events.KINDS)
