"""``ff send``, ``ff pull``, ``ff handoffs``, ``ff receipt``."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Annotated, Any

import typer

from ff_core.contract.base import ErrorView, dump
from ff_core.contract.handoff import Receipt
from ff_core.contract.local import BeginHandoff, HandoffPlan, LocalHandoff, LocalStatus, PlanHandoff
from ff_core.contract.places import Direction, Location
from ff_core.contract.problem import Problem, RemoteProblem
from ff_core.contract.workspace import WorkspaceView
from ff_core.errors import FFError, InvalidInput, NotFound
from ff_core.ids import HandoffId, WorkspaceId
from ff_desktop.cli.choosing import request_of
from ff_desktop.cli.exits import Exit, exit_of
from ff_desktop.cli.journeys import follow, joined
from ff_desktop.cli.move_words import done_lines, plan_lines, receipt_lines, where
from ff_desktop.cli.plain import one_line
from ff_desktop.cli.shell import JsonFlag, Name, Shell, command, shell_of
from ff_desktop.errors import Ambiguous, CredentialsAsk, NotLoggedIn, OnAnotherDesktop, ServerSilent, ServerUnreachable
from ff_desktop.moves import Moves, receipt_of
from ff_desktop.places import find_workspace

TURN = "turn_running"
_UNREACHABLE = frozenset({ServerUnreachable.code, ServerSilent.code})

Wait = Annotated[bool, typer.Option("--wait", help="Wait until a turn that runs is done.")]
Interrupting = Annotated[bool, typer.Option("--interrupt", help="Stop a turn that runs.")]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")]

handoffs = typer.Typer(
    help="Moves between this desktop and the cloud: those under way, and those that were interrupted.",
    rich_markup_mode=None,
    invoke_without_command=True,
)


@command
def send(
    context: typer.Context,
    names: Annotated[list[str], typer.Argument(metavar="NAME…", help="Workspaces, by name or id.", show_default=False)],
    plan: Annotated[bool, typer.Option("--plan", help="Only say what would travel, and what not.")] = False,
    wait: Wait = False,
    interrupt: Interrupting = False,
    whole: Annotated[bool, typer.Option("--whole", help="Take all of the history along; the cloud clones nothing.")] = False,
    include: Annotated[
        list[str] | None, typer.Option("--include", metavar="PATTERN", help="Take ignored files along, as in .gitignore.")
    ] = None,
    credentials: Annotated[
        bool | None,
        typer.Option(
            "--credentials/--no-credentials", help="Files that look like credentials travel, or stay.", show_default=False
        ),
    ] = None,
    yes: Yes = False,
    _json: JsonFlag = False,
) -> Exit:
    """Move workspaces to the cloud, with everything in them, and go on there."""
    shell = shell_of(context)
    if wait and interrupt:
        raise InvalidInput("Say either --wait or --interrupt.")
    order = _Order(wait, interrupt, credentials, {"whole": whole, "include": tuple(include or ())}, yes)
    sending = _Sending(shell, shell.desktop.moves(), order, alone=len(names) == 1)
    workspaces = _local(shell, names)
    return sending.plans(workspaces) if plan else sending.run(workspaces)


@command
def pull(
    context: typer.Context,
    name: Name,
    wait: Wait = False,
    interrupt: Interrupting = False,
    project: Annotated[str | None, typer.Option(metavar="P", help="The project to put it into. [default: by its remote]")] = None,
    force: Annotated[bool, typer.Option("--force", help="Go on with the copy that was kept here, without the server.")] = False,
    yes: Yes = False,
    _json: JsonFlag = False,
) -> Exit:
    """Move a workspace from the cloud to this desktop, and go on here."""
    shell = shell_of(context)
    if wait and interrupt:
        raise InvalidInput("Say either --wait or --interrupt.")
    moves = shell.desktop.moves()
    workspace = _anywhere(shell, name)
    if workspace.location is Location.DESKTOP and workspace.path is not None and not (force and workspace.moving):
        if workspace.moving is None:
            shell.screen.note(f"{workspace.name} lives on this desktop already.")
            shell.screen.object(workspace)
            return Exit.OK
        return _watch(shell, moves, [_under_way(moves, workspace, Direction.PULL)])
    if force and not _sure(shell, workspace, yes=yes):
        return Exit.FAILED
    wanted = request_of(
        BeginHandoff,
        id=HandoffId(shell.desktop.world.new_id()),
        direction=Direction.PULL,
        workspace_id=workspace.id,
        wait=wait,
        interrupt=interrupt,
        project=project,
        force=force,
    )
    return _watch(shell, moves, [_begin(moves, wanted)])


@handoffs.callback()
def listing(
    context: typer.Context,
    every: Annotated[bool, typer.Option("--all", help="Also those that are over.")] = False,
    _json: JsonFlag = False,
) -> None:
    """List moves: those under way and those that were interrupted."""
    if context.invoked_subcommand is None:
        _list(context, every=every)


@command
def _list(context: typer.Context, *, every: bool) -> None:
    shell = shell_of(context)
    found = list(shell.desktop.moves().all(only_open=not every))
    shell.screen.object({"items": [dump(handoff) for handoff in found]})
    rows = [(str(each.id), each.name, each.direction, each.status, each.step, one_line(where(each), 300)) for each in found]
    shell.screen.table(("ID", "NAME", "WAY", "STATUS", "STEP", "HOW FAR"), rows)
    if not found:
        shell.screen.note("No moves." if every else "No moves under way; all of them: ff handoffs --all")


Id = Annotated[str, typer.Argument(metavar="ID", help="The move's id, or the beginning of it.", show_default=False)]


@handoffs.command()
@command
def resume(context: typer.Context, identity: Id, _json: JsonFlag = False) -> Exit:
    """Try a move that was interrupted again now, and watch it."""
    shell = shell_of(context)
    moves = shell.desktop.moves()
    return _watch(shell, moves, [moves.resume(_chosen(moves, identity).id)])


@handoffs.command()
@command
def abort(context: typer.Context, identity: Id, _json: JsonFlag = False) -> Exit:
    """Undo a move, if it is not decided yet; the workspace goes on where it was."""
    shell = shell_of(context)
    moves = shell.desktop.moves()
    found = follow(shell, moves, [moves.abort(_chosen(moves, identity).id)])
    for handoff in found:
        shell.screen.object(handoff)
        if handoff.status is LocalStatus.STOPPED:
            raise _failure(handoff)
        shell.screen.lines(done_lines(handoff))
    return Exit.OK if all(handoff.status is LocalStatus.ABORTED for handoff in found) else Exit.REFUSED


@command
def receipt(context: typer.Context, name: Name, _json: JsonFlag = False) -> Exit:
    """Show the proof of a workspace's last move: both fingerprints, and what was left behind."""
    shell = shell_of(context)
    workspace = _anywhere(shell, name)
    found = [each for each in (_receipt_here(shell, workspace.id), _receipt_there(shell, workspace.id)) if each is not None]
    if not found:
        raise NotFound(f"{workspace.name} was never moved.")
    newest = max(found, key=lambda each: each.epoch)
    shell.screen.object({**dump(newest), "equal": newest.equal})
    shell.screen.lines(receipt_lines(newest))
    return Exit.OK if newest.equal else Exit.FAILED


