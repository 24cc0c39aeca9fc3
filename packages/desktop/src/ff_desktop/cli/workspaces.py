"""``ff ls``, ``ff status``, ``ff suspend``, ``ff rm``."""

from typing import Annotated

import typer

from ff_core.contract.base import dump
from ff_core.contract.daemon import Repository
from ff_core.contract.operation import TERMINATE, OperationStatus, OperationView
from ff_core.contract.places import Location
from ff_core.contract.problem import RemoteProblem, problem_of
from ff_core.contract.session import SessionView
from ff_core.contract.workspace import WorkspaceStatus, WorkspaceView
from ff_core.errors import FFError, InvalidInput, NotFound
from ff_desktop.backend import Backend
from ff_desktop.cli.choosing import asleep, waiting
from ff_desktop.cli.exits import Exit
from ff_desktop.cli.plain import one_line
from ff_desktop.cli.render import BAD, DIM, pending
from ff_desktop.cli.screen import Line
from ff_desktop.cli.shell import JsonFlag, Name, Shell, command, shell_of
from ff_desktop.cli.waiting import ACTIVE, failure, pauses, tell
from ff_desktop.cloud import CloudBackend
from ff_desktop.errors import CloudOnly
from ff_desktop.places import Found

GONE_S_MAX = 300.0
OPERATION_ACTIVE = "operation_active"
"""The server's code for: something else is being done with it just now."""
WORK_LOST = "work_would_be_lost"
"""This machine's code for: there is work in it that is nowhere else."""


@command
def ls(context: typer.Context, _json: JsonFlag = False) -> None:
    """List workspaces, those of this machine and those in the cloud."""
    shell = shell_of(context)
    found = shell.desktop.places().all()
    shell.screen.object({"items": [dump(workspace) for workspace in found.items], "notes": list(found.notes)})
    rows = [(w.name, _state(w), _where(w), w.branch or "", w.repo_url or "", str(w.id)) for w in found.items]
    shell.screen.table(("NAME", "STATUS", "WHERE", "BRANCH", "REPOSITORY", "ID"), rows)
    if not found.items:
        shell.screen.note("No workspaces. Make one: ff new NAME, or on the server: ff new NAME --cloud")
    for note in found.notes:
        shell.screen.note(note)


@command
def status(context: typer.Context, name: Name, _json: JsonFlag = False) -> None:
    """Show a workspace, its sessions, what waits for you, and its git status."""
    shell = shell_of(context)
    found = shell.desktop.places().find(name)
    backend, workspace = found.backend, found.workspace
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
    found = shell.desktop.places().find(name)
    if found.here:
        raise CloudOnly(f"{found.workspace.name} lives on this machine, where nothing has to sleep. To stop agents: ff stop")
    backend, workspace = shell.desktop.cloud(), found.workspace
    operation = _until_asleep(shell, backend, workspace, force=force)
    shell.screen.object(operation)
    if operation.status is not OperationStatus.DONE:
        raise failure(operation.error, f"{workspace.name} was not suspended; try again.")
    shell.screen.say(f"{workspace.name} sleeps.")
    return Exit.OK


@command
def rm(
    context: typer.Context,
    name: Name,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    force: Annotated[
        bool, typer.Option("--force", help="On this machine: also with work that is nowhere else, which is lost.")
    ] = False,
    _json: JsonFlag = False,
) -> Exit:
    """Delete a workspace with everything in it, and wait until it is gone. On this machine its branch stays in the project."""
    shell = shell_of(context)
    found = shell.desktop.places().find(name)
    workspace = found.workspace
    if not yes:
        if not shell.screen.asks:
            raise InvalidInput("There is no terminal to ask on; pass --yes to delete it.")
        try:
            agreed = typer.confirm(_question(found), err=True)
        except typer.Abort:
            return Exit.INTERRUPTED
        if not agreed:
            shell.screen.note("Nothing was deleted.")
            return Exit.FAILED
    operation = _until_gone(shell, found.backend, workspace, force=force)
    shell.screen.object(operation)
    if operation.status is not OperationStatus.DONE:
        raise failure(operation.error, f"{workspace.name} could not be deleted; try again.")
    shell.screen.say(f"{workspace.name} is gone.")
    if found.kept is not None:
        _clear(shell, found.kept, force=force)
    if found.here and workspace.epoch > 0:
        _clear_cloud(shell, workspace)
    if found.here and workspace.branch is not None:
        shell.screen.say(f"Its branch {workspace.branch} is still in the project.")
    return Exit.OK


