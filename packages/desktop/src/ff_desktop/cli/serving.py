"""``ff serve``: the process that owns the workspaces of this machine. The other commands start it when they need it."""

from functools import partial
from typing import Annotated

import typer

from ff_core.errors import InvalidInput
from ff_desktop.cli.exits import Exit
from ff_desktop.cli.shell import JsonFlag, Shell, command, shell_of
from ff_desktop.wiring import as_user


@command
def serve(
    context: typer.Context,
    background: Annotated[bool, typer.Option("--background", help="Start it, unless it runs, and return.")] = False,
    stop: Annotated[bool, typer.Option("--stop", help="End it: turns are interrupted, prompts wait.")] = False,
    status: Annotated[bool, typer.Option("--status", help="Say whether it runs.")] = False,
    _json: JsonFlag = False,
) -> Exit:
    """Run the workspaces of this machine until Ctrl-C. Not needed by hand: other commands start it in the background."""
    shell = shell_of(context)
    if [background, stop, status].count(True) > 1:
        raise InvalidInput("Say only one of --background, --stop and --status.")
    if status:
        return _status(shell)
    if stop:
        ended = shell.desktop.background().stop()
        shell.screen.object({"stopped": ended})
        shell.screen.say("Stopped." if ended else "It does not run.")
        return Exit.OK
    if background:
        shell.desktop.background().ensure()
        return _status(shell)
    from ff_desktop.serving.process import run  # noqa: PLC0415  (other commands need nothing of a server)

    shell.screen.note(f"Serving {shell.desktop.settings.desktop_dir}; Ctrl-C ends it.")
    settings = shell.desktop.settings
    run(settings, shell.desktop.background(), partial(as_user, settings), detached=False)
    return Exit.OK


def _status(shell: Shell) -> Exit:
    health = shell.desktop.background().health()
    shell.screen.object({"running": health is not None, **({} if health is None else health.model_dump(mode="json"))})
    if health is None:
        shell.screen.say("It does not run; the next command that needs it starts it.")
        return Exit.FAILED
    shell.screen.say(
        f"Runs as process {health.pid}, version {health.version}, since {health.started_at:%Y-%m-%d %H:%M:%S} UTC;"
        f" {health.busy or 'no'} turns and commands run."
    )
    return Exit.OK
