"""What every place where workspaces run promises to the commands: one list of checks, run on each (STYLE.md, habit 11).

A check is a plain function of a :class:`Place`; it talks to a real backend, with the real Claude CLI behind it.
"""

import time
from contextlib import closing
from dataclasses import dataclass, field
from uuid import UUID

import pytest

from ff_core.contract.base import Channel
from ff_core.contract.execution import ExecRequest
from ff_core.contract.problem import RemoteProblem
from ff_core.contract.session import (
    SESSIONS_MAX,
    Activity,
    Answer,
    Interrupt,
    NewMessage,
    NewSession,
    PermissionPreset,
)
from ff_core.contract.workspace import WorkspaceStatus, WorkspaceView
from ff_core.ids import MessageId, OperationId, SessionId, WorkspaceId
from ff_core.world import SystemWorld
from ff_desktop.backend import Backend

NOBODY = UUID("01890000-0000-7000-8000-00000000dead")
LIMIT_S = 60.0


def new_id() -> UUID:
    return SystemWorld().new_id()


@dataclass
class Place:
    """A backend, and how READY workspaces with a README.md are made there."""

    backend: Backend
    make: object
    _shared: list[WorkspaceView] = field(default_factory=list)

    @property
    def shared(self) -> WorkspaceView:
        """A workspace that checks may work in, not remove. They open as many sessions there as a workspace may have."""
        if not self._shared:
            self._shared.append(self.make("shared"))
        return self._shared[0]

    def execute(self, workspace, *argv, **more):
        with self.backend.execute(workspace.id, ExecRequest(argv=list(argv), env=more.pop("env", {}), **more)) as frames:
            found = [frame for frame in frames if frame.kind != "notice"]
        written = {channel: b"".join(f.data for f in found if f.kind == "output" and f.channel is channel) for channel in Channel}
        return written, found[-1]

    def open(self, workspace, preset=PermissionPreset.STRICT, **more):
        return self.backend.open_session(workspace.id, NewSession(id=SessionId(new_id()), permissions=preset, **more))

    def say(self, session, text):
        return self.backend.send(session.id, NewMessage(id=MessageId(new_id()), text=text))

    def until(self, workspace, wanted, after=0):
        """The first event that is ``wanted``; events come by themselves."""
        with closing(self.backend.events(workspace.id, after=after, lost=print)) as events:
            return next(event for event in events if wanted(event))

    def answered(self, workspace, message):
        return self.until(workspace, lambda e: e.body.kind == "turn.finished" and message.id in e.body.message_ids).body


def refused(call, status, code=None):
    with pytest.raises(RemoteProblem) as caught:
        call()
    problem = caught.value.problem
    assert problem.status == status, problem
    assert code in {None, problem.code}, problem
    assert problem.detail.endswith((".", ")"))


def eventually(look, limit_s=LIMIT_S):
    deadline = time.monotonic() + limit_s
    while not (found := look()):
        assert time.monotonic() < deadline, "it did not come true"
        time.sleep(0.05)
    return found


# -- the checks


def a_workspace_is_found_by_name_and_id_and_has_a_clean_checkout(place):
    made, backend = place.make("by any name"), place.backend
    assert (made.status, made.error) == (WorkspaceStatus.READY, None)
    assert [one.id for one in backend.workspaces(name="by any name")] == [made.id]
    assert list(backend.workspaces(name="by any")) == []
    assert made.id in [one.id for one in backend.workspaces()]
    assert backend.workspace(made.id).name == "by any name"
    looked = backend.repository(made.id)
    assert looked.head is not None
    assert looked.branch is not None
    assert (looked.staged, looked.unstaged, looked.untracked, looked.conflicted) == (0, 0, 0, 0)


