"""``ff new``, ``ff ls``, ``ff status``, ``ff suspend``, ``ff rm``."""

import sys
from collections.abc import Iterator
from typing import Annotated

import typer
from pydantic import SecretStr

from ff_core.contract.base import ErrorView, dump
from ff_core.contract.daemon import Repository
from ff_core.contract.operation import TERMINATE, OperationStatus, OperationView
from ff_core.contract.problem import Problem, RemoteProblem, problem_of
from ff_core.contract.session import SessionView
from ff_core.contract.workspace import NewWorkspace, WorkspaceStatus, WorkspaceView
from ff_core.errors import FFError, InvalidInput, NotFound, TimedOut
from ff_desktop.backend import Backend
from ff_desktop.cli.choosing import asleep, find_workspace, request_of, waiting
from ff_desktop.cli.exits import Exit
from ff_desktop.cli.plain import one_line
from ff_desktop.cli.render import BAD, DIM, pending
from ff_desktop.cli.screen import Line, Progress
from ff_desktop.cli.shell import JsonFlag, Name, Shell, command, shell_of
from ff_desktop.errors import LocalLater

POLL_S_FIRST = 0.1
POLL_S_MAX = 1.0
READY_S_MAX = 1800.0
GONE_S_MAX = 300.0
TOKEN_CHARS_MAX = 4096
OPERATION_ACTIVE = "operation_active"
"""The server's code for: something else is being done with it just now."""
PREPARING = frozenset({WorkspaceStatus.NEW, WorkspaceStatus.PROVISIONING})
ACTIVE = frozenset({OperationStatus.QUEUED, OperationStatus.RUNNING})


@command
def new(
    context: typer.Context,
    name: Annotated[str, typer.Argument(metavar="NAME", help="A name for people, such as 'fix login'.", show_default=False)],
    cloud: Annotated[bool, typer.Option("--cloud", help="Make it on the server.")] = False,
    repo: Annotated[str | None, typer.Option(metavar="URL", help="Clone this repository. [default: an empty one]")] = None,
    branch: Annotated[str | None, typer.Option(help="Check out this branch. [default: the repository's]")] = None,
    issue: Annotated[str | None, typer.Option(metavar="URL", help="The GitHub issue it is about.")] = None,
    repo_token_stdin: Annotated[
        bool, typer.Option("--repo-token-stdin", help="Read the repository's token from standard input.")
    ] = False,
    no_wait: Annotated[bool, typer.Option("--no-wait", help="Return before it is ready.")] = False,
    _json: JsonFlag = False,
) -> Exit:
    """Make a workspace and wait until it is ready."""
    shell = shell_of(context)
    if not cloud:
        raise LocalLater
    if repo_token_stdin and repo is None:
        raise InvalidInput("--repo-token-stdin needs --repo URL.")
    token = SecretStr(_piped_token()) if repo_token_stdin else None
    spec = request_of(NewWorkspace, name=name, repo_url=repo, repo_token=token, branch=branch, github_issue_url=issue)
    backend = shell.desktop.backend()
    workspace = backend.create(spec)
    if not no_wait:
        workspace = _until_prepared(shell, backend, workspace)
    shell.screen.object(workspace)
    if workspace.status is WorkspaceStatus.FAILED:
        raise _failure(workspace.error, f"{workspace.name} could not be prepared.")
    if workspace.status in PREPARING:
        shell.screen.say(f"{workspace.name} is being prepared; see it with: ff status {workspace.id}")
    else:
        shell.screen.say(f"{workspace.name} is {workspace.status} ({workspace.id})")
    return Exit.OK


@command
def ls(context: typer.Context, _json: JsonFlag = False) -> None:
    """List workspaces."""
    shell = shell_of(context)
    found = list(shell.desktop.backend().workspaces())
    shell.screen.object({"items": [dump(workspace) for workspace in found]})
    rows = [(w.name, _state(w), w.location, w.branch or "", w.repo_url or "", str(w.id)) for w in found]
    shell.screen.table(("NAME", "STATUS", "WHERE", "BRANCH", "REPOSITORY", "ID"), rows)
    if not found:
        shell.screen.note("No workspaces. Make one: ff new NAME --cloud")