def _clear_cloud(shell: Shell, workspace: WorkspaceView) -> None:
    """One that was in the cloud and came back: what the server keeps of it goes too, if it is only that."""
    try:
        cloud = shell.desktop.cloud(patient=False)
        there = cloud.workspace(workspace.id)
        if (there.location, there.epoch) == (Location.DESKTOP, workspace.epoch):
            _until_gone(shell, cloud, there, force=True)
    except FFError as error:
        if not (isinstance(error, RemoteProblem) and error.problem.status == NotFound.status):
            shell.screen.note(f"What the cloud still keeps of it goes by itself in some days ({error.detail})")


def _clear(shell: Shell, kept: WorkspaceView, *, force: bool) -> None:
    """Remove what this machine kept of a workspace that was sent, if nothing is lost by that."""
    try:
        _until_gone(shell, shell.desktop.local(), kept, force=force)
    except RemoteProblem as error:
        if error.problem.code != WORK_LOST:
            raise
        shell.screen.note(f"What was kept of it on this machine stays: {error.detail}")


def _question(found: Found) -> str:
    what = f"Delete {one_line(found.workspace.name)} ({found.workspace.id})"
    if found.here:
        return f"{what} with its folder {one_line(found.workspace.path or '')}? Its branch stays in the project."
    return f"{what} with everything in it that is not pushed?"


def _until_asleep(shell: Shell, backend: CloudBackend, workspace: WorkspaceView, *, force: bool) -> OperationView:
    waits = pauses(shell, GONE_S_MAX, f"{workspace.name} is still awake")
    with shell.screen.progress(f"suspending {workspace.name}") as progress:
        while True:
            try:
                operation = backend.suspend(workspace.id, force=force)
                break
            except RemoteProblem as error:  # the server saves it, say: that ends by itself
                if error.problem.code != OPERATION_ACTIVE:
                    raise
                progress.update("waiting for what is being done with it")
            next(waits)
        while operation.status in ACTIVE:
            next(waits)
            operation = backend.operation(operation.id)
            tell(progress, operation)
    return operation


def _until_gone(shell: Shell, backend: Backend, workspace: WorkspaceView, *, force: bool) -> OperationView:
    waits = pauses(shell, GONE_S_MAX, f"{workspace.name} is still there")
    operation = backend.delete(workspace.id, force=force)
    with shell.screen.progress(f"deleting {workspace.name}") as progress:
        while operation.status in ACTIVE or operation.kind != TERMINATE:
            next(waits)
            try:
                # When what ran on it has undone itself, the server, asked again, names the deletion.
                again = operation.status not in ACTIVE
                operation = backend.delete(workspace.id, force=force) if again else backend.operation(operation.id)
            except RemoteProblem as error:
                # The operation's row may go with the workspace it ended.
                if error.problem.status != NotFound.status or not _is_gone(backend, workspace):
                    raise
                return operation.model_copy(update={"status": OperationStatus.DONE})
            tell(progress, operation)
    return operation


def _is_gone(backend: Backend, workspace: WorkspaceView) -> bool:
    try:
        return backend.workspace(workspace.id).status is WorkspaceStatus.ARCHIVED
    except RemoteProblem as error:
        if error.problem.status != NotFound.status:
            raise
        return True


def _state(workspace: WorkspaceView) -> str:
    if workspace.queue_place is not None:
        return f"{workspace.status} (number {workspace.queue_place} in the queue)"
    return f"{workspace.status} (asleep)" if asleep(workspace) else workspace.status


def _where(workspace: WorkspaceView) -> str:
    return f"{workspace.location} ({workspace.desktop})" if workspace.desktop else workspace.location


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
            ("folder", workspace.path),
            ("repository", workspace.repo_url),
            ("issue", workspace.github_issue_url),
            ("pull request", workspace.pr_url),
        )
        if value
    ]
    if workspace.moving is not None:
        shown.append(Line("  on the move: nothing new runs in it; see ff handoffs", BAD))
    if workspace.status is WorkspaceStatus.READY and workspace.path is None:
        saved = f"{workspace.last_saved_at:%Y-%m-%d %H:%M:%S} UTC" if workspace.last_saved_at else "not yet"
        shown.append(Line(f"  last saved: {saved}", DIM))
    if workspace.error is not None:  # of one that is READY it is a warning
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
