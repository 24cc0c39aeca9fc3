"""``ff credential set|ls|rm`` and ``ff usage``."""

import getpass
import sys
from typing import Annotated

import typer
from pydantic import SecretStr

from ff_core.contract.base import dump
from ff_core.contract.credentials import VALUE_CHARS_MAX, CredentialKind, SetCredential
from ff_core.contract.usage import UsageView
from ff_core.errors import InvalidInput
from ff_desktop.cli.choosing import request_of
from ff_desktop.cli.shell import JsonFlag, command, shell_of
from ff_desktop.places import find_workspace

USAGE_ROWS_MAX = 1000

Kind = Annotated[CredentialKind, typer.Argument(metavar="KIND", help=f"One of {', '.join(CredentialKind)}.", show_default=False)]

credential = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode=None,
    help="Your keys for the model and for GitHub: kept by the server, used by its gateway, never seen by a workspace.",
)


@credential.command("set")
@command
def set_(context: typer.Context, kind: Kind, _json: JsonFlag = False) -> None:
    """Store a key. It is asked for, or read from standard input; it can't be read again."""
    shell = shell_of(context)
    secret = request_of(SetCredential, value=SecretStr(_typed(kind) if shell.screen.asks else _piped()))
    stored = shell.desktop.cloud().set_credential(kind, secret)
    shell.screen.object(stored)
    ending = f" that ends in {stored.hint}" if stored.hint else ""
    shell.screen.say(f"Set {stored.kind}: the one{ending}. It counts from the next request of your agents on.")


@credential.command("ls")
@command
def list_(context: typer.Context, _json: JsonFlag = False) -> None:
    """Show which keys are set, and the end of each."""
    shell = shell_of(context)
    found = shell.desktop.cloud().credentials()
    shell.screen.object({"credentials": [dump(one) for one in found]})
    rows = [
        (
            one.kind,
            f"…{one.hint}" if one.hint else "",
            f"{one.set_at:%Y-%m-%d %H:%M}",
            f"{one.last_used_at:%Y-%m-%d %H:%M}" if one.last_used_at else "never",
        )
        for one in found
    ]
    shell.screen.table(("KIND", "ENDS IN", "SET (UTC)", "LAST USED"), rows)
    if not found:
        shell.screen.note("None is set. Set one with: ff credential set anthropic_api_key")


@credential.command("rm")
@command
def remove(context: typer.Context, kind: Kind, _json: JsonFlag = False) -> None:
    """Have the server forget a key."""
    shell = shell_of(context)
    shell.desktop.cloud().remove_credential(kind)
    shell.screen.object({"removed": str(kind)})
    shell.screen.say(f"Removed {kind}.")


@command
def usage(
    context: typer.Context,
    workspace: Annotated[str | None, typer.Option(help="Of this workspace only, by name or id.", show_default=False)] = None,
    _json: JsonFlag = False,
) -> None:
    """Show tokens and cost by day, workspace and model."""
    shell = shell_of(context)
    backend = shell.desktop.cloud()
    only = None if workspace is None else find_workspace(backend, workspace).id
    found: list[UsageView] = []
    for row in backend.usage(workspace=only):
        if len(found) == USAGE_ROWS_MAX:
            shell.screen.note(f"Only the newest {USAGE_ROWS_MAX} rows are shown.")
            break
        found.append(row)
    names = {one.id: one.name for one in backend.workspaces()} if found else {}
    shell.screen.object({"usage": [dump(row) for row in found]})
    columns = ("DAY", "WORKSPACE", "MODEL", "REQUESTS", "INPUT", "OUTPUT", "CACHE READ", "CACHE WRITE", "USD")
    rows = [
        (
            f"{row.day}",
            names.get(row.workspace_id, str(row.workspace_id)),
            row.model,
            *map(str, (row.requests, row.input_tokens, row.output_tokens, row.cache_read_tokens, row.cache_write_tokens)),
            "?" if row.cost_micro_usd is None else f"{row.cost_micro_usd / 1_000_000:.4f}",
        )
        for row in found
    ]
    shell.screen.table(columns, rows)
    if not found:
        shell.screen.note("Nothing was used yet.")


def _typed(kind: CredentialKind) -> str:
    return getpass.getpass(f"{kind}: ").strip()


def _piped() -> str:
    # One character more than allowed, and a line end, so that a longer one is refused and not cut.
    line = sys.stdin.readline(VALUE_CHARS_MAX + 3) if sys.stdin is not None else ""
    value = line.rstrip("\r\n")
    if not value:
        raise InvalidInput("Standard input holds no key; pipe it in: ff credential set KIND < FILE")
    return value