def what_is_not_there_is_not_found(place):
    backend, nowhere, nobody = place.backend, WorkspaceId(NOBODY), SessionId(NOBODY)
    for call in (
        lambda: backend.workspace(nowhere),
        lambda: backend.delete(nowhere),
        lambda: backend.operation(OperationId(NOBODY)),
        lambda: backend.repository(nowhere),
        lambda: backend.sessions(nowhere),
        lambda: backend.open_session(nowhere, NewSession()),
        lambda: backend.session(nobody),
        lambda: backend.send(nobody, NewMessage(text="x")),
        lambda: backend.interrupt(nobody, Interrupt()),
        lambda: next(backend.events(nowhere, after=0, lost=print)),
        lambda: backend.execute(nowhere, ExecRequest(argv=["true"], env={})).__enter__(),
    ):
        refused(call, 404, "not_found")


def a_command_runs_as_if_it_ran_here(place):
    workspace = place.shared
    written, ended = place.execute(
        workspace,
        "sh",
        "-c",
        "cat; cat README.md >&2; printf '\\377\\000%s' \"$MINE\"; exit 7",
        stdin="naïve\n",
        env={"MINE": "a b"},
    )
    assert written[Channel.STDOUT] == "naïve\n".encode() + b"\xff\x00a b"
    assert written[Channel.STDERR] == b"# here\n"
    assert (ended.exit_code, ended.timed_out) == (7, False)
    assert place.execute(workspace, "sh", "-c", "kill -9 $$")[1].exit_code == -9
    assert place.execute(workspace, "sleep", "60", timeout_s=0.3)[1].timed_out
    assert place.execute(workspace, "mkdir", "-p", "deep/er")[1].exit_code == 0
    assert place.execute(workspace, "pwd", cwd="deep/er")[0][Channel.STDOUT].rstrip().endswith(b"/deep/er")


def a_command_that_cannot_run_is_refused_before_anything_is_streamed(place):
    workspace = place.shared
    refused(lambda: place.execute(workspace, "no-such-program"), 422, "program_missing")
    refused(lambda: place.execute(workspace, "pwd", cwd="../../../.."), 422, "exec_cwd_outside")
    refused(lambda: place.execute(workspace, "pwd", cwd="nowhere"), 409, "folder_missing")


def hanging_up_ends_the_command(place):
    workspace = place.shared
    with place.backend.execute(workspace.id, ExecRequest(argv=["sh", "-c", "echo $$; sleep 300"], env={})) as frames:
        pid = next(frame.data for frame in frames if frame.kind == "output").decode().strip()
    eventually(lambda: place.execute(workspace, "test", "-d", f"/proc/{pid}")[1].exit_code != 0)


def a_prompt_is_answered_and_what_the_agent_did_is_there(place):
    workspace, before = place.shared, place.backend.repository(place.shared.id).untracked
    session = place.open(workspace, PermissionPreset.YOLO, name="main", workflow="bugfix")
    assert (session.name, session.workflow, session.activity) == ("main", "bugfix", Activity.IDLE)
    message = place.say(session, "%bash echo made > made.txt\n%say Done as asked.")
    turn = place.answered(workspace, message)
    assert turn.outcome == "done"
    assert turn.usage.output_tokens > 0
    assert place.execute(workspace, "cat", "made.txt")[0][Channel.STDOUT] == b"made\n"
    assert place.backend.repository(workspace.id).untracked == before + 1
    (listed,) = [one for one in place.backend.sessions(workspace.id) if one.id == session.id]
    assert listed.provider_session_id is not None
    said = place.until(workspace, lambda event: event.body.kind == "message.assistant" and event.session_id == session.id)
    assert said.body.text == "Done as asked."