@dataclass(frozen=True)
class _Order:
    """How workspaces are sent."""

    wait: bool
    interrupt: bool
    credentials: bool | None
    rules: dict[str, Any]
    yes: bool


class _Sending:
    """Sends workspaces, one by one to be begun, all at once to be carried out. ``alone``: what fails is all that is said."""

    def __init__(self, shell: Shell, moves: Moves, order: _Order, *, alone: bool) -> None:
        self._shell, self._moves, self._order, self._alone = shell, moves, order, alone
        self._outcome = Exit.OK

    def plans(self, workspaces: Iterable[WorkspaceView]) -> Exit:
        """Only say what would travel."""
        found: list[HandoffPlan] = []
        for workspace in workspaces:
            with self._reported():
                if self._is_here(workspace):
                    found.append(self._plan(workspace))
                    if self._refusals(found[-1]):
                        self._outcome = Exit.REFUSED
        alone = self._alone and len(found) == 1
        self._shell.screen.object(found[0] if alone else {"items": [dump(each) for each in found]})
        return self._outcome

    def run(self, workspaces: Iterable[WorkspaceView]) -> Exit:
        """Send them, and watch that to the end."""
        begun: list[LocalHandoff] = []
        for workspace in workspaces:
            with self._reported():
                if not self._is_here(workspace):
                    self._shell.screen.object(self._shell.desktop.cloud().workspace(workspace.id))
                elif workspace.moving is not None:
                    begun.append(_under_way(self._moves, workspace, Direction.SEND))
                else:
                    begun.append(self._begun(workspace))
        return _watch(self._shell, self._moves, begun) or self._outcome

    def _begun(self, workspace: WorkspaceView) -> LocalHandoff:
        order = self._order
        plan = self._plan(workspace)
        refusals = self._refusals(plan)
        if refusals:
            raise _error(refusals[0], refused=True)
        agreed = order.credentials is True or self._agrees(plan)
        wanted = request_of(
            BeginHandoff,
            id=HandoffId(self._shell.desktop.world.new_id()),
            direction=Direction.SEND,
            workspace_id=workspace.id,
            wait=order.wait,
            interrupt=order.interrupt,
            credentials=agreed,
            **order.rules,
        )
        return _begin(self._moves, wanted)

    def _plan(self, workspace: WorkspaceView) -> HandoffPlan:
        order = self._order
        wanted = request_of(PlanHandoff, workspace_id=workspace.id, credentials=order.credentials is True, **order.rules)
        found = self._moves.plan(wanted)
        self._shell.screen.lines(plan_lines(found))
        return found

    def _refusals(self, plan: HandoffPlan) -> list[ErrorView]:
        """What stands in the way, but for a turn that is waited for or stopped."""
        passes = self._order.wait or self._order.interrupt
        return [each for each in plan.refusals if not (each.code == TURN and passes)]

    def _agrees(self, plan: HandoffPlan) -> bool:
        """Whether files that look like credentials travel too. Raises ``CredentialsAsk`` when nobody can be asked."""
        if not plan.credentials or self._order.yes or self._order.credentials is not None:
            return False
        if not self._shell.screen.asks:
            raise CredentialsAsk(
                f"{len(plan.credentials)} files of {plan.name} look like credentials ({', '.join(plan.credentials[:3])}); say"
                " --credentials to send them too, or --no-credentials to leave them here."
            )
        return typer.confirm("Send the files that look like credentials, too?", err=True)

    def _is_here(self, workspace: WorkspaceView) -> bool:
        """Whether it lives here; in the cloud is fine, too. Raises ``OnAnotherDesktop``."""
        if workspace.location is Location.DESKTOP:
            return True
        there = self._shell.desktop.cloud().workspace(workspace.id)
        if there.location is not Location.CLOUD:
            where_now = f"the desktop {there.desktop}" if there.desktop else "another desktop"
            raise OnAnotherDesktop(f"{workspace.name} lives on {where_now} now, so it can't be sent from here.")
        self._shell.screen.note(f"{workspace.name} lives in the cloud already.")
        return False

    @contextmanager
    def _reported(self) -> Iterator[None]:
        """What is wrong with one does not keep the others here."""
        try:
            yield
        except FFError as error:
            if self._alone:
                raise
            self._shell.screen.error(error)
            self._outcome = self._outcome or exit_of(error)


