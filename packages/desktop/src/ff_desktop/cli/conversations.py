"""``ff say``, ``ff watch``, ``ff answer``, ``ff stop``."""

import sys
from contextlib import closing
from typing import Annotated

import typer

from ff_core.contract.base import dump
from ff_core.contract.events import WorkspaceChanged
from ff_core.contract.problem import RemoteProblem
from ff_core.contract.session import (
    PROMPT_CHARS_MAX,
    WORKFLOW,
    Interrupt,
    NewMessage,
    NewSession,
    PendingRequest,
    PermissionPreset,
    SessionStatus,
    SessionView,
)
from ff_core.contract.workspace import WorkspaceStatus, WorkspaceView
from ff_core.errors import NotFound
from ff_core.ids import MessageId, RequestId, SessionId
from ff_desktop.backend import Backend
from ff_desktop.cli.choosing import (
    Reply,
    answer_of,
    asleep,
    check_settings,
    choose_request,
    find_session,
    request_of,
    waiting,
)
from ff_desktop.cli.exits import Exit
from ff_desktop.cli.live import Live
from ff_desktop.cli.render import pending
from ff_desktop.cli.screen import Line
from ff_desktop.cli.shell import JsonFlag, Name, Shell, command, shell_of
from ff_desktop.errors import Ambiguous, BadReply
from ff_desktop.turns import Asked, End, Turn

SessionFlag = Annotated[str | None, typer.Option("--session", "-s", help="The session's name or id.")]


@command
def say(
    context: typer.Context,
    name: Name,
    prompt: Annotated[str, typer.Argument(metavar="PROMPT", help="What to do; '-' reads standard input.", show_default=False)],
    wait: Annotated[bool, typer.Option("--wait", "-w", help="Show what happens until this prompt is answered.")] = False,
    session: SessionFlag = None,
    new: Annotated[bool, typer.Option("--new", help="Open another session (--session names it).")] = False,
    workflow: Annotated[str | None, typer.Option(metavar="NAME", help="What the new session is for, such as bugfix.")] = None,
    model: Annotated[str | None, typer.Option(help="The new session's model.")] = None,
    permissions: Annotated[
        PermissionPreset | None, typer.Option(help="The new session's permissions.", case_sensitive=False)
    ] = None,
    _json: JsonFlag = False,
) -> Exit:
    """Give the agent a prompt; by default in the newest session, which is opened when there is none."""
    shell = shell_of(context)
    text = sys.stdin.read(PROMPT_CHARS_MAX + 1) if prompt == "-" else prompt
    message = request_of(NewMessage, id=MessageId(shell.desktop.world.new_id()), text=text)
    found = shell.desktop.places().find(name)
    backend, workspace = found.backend, found.workspace
    if asleep(workspace):
        shell.screen.note(f"{workspace.name} is asleep; this wakes it.")
    sessions = backend.sessions(workspace.id)
    if session is not None and not new:
        chosen = find_session(sessions, session)
        check_settings(chosen, model, permissions, workflow)
    elif sessions and not new:
        chosen = sessions[-1]
        check_settings(chosen, model, permissions, workflow)
    else:
        identity = SessionId(shell.desktop.world.new_id())
        preset = permissions or PermissionPreset.STRICT
        spec = request_of(NewSession, id=identity, name=session, model=model, permissions=preset, workflow=workflow or WORKFLOW)
        chosen = backend.open_session(workspace.id, spec)
    sent = backend.send(chosen.id, message)
    if not wait:
        shell.screen.object(sent)
        shell.screen.say(f"Sent to session {chosen.name}. Follow it with: ff watch {workspace.id}")
        return Exit.OK
    names = {one.id: one.name for one in [*sessions, chosen]}
    return _until_answered(shell, backend, workspace, chosen, Turn(chosen.id, sent.id), names)


@command
def watch(
    context: typer.Context,
    name: Name,
    after: Annotated[int, typer.Option(min=0, metavar="SEQ", help="Only what came after this event.")] = 0,
    _json: JsonFlag = False,
) -> Exit:
    """Show events, past and live, until Ctrl-C (which leaves the workspace running)."""
    shell = shell_of(context)
    found = shell.desktop.places().find(name)
    backend, workspace = found.backend, found.workspace
    live = Live(shell.screen, {one.id: one.name for one in backend.sessions(workspace.id)})
    status = workspace.status
    with closing(live):
        try:
            for event in backend.events(workspace.id, after=after, lost=live.lost):
                live.show(event)
                if isinstance(event.body, WorkspaceChanged):
                    status = event.body.status
                if status is WorkspaceStatus.ARCHIVED:
                    break
        except KeyboardInterrupt:
            live.close()
            shell.screen.note(f"Stopped watching; {workspace.name} goes on. Stop its agent with: ff stop {workspace.id}")
            return Exit.INTERRUPTED
        except RemoteProblem as error:
            if not (status is WorkspaceStatus.ARCHIVING and error.problem.status == NotFound.status):
                raise
    shell.screen.note(f"{workspace.name} is gone.")
    return Exit.OK


