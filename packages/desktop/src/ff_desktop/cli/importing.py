"""``ff import``."""

import os
import sys
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

import typer

from ff_core.contract.local import ImportReport, ImportRequest
from ff_core.errors import InvalidInput, NotFound
from ff_desktop.cli.choosing import request_of
from ff_desktop.cli.exits import Exit
from ff_desktop.cli.plain import one_line
from ff_desktop.cli.shell import JsonFlag, Shell, command, shell_of
from ff_desktop.errors import Ambiguous

DATABASE = "data.db"
NAMES = ("Factory Factory", "factory-factory")
"""Of the folder in which the desktop application keeps its data: as it is installed, and as it is run from its sources."""


@command
def import_(
    context: typer.Context,
    path: Annotated[
        Path | None,
        typer.Argument(metavar="[PATH]", help="A data.db or an export; searched for when absent.", show_default=False),
    ] = None,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    _json: JsonFlag = False,
) -> Exit:
    """Take over projects, workspaces and sessions from Factory Factory; shows first what it will do. May be repeated."""
    shell = shell_of(context)
    source = (path or found(places(os.environ, Path.home(), sys.platform))).expanduser().absolute()
    backend = shell.desktop.local()
    plan = backend.import_from(request_of(ImportRequest, path=str(source)))
    _show(shell, plan)
    if not any(line.action == "add" for line in plan.lines):
        shell.screen.object(plan)
        shell.screen.say("There is nothing to import.")
        return Exit.OK
    if not yes and (ending := _declined(shell, plan)) is not None:
        return ending
    done = backend.import_from(request_of(ImportRequest, path=str(source), apply=True))
    shell.screen.object(done)
    shell.screen.say(f"Imported {_counted(done, 'add')}. Their folders and conversations stay where they are.")
    return Exit.OK


def places(environment: Mapping[str, str], home: Path, platform: str) -> list[Path]:
    """Where Factory Factory may keep its database: as its environment says, or at the usual places. Pure."""
    said = [Path(environment["DATABASE_PATH"])] if environment.get("DATABASE_PATH") else []
    said += [Path(environment["BASE_DIR"]) / DATABASE] if environment.get("BASE_DIR") else []
    configured = Path(environment.get("XDG_CONFIG_HOME") or home / ".config")
    applications = home / "Library" / "Application Support" if platform == "darwin" else configured
    usual = [home / "factory-factory" / DATABASE, *(applications / name / DATABASE for name in NAMES)]
    return [path.expanduser() for path in (*said, *usual)]


def found(candidates: list[Path]) -> Path:
    """The one that is there. Raises ``NotFound``, ``Ambiguous``."""
    there = list(dict.fromkeys(path for path in candidates if path.is_file()))
    if not there:
        looked = ", ".join(map(str, candidates))
        raise NotFound(f"No database of Factory Factory was found (looked for {looked}); give its path: ff import PATH")
    if len(there) > 1:
        raise Ambiguous(f"There are several databases of Factory Factory; say which: ff import {' | '.join(map(str, there))}")
    return there[0]


def _show(shell: Shell, report: ImportReport) -> None:
    shell.screen.note(f"{report.source}: {report.layout}")
    rows = [(line.kind, line.name, line.action, line.reason) for line in report.lines]
    shell.screen.table(("KIND", "NAME", "WHAT", "WHY"), rows)
    counts = [f"{action}: {_counted(report, action)}" for action in ("add", "known", "skip")]
    shell.screen.note("; ".join(counts))


def _declined(shell: Shell, plan: ImportReport) -> Exit | None:
    """How the command ends when nothing is to be done now; None when the user agreed."""
    if shell.screen.json:
        shell.screen.object(plan)
        return Exit.OK
    if not shell.screen.asks:
        raise InvalidInput("There is no terminal to ask on; pass --yes to import it.")
    try:
        agreed = typer.confirm("Import what is to be added?", err=True)
    except typer.Abort:
        return Exit.INTERRUPTED
    if agreed:
        return None
    shell.screen.note("Nothing was imported.")
    return Exit.FAILED


def _counted(report: ImportReport, action: str) -> str:
    kinds = Counter(line.kind for line in report.lines if line.action == action)
    words = [f"{count} {one_line(kind)}{'' if count == 1 else 's'}" for kind, count in kinds.items()]
    return ", ".join(words) or "nothing"
