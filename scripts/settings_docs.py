"""Write docs/reference/settings.md from the settings themselves."""

from pathlib import Path
from typing import Any

from pydantic import SecretStr
from pydantic.fields import FieldInfo

from ff_cloud.settings import CloudSettings, variable

PAGE = Path(__file__).parents[1] / "docs" / "reference" / "settings.md"
HEAD = """# Settings of the server

`ff-cloud` reads these environment variables when it starts; an empty one counts as unset. A value that can't be used stops the
start with one line that names it. Two more are read by single parts: `FF_PG_BINDIR` (PostgreSQL programs for the embedded
database) and `FF_EXTRA_CA` (further certificate authorities for `ff-cloud image build`). Made by `scripts/settings_docs.py`.

| Variable | Default | Meaning |
|---|---|---|
"""
SPECIAL = {"data_dir": "`/var/lib/ff-cloud` for root, else `~/.local/share/ff-cloud`"}


def render() -> str:
    """The page."""
    rows = [
        f"| `{variable(name)}` | {SPECIAL.get(name) or default(field)} | {field.description}. |"
        for name, field in CloudSettings.model_fields.items()
    ]
    return HEAD + "\n".join(rows) + "\n"


def default(field: FieldInfo) -> str:
    """How the default is written in the environment."""
    value: Any = field.default
    if value is None or isinstance(value, SecretStr):
        return "unset"
    if isinstance(value, bool):
        return f"`{str(value).lower()}`"
    return f"`{value}`"


if __name__ == "__main__":
    PAGE.write_text(render())
    print(f"wrote {PAGE.relative_to(Path.cwd()) if PAGE.is_relative_to(Path.cwd()) else PAGE}")
