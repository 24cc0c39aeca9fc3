"""What every command gets: the parts, the screen, and how its errors become exit codes."""

import functools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Annotated, Concatenate, ParamSpec

import typer
from pydantic import ValidationError

from ff_core.errors import FFError, InvalidInput
from ff_desktop.cli.exits import Exit, exit_of
from ff_desktop.cli.screen import Screen
from ff_desktop.settings import DesktopSettings
from ff_desktop.wiring import Desktop

P = ParamSpec("P")


@dataclass(frozen=True)
class Shell:
    """One run of ``ff``."""

    desktop: Desktop
    screen: Screen


def _set_json(context: typer.Context, value: bool) -> bool:
    shell_of(context).screen.json = value
    return value


Name = Annotated[str, typer.Argument(metavar="NAME", help="The workspace's name or id.", show_default=False)]
JsonFlag = Annotated[
    bool, typer.Option("--json", callback=_set_json, is_eager=True, help="One JSON object (streams: one per line).")
]


def shell_of(context: typer.Context) -> Shell:
    """The shell of this run, made when the first command or option asks for it."""
    root = context.find_root()
    if not isinstance(root.obj, Shell):
        screen = Screen()
        with reported(screen):
            root.obj = Shell(Desktop(_settings()), screen)
            root.obj.desktop.tell(screen.note)
        root.call_on_close(root.obj.desktop.close)
    return root.obj


def _settings() -> DesktopSettings:
    try:
        return DesktopSettings()
    except ValidationError as error:
        names = ", ".join(f"FF_{str(one['loc'][0]).upper()}" for one in error.errors(include_input=False))
        raise InvalidInput(f"The environment holds a value that ff can't use: {names}.") from None


@contextmanager
def reported(screen: Screen, as_exit: Callable[[FFError], int] = exit_of) -> Iterator[None]:
    """Turn an error into its line on standard error and its exit code."""
    try:
        yield
    except FFError as error:
        screen.error(error)
        raise typer.Exit(as_exit(error)) from None


def command(function: Callable[Concatenate[typer.Context, P], Exit | None]) -> Callable[..., None]:
    """A command whose errors are reported, and whose result, if any, is the exit code."""

    @functools.wraps(function)
    def run(context: typer.Context, *args: P.args, **kwargs: P.kwargs) -> None:
        with reported(shell_of(context).screen):
            code = function(context, *args, **kwargs)
        raise typer.Exit(code or Exit.OK)

    return run