@command
def status(context: typer.Context, name: Name, _json: JsonFlag = False) -> None:
    """Show a workspace, its sessions, what waits for you, and its git status."""
    shell = shell_of(context)
    backend = shell.desktop.backend()
    workspace = find_workspace(backend, name)
    sessions = backend.sessions(workspace.id)
    repository, trouble = _checkout(backend, workspace)
    shell.screen.object(
        {
            "workspace": dump(workspace),
            "sessions": [dump(session) for session in sessions],
            "repository": dump(repository) if repository else None,
            "repository_error": dump(problem_of(trouble)) if trouble else None,
        }
    )
    shell.screen.lines([*_workspace_lines(workspace), *_checkout_lines(repository, trouble)])
    shell.screen.lines(line for session in sessions for line in _session_lines(session))
    shell.screen.lines(line for one in waiting(sessions) for line in pending(one.request))


@command
def suspend(
    context: typer.Context,
    name: Name,
    force: Annotated[bool, typer.Option("--force", help="Interrupt what goes on in it.")] = False,
    _json: JsonFlag = False,
) -> Exit:
    """Put a workspace to sleep; its files and conversations stay, and any command or prompt wakes it."""
    shell = shell_of(context)
    backend = shell.desktop.backend()
    workspace = find_workspace(backend, name)
    operation = _until_asleep(shell, backend, workspace, force=force)
    shell.screen.object(operation)
    if operation.status is not OperationStatus.DONE:
        raise _failure(operation.error, f"{workspace.name} was not suspended; try again.")
    shell.screen.say(f"{workspace.name} sleeps.")
    return Exit.OK


@command
def rm(
    context: typer.Context,
    name: Name,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    _json: JsonFlag = False,
) -> Exit:
    """Delete a workspace with everything in it, and wait until it is gone."""
    shell = shell_of(context)
    backend = shell.desktop.backend()
    workspace = find_workspace(backend, name)
    if not yes:
        if not shell.screen.asks:
            raise InvalidInput("There is no terminal to ask on; pass --yes to delete it.")
        question = f"Delete {one_line(workspace.name)} ({workspace.id}) with everything in it that is not pushed?"
        try:
            agreed = typer.confirm(question, err=True)
        except typer.Abort:
            return Exit.INTERRUPTED
        if not agreed:
            shell.screen.note("Nothing was deleted.")
            return Exit.FAILED
    operation = _until_gone(shell, backend, workspace)
    shell.screen.object(operation)
    if operation.status is not OperationStatus.DONE:
        raise _failure(operation.error, f"{workspace.name} could not be deleted; try again.")
    shell.screen.say(f"{workspace.name} is gone.")
    return Exit.OK


def _until_prepared(shell: Shell, backend: Backend, workspace: WorkspaceView) -> WorkspaceView:
    pauses = _pauses(shell, READY_S_MAX, f"{workspace.name} is still being prepared")
    try:
        with shell.screen.progress(f"preparing {workspace.name}") as progress:
            while workspace.status in PREPARING:
                next(pauses)
                workspace = backend.workspace(workspace.id)
                if shell.screen.progresses and workspace.operation_id is not None:
                    _tell(progress, backend.operation(workspace.operation_id))
    except KeyboardInterrupt:
        shell.screen.note(f"{workspace.name} is still being prepared; see it with: ff status {workspace.id}")
        raise
    return workspace


def _until_asleep(shell: Shell, backend: Backend, workspace: WorkspaceView, *, force: bool) -> OperationView:
    pauses = _pauses(shell, GONE_S_MAX, f"{workspace.name} is still awake")
    with shell.screen.progress(f"suspending {workspace.name}") as progress:
        while True:
            try:
                operation = backend.suspend(workspace.id, force=force)
                break
            except RemoteProblem as error:  # the server saves it, say: that ends by itself
                if error.problem.code != OPERATION_ACTIVE:
                    raise
                progress.update("waiting for what is being done with it")
            next(pauses)
        while operation.status in ACTIVE:
            next(pauses)
            operation = backend.operation(operation.id)
            _tell(progress, operation)
    return operation


def _until_gone(shell: Shell, backend: Backend, workspace: WorkspaceView) -> OperationView:
    pauses = _pauses(shell, GONE_S_MAX, f"{workspace.name} is still there")
    operation = backend.delete(workspace.id)
    with shell.screen.progress(f"deleting {workspace.name}") as progress:
        while operation.status in ACTIVE or operation.kind != TERMINATE:
            next(pauses)
            try:
                # When what ran on it has undone itself, the server, asked again, names the deletion.
                again = operation.status not in ACTIVE
                operation = backend.delete(workspace.id) if again else backend.operation(operation.id)
            except RemoteProblem as error:
                # The operation's row may go with the workspace it ended.
                if error.problem.status != NotFound.status or not _is_gone(backend, workspace):
                    raise
                return operation.model_copy(update={"status": OperationStatus.DONE})
            _tell(progress, operation)
    return operation


