"""docs/reference/cli.md says everything that the program does."""

import re
from pathlib import Path

import pytest
from typer.main import get_command

from ff_desktop.cli.exits import Exit
from ff_desktop.cli.main import app
from ff_desktop.settings import DesktopSettings

PAGE = (Path(__file__).parents[4] / "docs" / "reference" / "cli.md").read_text()


def _flat(group, before=""):
    for name, command in group.commands.items():
        yield from _flat(command, f"{before}{name} ") if hasattr(command, "commands") else [(before + name, command)]


COMMANDS = dict(_flat(get_command(app)))


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_and_flag_is_documented(name):
    section = re.search(rf"^### `ff {name}\b.*?(?=^#|\Z)", PAGE, re.DOTALL | re.MULTILINE)
    assert section, f"no section for ff {name}"
    for parameter in COMMANDS[name].params:
        for flag in parameter.opts:
            if flag.startswith("--") and flag not in {"--help", "--json"}:
                assert flag in section.group(), f"ff {name} {flag}"


@pytest.mark.parametrize("code", Exit)
def test_every_exit_code_is_documented(code):
    assert re.search(rf"^\| {code.value} \|", PAGE, re.MULTILINE)


@pytest.mark.parametrize("name", DesktopSettings.model_fields)
def test_every_environment_variable_is_documented(name):
    assert f"`FF_{name.upper()}`" in PAGE


def test_every_command_takes_json():
    for name, command in COMMANDS.items():
        assert any("--json" in parameter.opts for parameter in command.params), name