def events_come_in_order_without_gap_from_any_cursor(place):
    workspace = place.shared
    session = place.open(workspace, PermissionPreset.YOLO)
    message = place.say(session, "%say One.")
    seen = []
    place.until(workspace, lambda e: seen.append(e) or (e.body.kind == "turn.finished" and message.id in e.body.message_ids))
    stored = [event for event in seen if event.seq is not None]
    assert [event.seq for event in stored] == list(range(1, len(stored) + 1))
    middle = stored[len(stored) // 2]
    again = place.until(workspace, lambda event: event.seq is not None, after=middle.seq)
    assert again.seq == middle.seq + 1
    assert again == stored[len(stored) // 2 + 1]
    eventually(lambda: place.backend.workspace(workspace.id).last_seq >= stored[-1].seq)


def asking_twice_with_one_id_is_asking_once(place):
    workspace = place.shared
    spec = NewSession(id=SessionId(new_id()), name="once")
    first = place.backend.open_session(workspace.id, spec)
    assert place.backend.open_session(workspace.id, spec).id == first.id
    other = spec.model_copy(update={"name": "other"})
    refused(lambda: place.backend.open_session(workspace.id, other), 409, "session_exists")
    message = NewMessage(id=MessageId(new_id()), text="%say Once.")
    assert place.backend.send(first.id, message).id == place.backend.send(first.id, message).id
    changed = message.model_copy(update={"text": "something else"})
    refused(lambda: place.backend.send(first.id, changed), 409, "message_exists")
    place.answered(workspace, message)
    ids = [one.id for one in place.backend.sessions(workspace.id)]
    assert ids.count(first.id) == 1


def sessions_are_limited(place):
    workspace = place.make("many")
    for _ in range(SESSIONS_MAX):
        place.open(workspace)
    refused(lambda: place.open(workspace), 409, "sessions_max")


def a_permission_is_asked_for_and_given_once(place):
    workspace = place.shared
    session = place.open(workspace)
    message = place.say(session, "%bash touch allowed.txt\n%say It ran.")
    asked = place.until(workspace, lambda e: e.body.kind == "permission.requested" and e.session_id == session.id).body
    (waiting,) = place.backend.session(session.id).pending
    assert waiting.id == asked.request_id
    assert "touch allowed.txt" in waiting.input["command"]
    refused(lambda: place.backend.answer(session.id, waiting.id, Answer(message="maybe")), 422, "answer_unfit")
    after = place.backend.answer(session.id, waiting.id, Answer(decision="allow"))
    assert after.pending == ()
    refused(lambda: place.backend.answer(session.id, waiting.id, Answer(decision="deny")), 409, "request_settled")
    assert place.answered(workspace, message).outcome == "done"
    assert place.execute(workspace, "ls", "allowed.txt")[1].exit_code == 0


def an_interrupt_stops_the_turn_and_drops_what_waits(place):
    workspace = place.shared
    session = place.open(workspace)
    first = place.say(session, "long stream")
    place.until(workspace, lambda event: event.body.kind == "message.delta" and event.session_id == session.id)
    second = place.say(session, "%say Never.")
    stopped = place.backend.interrupt(session.id, Interrupt())
    assert (stopped.was_working, stopped.cancelled) == (True, 1)
    assert place.answered(workspace, first).outcome == "interrupted"
    dropped = place.until(workspace, lambda event: event.body.kind == "message.cancelled" and event.session_id == session.id)
    assert dropped.body.message_id == second.id
    eventually(lambda: place.backend.session(session.id).activity is Activity.IDLE)
    assert not place.backend.interrupt(session.id, Interrupt()).was_working


def a_workspace_that_is_deleted_is_gone(place):
    workspace, backend = place.make("gone"), place.backend
    place.open(workspace)
    operation = backend.delete(workspace.id)
    assert operation.kind == "terminate"
    assert operation.workspace_id == workspace.id

    def gone():
        try:
            return backend.workspace(workspace.id).status is WorkspaceStatus.ARCHIVED
        except RemoteProblem as error:
            return error.problem.status == 404

    eventually(gone)
    assert workspace.id not in [one.id for one in backend.workspaces()]
    refused(lambda: backend.delete(workspace.id), 404)


CHECKS = (
    a_workspace_is_found_by_name_and_id_and_has_a_clean_checkout,
    what_is_not_there_is_not_found,
    a_command_runs_as_if_it_ran_here,
    a_command_that_cannot_run_is_refused_before_anything_is_streamed,
    hanging_up_ends_the_command,
    a_prompt_is_answered_and_what_the_agent_did_is_there,
    events_come_in_order_without_gap_from_any_cursor,
    asking_twice_with_one_id_is_asking_once,
    sessions_are_limited,
    a_permission_is_asked_for_and_given_once,
    an_interrupt_stops_the_turn_and_drops_what_waits,
    a_workspace_that_is_deleted_is_gone,
)
