"""What the commands ask of a place where workspaces run: the server, or this machine. The same verbs for both.

What only one of them has is a protocol of its own.
"""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from typing import Protocol

from ff_core.contract.credentials import CredentialKind, CredentialView, SetCredential
from ff_core.contract.daemon import Repository
from ff_core.contract.events import Event
from ff_core.contract.execution import ExecFrame, ExecRequest
from ff_core.contract.local import ImportReport, ImportRequest, NewLocalWorkspace, NewProject, ProjectView
from ff_core.contract.operation import OperationView
from ff_core.contract.session import Answer, Interrupt, Interrupted, MessageView, NewMessage, NewSession, SessionView
from ff_core.contract.usage import UsageView
from ff_core.contract.workspace import NewWorkspace, WorkspaceView
from ff_core.ids import OperationId, ProjectId, RequestId, SessionId, WorkspaceId


class Backend(Protocol):
    """Every verb may raise ``RemoteProblem`` (it was refused, with code and sentence) or ``ServerUnreachable``."""

    def workspaces(self, *, name: str | None = None) -> Iterator[WorkspaceView]:
        """All workspaces, or those of exactly that name."""
        ...

    def workspace(self, workspace: WorkspaceId) -> WorkspaceView:
        """One workspace as it stands."""
        ...

    def delete(self, workspace: WorkspaceId, *, force: bool = False) -> OperationView:
        """Order its end; legal in every state, may be repeated.

        Where its work may be nowhere else, that is refused with ``work_would_be_lost`` unless it is forced.
        """
        ...

    def operation(self, operation: OperationId) -> OperationView:
        """A long act as it stands."""
        ...

    def repository(self, workspace: WorkspaceId) -> Repository:
        """The checkout as git sees it."""
        ...

    def sessions(self, workspace: WorkspaceId) -> list[SessionView]:
        """The conversations of a workspace, oldest first."""
        ...

    def session(self, session: SessionId) -> SessionView:
        """One conversation as it stands."""
        ...

    def open_session(self, workspace: WorkspaceId, spec: NewSession) -> SessionView:
        """Begin a conversation. With an ``id`` in ``spec`` it may be repeated."""
        ...

    def send(self, session: SessionId, message: NewMessage) -> MessageView:
        """Give a prompt; it is durable when this returns. With an ``id`` in ``message`` it may be repeated."""
        ...

    def interrupt(self, session: SessionId, how: Interrupt) -> Interrupted:
        """Stop the running turn."""
        ...

    def answer(self, session: SessionId, request: RequestId, answer: Answer) -> SessionView:
        """Answer a permission request or a question; the second answer to one request is refused."""
        ...

    def events(self, workspace: WorkspaceId, *, after: int, lost: Callable[[str], None]) -> Iterator[Event]:
        """Events after a cursor and then live, each once and in order; see ``ff_desktop.following``."""
        ...

    def execute(self, workspace: WorkspaceId, request: ExecRequest) -> AbstractContextManager[Iterator[ExecFrame]]:
        """Run a command; frames come as it writes. Leaving the context cancels it."""
        ...


class Machines(Protocol):
    """What only a server has: machines of its own."""

    def create(self, spec: NewWorkspace) -> WorkspaceView:
        """Order a workspace; it is PROVISIONING at first."""
        ...

    def suspend(self, workspace: WorkspaceId, *, force: bool) -> OperationView:
        """Order that it goes to sleep, if nothing goes on in it (``force``: in any case)."""
        ...


class Account(Protocol):
    """What only a server has: an account."""

    def credentials(self) -> list[CredentialView]:
        """Which third-party secrets are set; never their values."""
        ...

    def set_credential(self, kind: CredentialKind, secret: SetCredential) -> CredentialView:
        """Store a third-party secret in place of the one before; may be repeated. It can't be read again."""
        ...

    def remove_credential(self, kind: CredentialKind) -> None:
        """Have a third-party secret forgotten."""
        ...

    def usage(self, *, workspace: WorkspaceId | None = None) -> Iterator[UsageView]:
        """Tokens and cost by day, workspace and model, the newest day first."""
        ...


class Projects(Protocol):
    """What only a desktop has: repositories of its user, and workspaces in worktrees of them."""

    def create(self, spec: NewLocalWorkspace) -> WorkspaceView:
        """Begin to make a workspace; its events tell how that goes."""
        ...

    def projects(self) -> list[ProjectView]:
        """All projects, oldest first."""
        ...

    def add_project(self, new: NewProject) -> ProjectView:
        """Know a repository; the same one again is the same project."""
        ...

    def remove_project(self, project: ProjectId) -> None:
        """Forget a project; refused while it has workspaces."""
        ...

    def import_from(self, request: ImportRequest) -> ImportReport:
        """Say what an import from Factory Factory does, or do it; may be repeated."""
        ...