@command
def answer(
    context: typer.Context,
    name: Name,
    allow: Annotated[bool, typer.Option("--allow", help="Permit it this once.")] = False,
    always: Annotated[bool, typer.Option("--always", help="Permit it and its like for the rest of the session.")] = False,
    deny: Annotated[bool, typer.Option("--deny", help="Refuse it.")] = False,
    message: Annotated[str | None, typer.Option(help="With --deny: the reason the agent is told.")] = None,
    choose: Annotated[
        list[str] | None, typer.Option(metavar="LABEL", help="Choose an offered answer; repeat for several.")
    ] = None,
    text: Annotated[str | None, typer.Option(help="Answer a question in your own words.")] = None,
    request: Annotated[str | None, typer.Option(metavar="ID", help="Which request, or how its id begins.")] = None,
    _json: JsonFlag = False,
) -> Exit:
    """Answer what the agent waits for. Without an answer, show what that is."""
    shell = shell_of(context)
    place = shell.desktop.places().find(name)
    backend = place.backend
    found = waiting(backend.sessions(place.workspace.id))
    reply = Reply(allow, always, deny, message, tuple(choose or ()), text)
    if reply.empty and found:
        shell.screen.object({"pending": [{"session_id": str(one.session.id), **dump(one.request)} for one in found]})
        shell.screen.lines(line for one in found for line in pending(one.request))
        return Exit.NEEDS_ANSWER
    try:
        chosen = choose_request(found, request)
    except Ambiguous:
        shell.screen.lines(line for one in found for line in pending(one.request))
        raise
    after = backend.answer(chosen.session.id, chosen.request.id, answer_of(chosen.request, reply))
    shell.screen.object(after)
    shell.screen.say(f"Answered; session {after.name} is {after.activity}.")
    return Exit.OK


@command
def stop(
    context: typer.Context,
    name: Name,
    keep_queued: Annotated[bool, typer.Option("--keep-queued", help="Keep the prompts that wait.")] = False,
    session: SessionFlag = None,
    _json: JsonFlag = False,
) -> None:
    """Interrupt the agents of a workspace; the workspace stays."""
    shell = shell_of(context)
    found = shell.desktop.places().find(name)
    backend, sessions = found.backend, found.backend.sessions(found.workspace.id)
    chosen = [find_session(sessions, session)] if session else [one for one in sessions if _may_work(one)]
    done = [(one, backend.interrupt(one.id, Interrupt(keep_queued=keep_queued))) for one in chosen]
    shell.screen.object({"sessions": [{"session_id": str(one.id), **dump(result)} for one, result in done]})
    for one, result in done:
        cancelled = f", {result.cancelled} queued prompts dropped" if result.cancelled else ""
        shell.screen.say(f"session {one.name}: {'interrupted' if result.was_working else 'had nothing to stop'}{cancelled}")
    if not done:
        shell.screen.say("No agent was working.")


def _may_work(session: SessionView) -> bool:
    return session.status is SessionStatus.RUNNING or session.queued > 0


def _until_answered(
    shell: Shell, backend: Backend, workspace: WorkspaceView, session: SessionView, turn: Turn, names: dict[SessionId, str]
) -> Exit:
    """Show the events of a prompt just sent until it is answered. ``session`` as it stood before."""
    live = Live(shell.screen, names)
    with closing(live):
        before = _still_waiting(backend, session.id, {one.id for one in session.pending})
        if before:
            shell.screen.lines(
                [Line("The session still waits for your answer to:"), *(x for one in before for x in pending(one))]
            )
            return _needs_answer(shell, workspace)
        try:
            for event in backend.events(workspace.id, after=workspace.last_seq, lost=live.lost):
                if not turn.concerns(event):
                    continue
                live.show(event)
                verdict = turn.judge(event)
                if isinstance(verdict, End):
                    return Exit.OK if verdict is End.DONE else Exit.TURN_FAILED
                if isinstance(verdict, Asked) and _still_waiting(backend, session.id, {verdict.request}):
                    return _needs_answer(shell, workspace)
        except KeyboardInterrupt:
            live.close()
            shell.screen.note(f"Stopped waiting; the agent goes on. Stop it with: ff stop {workspace.id}")
            return Exit.INTERRUPTED
    raise BadReply("The stream of events ended before the turn did.")


def _still_waiting(backend: Backend, session: SessionId, requests: set[RequestId]) -> list[PendingRequest]:
    """Those of the requests that nobody answered yet; what we know of them may be history."""
    return [one for one in backend.session(session).pending if one.id in requests] if requests else []


def _needs_answer(shell: Shell, workspace: WorkspaceView) -> Exit:
    shell.screen.note(f"The agent waits for your answer: ff answer {workspace.id} …")
    return Exit.NEEDS_ANSWER