def _watch(shell: Shell, moves: Moves, begun: list[LocalHandoff]) -> Exit:
    """Follow moves to their end, and say how they ended."""
    outcome = Exit.OK
    for handoff in follow(shell, moves, begun):
        shell.screen.object(handoff)
        if handoff.status in {LocalStatus.DONE, LocalStatus.ABORTED}:
            shell.screen.lines(done_lines(handoff))
            if handoff.status is LocalStatus.ABORTED:
                outcome = outcome or Exit.INTERRUPTED
            continue
        error = _failure(handoff)
        shell.screen.error(error)
        outcome = outcome or _exit_of(handoff, error)
    return outcome


def _begin(moves: Moves, wanted: BeginHandoff) -> LocalHandoff:
    """Begin one, or join the one that does the same already."""
    try:
        return moves.begin(wanted)
    except RemoteProblem as error:
        found = joined(moves, error)
        if found is None or found.direction is not wanted.direction:
            raise
        return found


def _under_way(moves: Moves, workspace: WorkspaceView, direction: Direction) -> LocalHandoff:
    """The move that is under way already; it is gone on with."""
    for handoff in moves.all(only_open=True):
        if handoff.workspace_id == workspace.id and handoff.direction is direction:
            return moves.resume(handoff.id)
    raise InvalidInput(f"{workspace.name} is on the move the other way; see: ff handoffs")


