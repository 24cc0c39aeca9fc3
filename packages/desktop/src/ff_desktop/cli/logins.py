"""``ff sessions``: where the account is logged in, and ending that."""

from typing import Annotated

import typer

from ff_core.contract.account import AuthSessionView
from ff_core.contract.base import dump
from ff_core.contract.page import Page
from ff_core.errors import InvalidInput, NotFound
from ff_desktop.cli.shell import JsonFlag, Shell, command, shell_of
from ff_desktop.errors import Ambiguous

_PATH = "/v1/auth/sessions"

sessions = typer.Typer(no_args_is_help=True, rich_markup_mode=None, help="Where the account is logged in.")


@sessions.command("ls")
@command
def ls(context: typer.Context, _json: JsonFlag = False) -> None:
    """List the logins that go on, the latest used first."""
    shell = shell_of(context)
    found = _all(shell)
    shell.screen.object({"sessions": [dump(one) for one in found]})
    shell.screen.table(("ID", "DEVICE", "PLACE", "SINCE", "LAST USED", ""), (_row(one) for one in found))


@sessions.command("revoke")
@command
def revoke(
    context: typer.Context,
    session: Annotated[
        str | None, typer.Argument(metavar="[ID]", help="The login's id or its beginning.", show_default=False)
    ] = None,
    others: Annotated[bool, typer.Option("--others", help="All but this one.")] = False,
    everything: Annotated[bool, typer.Option("--all", help="All, this one too.")] = False,
    _json: JsonFlag = False,
) -> None:
    """End logins at once, with everything they gave out. API keys go on."""
    shell = shell_of(context)
    if [session is not None, others, everything].count(True) != 1:
        raise InvalidInput("Say which: an ID, --others or --all.")
    connection = shell.desktop.connection()
    if session is not None:
        one = _one(_all(shell), session)
        connection.call("DELETE", f"{_PATH}/{one.id}")
        shell.screen.object({"revoked": str(one.id)})
    else:
        connection.call("DELETE", _PATH, params={"all": "true"} if everything else None)
        shell.screen.object({"revoked": "all" if everything else "others"})
    shell.screen.say("Revoked.")


def _all(shell: Shell) -> list[AuthSessionView]:
    return list(shell.desktop.connection().ask("GET", _PATH, Page[AuthSessionView]).items)


def _one(found: list[AuthSessionView], beginning: str) -> AuthSessionView:
    fitting = [one for one in found if str(one.id).startswith(beginning.lower())]
    if not fitting:
        raise NotFound("No login of yours has an id that begins so; `ff sessions ls` lists them.")
    if len(fitting) > 1:
        raise Ambiguous(f"{len(fitting)} logins have ids that begin so; give more of it.")
    return fitting[0]


def _row(one: AuthSessionView) -> tuple[str, ...]:
    times = [f"{at:%Y-%m-%d %H:%M}" for at in (one.created_at, one.last_used_at)]
    return (str(one.id), one.device, one.place, *times, "this one" if one.current else "")