def _pauses(shell: Shell, s_max: float, state: str) -> Iterator[None]:
    """Sleep before each look, longer each time; raises ``TimedOut`` with ``state`` when that took ``s_max`` seconds."""
    waited_s, pause_s = 0.0, POLL_S_FIRST
    while waited_s < s_max:
        shell.desktop.sleep(pause_s)
        waited_s, pause_s = waited_s + pause_s, min(POLL_S_MAX, pause_s * 1.5)
        yield
    raise TimedOut(f"{state} after {s_max:g} s; the server goes on, see: ff ls")


def _is_gone(backend: Backend, workspace: WorkspaceView) -> bool:
    try:
        return backend.workspace(workspace.id).status is WorkspaceStatus.ARCHIVED
    except RemoteProblem as error:
        if error.problem.status != NotFound.status:
            raise
        return True


def _tell(progress: Progress, operation: OperationView) -> None:
    waits = operation.status is OperationStatus.QUEUED and operation.error is not None
    progress.update(one_line(operation.error.message, 300) if waits and operation.error else _step(operation))


def _step(operation: OperationView) -> str:
    return f"{operation.kind}: {operation.step or operation.status}"


def _state(workspace: WorkspaceView) -> str:
    if workspace.queue_place is not None:
        return f"{workspace.status} (number {workspace.queue_place} in the queue)"
    return f"{workspace.status} (asleep)" if asleep(workspace) else workspace.status


def _failure(error: ErrorView | None, fallback: str) -> FFError:
    if error is None:
        return FFError(fallback)
    return RemoteProblem(Problem(title="Failed", status=500, code=error.code, detail=error.message))


def _checkout(backend: Backend, workspace: WorkspaceView) -> tuple[Repository | None, FFError | None]:
    """The git status, or why it can't be had: a workspace that does not run still has a status worth showing."""
    if workspace.status is not WorkspaceStatus.READY or asleep(workspace):
        return None, None  # looking would wake it
    try:
        return backend.repository(workspace.id), None
    except FFError as error:
        return None, error


def _workspace_lines(workspace: WorkspaceView) -> list[Line]:
    shown = [Line(f"{one_line(workspace.name)}: {_state(workspace)} in {workspace.location} ({workspace.id})", "bold")]
    shown += [
        Line(f"  {label}: {one_line(value)}")
        for label, value in (
            ("repository", workspace.repo_url),
            ("issue", workspace.github_issue_url),
            ("pull request", workspace.pr_url),
        )
        if value
    ]
    if workspace.status is WorkspaceStatus.READY:
        saved = f"{workspace.last_saved_at:%Y-%m-%d %H:%M:%S} UTC" if workspace.last_saved_at else "not yet"
        shown.append(Line(f"  last saved: {saved}", DIM))
    if workspace.error is not None:
        shown.append(Line(f"  {one_line(workspace.error.message, 500)} ({one_line(workspace.error.code)})", BAD))
    return shown


def _checkout_lines(repository: Repository | None, trouble: FFError | None) -> list[Line]:
    if trouble is not None:
        return [Line(f"  git: {one_line(trouble.detail, 500)}", BAD)]
    if repository is None:
        return []
    where = f"on {one_line(repository.branch)}" if repository.branch else "detached"
    head = repository.head[:12] if repository.head else "no commit yet"
    counts = [
        f"{count} {word}"
        for count, word in (
            (repository.staged, "staged"),
            (repository.unstaged, "unstaged"),
            (repository.untracked, "untracked"),
            (repository.conflicted, "in conflict"),
        )
        if count
    ]
    return [Line(f"  git: {where} at {one_line(head)}, {', '.join(counts) or 'clean'}")]


def _session_lines(session: SessionView) -> list[Line]:
    queue = f", {session.queued} queued" if session.queued else ""
    model = one_line(session.model or "default model")
    shown = [
        Line(f"session {one_line(session.name)}: {session.status}, {session.activity}{queue}"),
        Line(f"  {model}, {session.permissions}, {session.id}", DIM),
    ]
    if session.error is not None:
        shown.append(Line(f"  {one_line(session.error.message, 500)} ({one_line(session.error.code)})", BAD))
    return shown


def _piped_token() -> str:
    token = sys.stdin.readline(TOKEN_CHARS_MAX + 3).rstrip("\r\n") if sys.stdin is not None else ""
    if not token:
        raise InvalidInput("Standard input holds no token.")
    return token
