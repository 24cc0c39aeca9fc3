"""The ``ff`` command."""

import contextlib
import io
import sys
from typing import Annotated

import typer

from ff_desktop import __version__
from ff_desktop.cli import account, conversations, execution, importing, making, moving, workspaces
from ff_desktop.cli.credentials import credential, usage
from ff_desktop.cli.doctor import doctor
from ff_desktop.cli.logins import sessions
from ff_desktop.cli.projects import project
from ff_desktop.cli.serving import serve

app = typer.Typer(
    name="ff",
    help="Drives workspaces on this machine and in Factory Factory Cloud.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    add_completion=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _version(value: bool) -> None:
    if value:
        typer.echo(f"ff {__version__}")
        raise typer.Exit


@app.callback()
def ff(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    """Drives workspaces on this machine and in Factory Factory Cloud."""


for _function in (
    account.login,
    account.logout,
    account.whoami,
    making.new,
    workspaces.ls,
    workspaces.status,
    conversations.say,
    conversations.watch,
    conversations.answer,
    conversations.stop,
    moving.send,
    moving.pull,
    moving.receipt,
):
    app.command()(_function)
app.add_typer(moving.handoffs, name="handoffs")
app.add_typer(project, name="project")
app.command()(moving.send)
app.command()(moving.pull)
app.add_typer(moving.handoffs, name="handoffs")
app.command()(moving.receipt)
app.command("import")(importing.import_)
app.add_typer(sessions, name="sessions")
app.add_typer(credential, name="credential")
app.command()(usage)
app.command("exec")(execution.execute)
app.command()(workspaces.suspend)
app.command()(workspaces.rm)
app.command()(serve)
app.command()(doctor)


def main() -> None:
    """Entry point. Text that the locale can't encode is shown escaped and does not end the program."""
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(AttributeError, io.UnsupportedOperation):
            stream.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]
    app(prog_name="ff")