def _local(shell: Shell, names: Iterable[str]) -> list[WorkspaceView]:
    """The workspaces of these names that this desktop knows, each once. Raises ``NotFound``, ``Ambiguous``."""
    backend = shell.desktop.local()
    found = [find_workspace(backend, name) for name in names]
    return list({workspace.id: workspace for workspace in found}.values())


def _anywhere(shell: Shell, name: str) -> WorkspaceView:
    """The workspace of this name as this desktop knows it, else as the server does."""
    try:
        return find_workspace(shell.desktop.local(), name)
    except NotFound:
        return find_workspace(shell.desktop.cloud(), name)


def _sure(shell: Shell, workspace: WorkspaceView, *, yes: bool) -> bool:
    """Say what force means, and have it confirmed."""
    shell.screen.note(
        f"This goes on with the copy of {workspace.name} that was kept on this desktop, without what was done in the cloud since."
        " Until the server has heard of it, the copy in the cloud may go on too; then one of the two is frozen, and the server"
        " decides which."
    )
    if yes:
        return True
    if not shell.screen.asks:
        raise InvalidInput("There is no terminal to ask on; pass --yes to take the copy back.")
    return typer.confirm(f"Take {one_line(workspace.name)} back?", err=True)


def _chosen(moves: Moves, identity: str) -> LocalHandoff:
    """The move whose id is, or begins with, that. Raises ``NotFound``, ``Ambiguous``."""
    found = [each for each in moves.all() if str(each.id).startswith(identity.lower())]
    if not found:
        raise NotFound(f"There is no move {identity!r}; `ff handoffs --all` lists them.")
    if len(found) > 1:
        raise Ambiguous(f"{len(found)} moves have an id that begins with {identity!r}.")
    return found[0]


def _receipt_here(shell: Shell, workspace: WorkspaceId) -> Receipt | None:
    found = shell.desktop.moves().all()
    return next((each.receipt for each in found if each.workspace_id == workspace and each.receipt is not None), None)


def _receipt_there(shell: Shell, workspace: WorkspaceId) -> Receipt | None:
    try:
        return receipt_of(shell.desktop.connection(), workspace)
    except (NotLoggedIn, ServerUnreachable, RemoteProblem):
        return None


def _failure(handoff: LocalHandoff) -> FFError:
    name = one_line(handoff.name)
    if handoff.error is None:
        return FFError(f"{name}: the move did not come to its end; see: ff handoffs")
    if handoff.status is LocalStatus.STOPPED:
        more = f"ff serve goes on trying; or: ff handoffs abort {handoff.id}"
        return _error(ErrorView(code=handoff.error.code, message=f"{name}: {handoff.error.message} ({more})"), refused=False)
    return _error(ErrorView(code=handoff.error.code, message=f"{name}: {handoff.error.message}"), refused=handoff.refused)


def _error(error: ErrorView, *, refused: bool) -> FFError:
    status = 409 if refused else 500
    return RemoteProblem(Problem(title="Refused" if refused else "Failed", status=status, code=error.code, detail=error.message))


def _exit_of(handoff: LocalHandoff, error: FFError) -> Exit:
    code = "" if handoff.error is None else handoff.error.code
    if code in _UNREACHABLE:
        return Exit.UNREACHABLE
    return Exit.NOT_LOGGED_IN if code == NotLoggedIn.code else exit_of(error)
