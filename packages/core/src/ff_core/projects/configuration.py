"""``factory-factory.json``: what a repository says of how it is worked on (DOMAIN.md section 6)."""

import json
from dataclasses import dataclass
from pathlib import Path

from ff_core.projects.errors import ConfigurationMalformed

FILE = "factory-factory.json"
BYTES_MAX = 256 << 10
SCRIPTS = ("setup", "run", "postRun", "cleanup")


@dataclass(frozen=True)
class Scripts:
    """Shell commands; None: there is none."""

    setup: str | None = None
    run: str | None = None
    post_run: str | None = None
    cleanup: str | None = None


def read(checkout: Path) -> Scripts:
    """What the file in ``checkout`` says; nothing when there is no such file. Raises ``ConfigurationMalformed``."""
    try:
        with (checkout / FILE).open("rb") as file:
            content = file.read(BYTES_MAX + 1)
    except FileNotFoundError:
        return Scripts()
    except OSError as error:
        raise ConfigurationMalformed(f"{FILE} can't be read ({error.strerror}), so no set-up script was run.") from error
    return parse(content)


def parse(content: bytes) -> Scripts:
    """The file's content. Raises ``ConfigurationMalformed``. Pure."""
    if len(content) > BYTES_MAX:
        raise _malformed(f"it is larger than {BYTES_MAX} bytes")
    try:
        given = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise _malformed(f"it is not JSON: {error}"[:300]) from error
    if not isinstance(given, dict):
        raise _malformed("it is not an object")
    scripts = given.get("scripts", {})
    if not isinstance(scripts, dict):
        raise _malformed('"scripts" is not an object')
    for name in SCRIPTS:
        if not isinstance(scripts.get(name), str | None):
            raise _malformed(f'"scripts.{name}" is not a string')
        if "\0" in (scripts.get(name) or ""):
            raise _malformed(f'"scripts.{name}" has a NUL character in it')
    setup, run, post_run, cleanup = ((scripts.get(name) or "").strip() or None for name in SCRIPTS)
    return Scripts(setup, run, post_run, cleanup)


def _malformed(why: str) -> ConfigurationMalformed:
    return ConfigurationMalformed(f"{FILE} can't be used: {why}. No set-up script was run.")
