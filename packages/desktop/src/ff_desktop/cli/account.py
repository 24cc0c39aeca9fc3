"""``ff login``, ``ff logout``, ``ff whoami``."""

import getpass
import socket
import sys
from typing import Annotated

import typer
from pydantic import SecretStr

from ff_core.contract.account import PASSWORD_CHARS_MAX, LogIn, SignUp, UserView
from ff_core.contract.base import dump
from ff_core.errors import InvalidInput
from ff_desktop.address import Server
from ff_desktop.cli.choosing import request_of
from ff_desktop.cli.exits import Exit
from ff_desktop.cli.shell import JsonFlag, command, shell_of


@command
def login(
    context: typer.Context,
    email: Annotated[str, typer.Option(help="The account's e-mail address.", show_default=False)],
    server: Annotated[
        str | None, typer.Option(metavar="URL", help="Such as https://factory.example.com. [default: FF_SERVER]")
    ] = None,
    signup: Annotated[bool, typer.Option("--signup", help="Open a new account.")] = False,
    name: Annotated[str | None, typer.Option(help="With --signup: your name.")] = None,
    password_stdin: Annotated[bool, typer.Option("--password-stdin", help="Read the password from standard input.")] = False,
    insecure: Annotated[bool, typer.Option("--insecure", help="Accept plain http to another machine.")] = False,
    _json: JsonFlag = False,
) -> None:
    """Log in: get a key for this machine and store it, readable by you only."""
    shell = shell_of(context)
    url = server or shell.desktop.settings.server
    if url is None:
        raise InvalidInput("Say which server: --server URL.")
    address = Server.parse(url, insecure=insecure)
    if name is not None and not signup:
        raise InvalidInput("--name goes with --signup.")
    password = SecretStr(_piped_password() if password_stdin else _typed_password(confirm=signup))
    proof: LogIn | SignUp = (
        request_of(SignUp, email=email, password=password, name=name)
        if signup
        else request_of(LogIn, email=email, password=password)
    )
    user, credentials = shell.desktop.accounts.log_in(address, proof, host=socket.gethostname())
    shell.screen.object({"server": credentials.server, "key_id": str(credentials.key_id), "user": dump(user)})
    shell.screen.say(f"Logged in to {credentials.server} as {user.email}. Next: ff new NAME --cloud")


@command
def logout(context: typer.Context, _json: JsonFlag = False) -> None:
    """Log out: revoke this machine's key and forget it."""
    shell = shell_of(context)
    revoked = shell.desktop.accounts.log_out()
    shell.screen.object({"logged_out": True, "revoked": revoked})
    shell.screen.say("Logged out.")
    if not revoked:
        shell.screen.note("The server could not be asked to revoke the key; it ends by itself within 90 days.")


@command
def whoami(context: typer.Context, _json: JsonFlag = False) -> Exit:
    """Show the account and the server."""
    shell = shell_of(context)
    access = shell.desktop.access()
    user = shell.desktop.connection().ask("GET", "/v1/me", UserView)
    shell.screen.object({"server": access.server.url, "user": dump(user)})
    shell.screen.say(f"{user.email} ({user.name}) at {access.server.url}, plan {user.plan}")
    return Exit.OK


def _piped_password() -> str:
    # One character more than allowed, and a line end, so that a longer one is refused and not cut.
    line = sys.stdin.readline(PASSWORD_CHARS_MAX + 3) if sys.stdin is not None else ""
    password = line.rstrip("\r\n")
    if not password:
        raise InvalidInput("Standard input holds no password.")
    return password


def _typed_password(*, confirm: bool) -> str:
    if sys.stdin is None or not sys.stdin.isatty():
        raise InvalidInput("There is no terminal to ask for the password; pipe it in with --password-stdin.")
    password = getpass.getpass("Password: ")
    if confirm and getpass.getpass("Again: ") != password:
        raise InvalidInput("The passwords differ.")
    return password
