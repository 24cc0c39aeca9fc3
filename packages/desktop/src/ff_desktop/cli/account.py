"""``ff login``, ``ff logout``, ``ff whoami``."""

import getpass
import socket
import sys
import webbrowser
from functools import partial
from typing import Annotated

import typer
from pydantic import SecretStr

from ff_core.contract.account import PASSWORD_CHARS_MAX, Client, LogIn, SignUp, UserView
from ff_core.contract.authorization import DeviceLogin
from ff_core.contract.base import dump
from ff_core.errors import InvalidInput
from ff_desktop.address import Server
from ff_desktop.browser_login import log_in_by_browser
from ff_desktop.cli.choosing import request_of
from ff_desktop.cli.exits import Exit
from ff_desktop.cli.screen import Screen
from ff_desktop.cli.shell import JsonFlag, command, shell_of
from ff_desktop.connection import machine_name
from ff_desktop.device_login import log_in_by_device


@command
def login(
    context: typer.Context,
    server: Annotated[
        str | None, typer.Option(metavar="URL", help="Such as https://factory.example.com. [default: FF_SERVER]")
    ] = None,
    device: Annotated[bool, typer.Option("--device", help="Log in with a browser on another machine.")] = False,
    email: Annotated[str | None, typer.Option(help="Log in with a password: the account's e-mail address.")] = None,
    signup: Annotated[bool, typer.Option("--signup", help="With --email: open a new account.")] = False,
    name: Annotated[str | None, typer.Option(help="With --signup: your name.")] = None,
    password_stdin: Annotated[
        bool, typer.Option("--password-stdin", help="With --email: read the password from standard input.")
    ] = False,
    no_browser: Annotated[bool, typer.Option("--no-browser", help="Only show the address, open no browser.")] = False,
    insecure: Annotated[bool, typer.Option("--insecure", help="Accept plain http to another machine.")] = False,
    _json: JsonFlag = False,
) -> None:
    """Log in: by the browser of this machine, by one elsewhere (--device), or with a password (--email)."""
    shell = shell_of(context)
    url = server or shell.desktop.settings.server
    if url is None:
        raise InvalidInput("Say which server: --server URL.")
    address = Server.parse(url, insecure=insecure)
    if name is not None and not signup:
        raise InvalidInput("--name goes with --signup.")
    if email is None and (signup or password_stdin):
        raise InvalidInput("--signup and --password-stdin go with --email.")
    if email is not None and device:
        raise InvalidInput("Take either --email or --device.")
    accounts = shell.desktop.accounts
    if email is not None:
        password = SecretStr(_piped_password() if password_stdin else _typed_password(confirm=signup))
        pair = accounts.prove(address, _proof(email, password, signup=signup, name=name))
    elif device:
        pair = log_in_by_device(
            accounts.anonymous(address),
            device=machine_name(socket.gethostname()),
            show=partial(_show_code, shell.screen),
            sleep=shell.desktop.sleep,
        )
    else:
        pair = log_in_by_browser(
            accounts.anonymous(address),
            device=machine_name(socket.gethostname()),
            show=partial(_show_address, shell.screen),
            open_browser=None if no_browser else webbrowser.open,
        )
    user, credentials = accounts.remember(address, pair)
    shell.screen.object({"server": credentials.server, "in_keyring": credentials.in_keyring, "user": dump(user)})
    shell.screen.say(f"Logged in to {credentials.server} as {user.email}. Next: ff new NAME --cloud")


@command
def logout(context: typer.Context, _json: JsonFlag = False) -> None:
    """Log out: end this machine's login and forget it."""
    shell = shell_of(context)
    revoked = shell.desktop.accounts.log_out()
    shell.screen.object({"logged_out": True, "revoked": revoked})
    shell.screen.say("Logged out.")
    if not revoked:
        shell.screen.note("The server could not be asked to end the login; it ends by itself when it is not used for 14 days.")


@command
def whoami(context: typer.Context, _json: JsonFlag = False) -> Exit:
    """Show the account and the server."""
    shell = shell_of(context)
    access = shell.desktop.access()
    user = shell.desktop.connection().ask("GET", "/v1/me", UserView)
    shell.screen.object({"server": access.server.url, "user": dump(user)})
    shell.screen.say(f"{user.email} ({user.name}) at {access.server.url}, plan {user.plan}")
    return Exit.OK


def _proof(email: str, password: SecretStr, *, signup: bool, name: str | None) -> LogIn | SignUp:
    if signup:
        return request_of(SignUp, email=email, password=password, name=name, client_id=Client.FF)
    return request_of(LogIn, email=email, password=password, client_id=Client.FF)


def _show_address(screen: Screen, url: str) -> None:
    screen.note(f"Allow it in your browser. If none opens, open this address on this machine:\n{url}")


def _show_code(screen: Screen, login: DeviceLogin) -> None:
    minutes = login.expires_in // 60
    screen.note(f"Open {login.verification_uri} in a browser, and type {login.user_code} there within {minutes} minutes.")


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
