"""What the commands ask of a place where workspaces run: the server today, this machine later. The same verbs for both."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from typing import Protocol

from ff_core.contract.credentials import CredentialKind, CredentialView, SetCredential
from ff_core.contract.daemon import Repository
from ff_core.contract.events import Event
from ff_core.contract.execution import ExecFrame, ExecRequest
from ff_core.contract.operation import OperationView
from ff_core.contract.session import Answer, Interrupt, Interrupted, MessageView, NewMessage, NewSession, SessionView
from ff_core.contract.usage import UsageView
from ff_core.contract.workspace import NewWorkspace, WorkspaceView
from ff_core.ids import OperationId, RequestId, SessionId, WorkspaceId


class Backend(Protocol):
    """Every verb may raise ``RemoteProblem`` (it was refused, with code and sentence) or ``ServerUnreachable``."""

    def workspaces(self, *, name: str | None = None) -> Iterator[WorkspaceView]:
        """All workspaces, or those of exactly that name."""
        ...

    def workspace(self, workspace: WorkspaceId) -> WorkspaceView:
        """One workspace as it stands."""
        ...

    def create(self, spec: NewWorkspace) -> WorkspaceView:
        """Order a workspace; it is PROVISIONING at first."""
        ...

    def delete(self, workspace: WorkspaceId) -> OperationView:
        """Order its end; legal in every state, may be repeated."""
        ...

    def suspend(self, workspace: WorkspaceId, *, force: bool) -> OperationView:
        """Order that it goes to sleep, if nothing goes on in it (``force``: in any case)."""
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
