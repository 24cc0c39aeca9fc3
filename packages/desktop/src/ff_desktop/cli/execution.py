"""``ff exec``: a command in the workspace as if it ran here: its bytes, its exit code, Ctrl-C."""

import sys
from typing import Annotated, BinaryIO, assert_never

import typer

from ff_core.contract.base import Channel
from ff_core.contract.execution import TIMEOUT_S_MAX, ExecError, ExecExit, ExecNotice, ExecOutput, ExecRequest
from ff_core.contract.problem import Problem, RemoteProblem
from ff_core.errors import InvalidInput, TooLarge
from ff_desktop.cli.choosing import request_of
from ff_desktop.cli.exits import Exit
from ff_desktop.cli.screen import Screen
from ff_desktop.cli.shell import JsonFlag, Name, Shell, reported, shell_of
from ff_desktop.errors import BadReply

STDIN_CHARS_MAX = 1_000_000
STDIN_BYTES_MAX = 4 * STDIN_CHARS_MAX


def execute(
    context: typer.Context,
    name: Name,
    command: Annotated[
        list[str], typer.Argument(metavar="-- CMD…", help="The command and its words; no shell.", show_default=False)
    ],
    cwd: Annotated[str | None, typer.Option(metavar="DIR", help="Directory, relative to the repository.")] = None,
    timeout: Annotated[float, typer.Option(metavar="S", min=0.1, max=TIMEOUT_S_MAX, help="Kill it after so long.")] = 600.0,
    no_stdin: Annotated[bool, typer.Option("--no-stdin", "-n", help="Do not forward standard input.")] = False,
    _json: JsonFlag = False,
) -> None:
    """Run a command in the workspace. Exits with the command's code, or 125 when ff itself fails."""
    shell = shell_of(context)
    with reported(shell.screen, lambda _: Exit.EXEC_FAILED):
        request = request_of(
            ExecRequest, argv=command, cwd=cwd, timeout_s=timeout, stdin=None if no_stdin else _piped_stdin(), env={}
        )
        try:
            code = _run(shell, name, request)
        except KeyboardInterrupt:
            shell.screen.note("Cancelled.")
            code = Exit.INTERRUPTED
    raise typer.Exit(code)


def _run(shell: Shell, name: str, request: ExecRequest) -> int:
    found = shell.desktop.places().find(name)
    with found.backend.execute(found.workspace.id, request) as frames:
        for frame in frames:
            shell.screen.object(frame)
            match frame:
                case ExecOutput(channel=channel, data=data):
                    _put(shell.screen, channel, data)
                case ExecExit(exit_code=code, timed_out=timed_out):
                    if timed_out:
                        shell.screen.note(f"The command was killed after {request.timeout_s:g} s.")
                        return Exit.COMMAND_TIMED_OUT
                    return code if code >= 0 else 128 - code
                case ExecNotice(message=message):
                    shell.screen.note(message)
                case ExecError(code=word, message=message):
                    raise RemoteProblem(Problem(title="Not run", status=500, code=word, detail=message))
                case _:
                    assert_never(frame)
    raise BadReply("The connection ended before the command did; whether it went on is not known.")


def _put(screen: Screen, channel: Channel, data: bytes) -> None:
    if screen.json:
        return
    target: BinaryIO = sys.stdout.buffer if channel is Channel.STDOUT else sys.stderr.buffer
    target.write(data)
    target.flush()


def _piped_stdin() -> str | None:
    if sys.stdin is None or sys.stdin.isatty():
        return None
    content = sys.stdin.buffer.read(STDIN_BYTES_MAX + 1)
    try:
        text = content.decode()
    except UnicodeDecodeError as error:
        raise InvalidInput("Standard input is not UTF-8 text; ff exec forwards text only.") from error
    if len(text) > STDIN_CHARS_MAX:
        raise TooLarge(f"Standard input is longer than {STDIN_CHARS_MAX} characters; ff exec forwards no more.")
    return text
