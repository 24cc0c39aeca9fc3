"""``ff doctor``: what is wrong between here and the server, and the next step for each finding."""

from contextlib import suppress
from dataclasses import asdict, dataclass

import typer
from pydantic import BaseModel, ValidationError

from ff_core.contract.account import UserView
from ff_core.contract.base import View
from ff_core.contract.problem import RemoteProblem
from ff_core.errors import FFError
from ff_desktop import __version__
from ff_desktop.cli.exits import Exit, exit_of
from ff_desktop.cli.plain import one_line
from ff_desktop.cli.render import BAD, DIM, GOOD
from ff_desktop.cli.screen import Line
from ff_desktop.cli.shell import JsonFlag, command, shell_of
from ff_desktop.errors import CredentialsExposed, NotLoggedIn, ServerUnreachable
from ff_desktop.wiring import Access, Desktop


@dataclass(frozen=True)
class Check:
    """One thing looked at. ``next`` says what to do when it is not well."""

    name: str
    ok: bool
    detail: str
    next: str = ""
    exit: Exit = Exit.OK


class _Alive(View):
    """What ``/healthz`` may say."""

    version: str | None = None


@command
def doctor(context: typer.Context, _json: JsonFlag = False) -> Exit:
    """Check configuration, server and key."""
    shell = shell_of(context)
    checks = examine(shell.desktop)
    well = all(check.ok for check in checks)
    shell.screen.object({"ok": well, "version": __version__, "checks": [asdict(check) for check in checks]})
    shell.screen.lines(line for check in checks for line in _shown(check))
    return next((check.exit for check in checks if not check.ok), Exit.OK)


def examine(desktop: Desktop) -> list[Check]:
    """Look at everything, each after what it needs; later checks are left out when an earlier one fails."""
    try:
        access = desktop.access()
    except FFError as error:
        return [Check("configuration", ok=False, detail=error.detail, next=_advice(error), exit=exit_of(error))]
    where = "FF_SERVER and FF_API_KEY" if access.from_environment else str(desktop.settings.credentials_path)
    checks = [Check("configuration", ok=True, detail=f"login or key from {where} for {access.server.url}")]
    checks.append(_reach(desktop, access))
    if checks[-1].ok:
        checks.append(_key(desktop, access))
    return checks


def _reach(desktop: Desktop, access: Access) -> Check:
    try:
        content = desktop.connect(access.server, None).call("GET", "/healthz")
    except FFError as error:
        return Check("server", ok=False, detail=error.detail, next=_advice(error), exit=exit_of(error))
    alive: BaseModel = _Alive()
    with suppress(ValidationError):
        alive = _Alive.model_validate_json(content)
    theirs = alive.version if isinstance(alive, _Alive) and alive.version else "not told"
    return Check("server", ok=True, detail=f"{access.server.url} answers; its version: {theirs}, ours: {__version__}")


def _key(desktop: Desktop, access: Access) -> Check:
    try:
        user = desktop.connect(access.server, access.bearer).ask("GET", "/v1/me", UserView)
    except FFError as error:
        return Check("key", ok=False, detail=error.detail, next=_advice(error), exit=exit_of(error))
    return Check("key", ok=True, detail=f"good for {user.email}")


def _advice(error: FFError) -> str:
    match error:
        case ServerUnreachable():
            return "Start the server (ff-cloud serve), or log in to another: ff login --server URL"
        case NotLoggedIn():
            return "ff login --server URL"
        case CredentialsExposed():
            return "chmod 600 that file, then: ff login --server URL"
        case RemoteProblem(problem=problem) if problem.status == NotLoggedIn.status:
            return "The login or key has ended or was revoked; get a new one: ff login --server URL"
        case _:
            return "Ask whoever runs the server, with this message."


def _shown(check: Check) -> list[Line]:
    head = Line(f"{'ok  ' if check.ok else 'FAIL'} {check.name}: {one_line(check.detail, 1000)}", GOOD if check.ok else BAD)
    return [head, Line(f"     next: {check.next}", DIM)] if check.next else [head]
