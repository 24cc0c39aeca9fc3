"""``ff new``: a workspace on this machine, or with ``--cloud`` on the server."""

import sys
from contextlib import closing
from pathlib import Path
from typing import Annotated

import typer
from pydantic import SecretStr

from ff_core.contract.events import ProcessOutput, WorkspaceChanged
from ff_core.contract.local import NewLocalWorkspace
from ff_core.contract.workspace import NewWorkspace, WorkspaceStatus, WorkspaceView
from ff_core.errors import InvalidInput
from ff_desktop.backend import Backend
from ff_desktop.cli.choosing import request_of
from ff_desktop.cli.exits import Exit
from ff_desktop.cli.live import Live
from ff_desktop.cli.shell import JsonFlag, Shell, command, shell_of
from ff_desktop.cli.waiting import failure, pauses, tell
from ff_desktop.errors import BadReply
from ff_desktop.local import LocalBackend

READY_S_MAX = 1800.0
TOKEN_CHARS_MAX = 4096
PREPARING = frozenset({WorkspaceStatus.NEW, WorkspaceStatus.PROVISIONING})


@command
def new(
    context: typer.Context,
    name: Annotated[str, typer.Argument(metavar="NAME", help="A name for people, such as 'fix login'.", show_default=False)],
    cloud: Annotated[bool, typer.Option("--cloud", help="Make it on the server.")] = False,
    project: Annotated[
        str | None, typer.Option(metavar="P", help="The project it is in. [default: that of this folder, or the only one]")
    ] = None,
    base: Annotated[str | None, typer.Option(metavar="B", help="Begin at this branch. [default: the project's]")] = None,
    branch: Annotated[str | None, typer.Option(metavar="B", help="Go on with this branch; with --cloud: check it out.")] = None,
    issue: Annotated[str | None, typer.Option(metavar="URL", help="The GitHub issue it is about.")] = None,
    no_setup: Annotated[bool, typer.Option("--no-setup", help="Do not run the project's set-up script.")] = False,
    repo: Annotated[
        str | None, typer.Option(metavar="URL", help="With --cloud: clone this repository. [default: an empty one]")
    ] = None,
    repo_token_stdin: Annotated[
        bool, typer.Option("--repo-token-stdin", help="With --cloud: read the repository's token from standard input.")
    ] = False,
    no_wait: Annotated[bool, typer.Option("--no-wait", help="Return before it is ready.")] = False,
    _json: JsonFlag = False,
) -> Exit:
    """Make a workspace and wait until it is ready: a worktree of a project on this machine, or with --cloud a machine there."""
    shell = shell_of(context)
    if cloud:
        if project is not None or base is not None or no_setup:
            raise InvalidInput("--project, --base and --no-setup are for workspaces on this machine, without --cloud.")
        if repo_token_stdin and repo is None:
            raise InvalidInput("--repo-token-stdin needs --repo URL.")
        token = SecretStr(_piped_token()) if repo_token_stdin else None
        ordered = request_of(NewWorkspace, name=name, repo_url=repo, repo_token=token, branch=branch, github_issue_url=issue)
        server = shell.desktop.cloud()
        workspace = server.create(ordered)
        if not no_wait:
            workspace = _until_prepared(shell, server, workspace)
    else:
        if repo is not None or repo_token_stdin:
            raise InvalidInput("--repo needs --cloud. On this machine: ff project add PATH, then ff new NAME.")
        if base is not None and branch is not None:
            raise InvalidInput("Say either --base, to begin a branch there, or --branch, to go on with that one.")
        wanted = request_of(
            NewLocalWorkspace,
            name=name,
            project=_project(project),
            cwd=_here(),
            base=base,
            branch=branch,
            github_issue_url=issue,
            no_setup=no_setup,
        )
        here = shell.desktop.local()
        workspace = here.create(wanted)
        if not no_wait:
            workspace = _watched(shell, here, workspace)
    return _made(shell, workspace)


def _made(shell: Shell, workspace: WorkspaceView) -> Exit:
    shell.screen.object(workspace)
    if workspace.status is WorkspaceStatus.FAILED:
        raise failure(workspace.error, f"{workspace.name} could not be prepared.")
    if workspace.status in PREPARING:
        shell.screen.say(f"{workspace.name} is being prepared; see it with: ff status {workspace.id}")
        return Exit.OK
    shell.screen.say(f"{workspace.name} is {workspace.status} ({workspace.id})")
    if workspace.path is not None:
        shell.screen.say(f"Branch {workspace.branch} in {workspace.path}")
    if workspace.error is not None:
        shell.screen.note(f"warning: {workspace.error.message} ({workspace.error.code})")
    return Exit.OK


def _until_prepared(shell: Shell, backend: Backend, workspace: WorkspaceView) -> WorkspaceView:
    waits = pauses(shell, READY_S_MAX, f"{workspace.name} is still being prepared")
    try:
        with shell.screen.progress(f"preparing {workspace.name}") as progress:
            while workspace.status in PREPARING:
                next(waits)
                workspace = backend.workspace(workspace.id)
                if shell.screen.progresses and workspace.operation_id is not None:
                    tell(progress, backend.operation(workspace.operation_id))
    except KeyboardInterrupt:
        _goes_on(shell, workspace)
        raise
    return workspace


def _watched(shell: Shell, backend: LocalBackend, workspace: WorkspaceView) -> WorkspaceView:
    """Show what the set-up script says until it is done; it has a time limit of its own."""
    live = Live(shell.screen, {})
    with closing(live):
        try:
            for event in backend.events(workspace.id, after=0, lost=live.lost):
                if isinstance(event.body, ProcessOutput) and not shell.screen.json:
                    live.show(event)
                if isinstance(event.body, WorkspaceChanged) and event.body.status not in PREPARING:
                    return backend.workspace(workspace.id)
        except KeyboardInterrupt:
            live.close()
            _goes_on(shell, workspace)
            raise
    raise BadReply("The stream of events ended before the workspace was ready.")


def _goes_on(shell: Shell, workspace: WorkspaceView) -> None:
    shell.screen.note(f"{workspace.name} is still being prepared; see it with: ff status {workspace.id}")


def _here() -> str | None:
    try:
        return str(Path.cwd())
    except OSError:  # somebody removed it
        return None


def _project(given: str | None) -> str | None:
    """A name as it is; a path as ``ff serve``, which stands elsewhere, understands it."""
    is_path = given is not None and ("/" in given or given in {".", ".."})
    return str(Path(given).expanduser().absolute()) if given is not None and is_path else given


def _piped_token() -> str:
    token = sys.stdin.readline(TOKEN_CHARS_MAX + 3).rstrip("\r\n") if sys.stdin is not None else ""
    if not token:
        raise InvalidInput("Standard input holds no token.")
    return token
