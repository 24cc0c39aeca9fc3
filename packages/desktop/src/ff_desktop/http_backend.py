"""The verbs that a place of either kind has, over HTTP: the same addresses at the server and at ``ff serve``."""

import contextlib
from collections.abc import Callable, Iterator
from typing import TypeVar

import httpx2
from pydantic import BaseModel, ValidationError

from ff_core.contract.daemon import Repository
from ff_core.contract.events import Event
from ff_core.contract.execution import EXEC_FRAME, MEDIA_TYPE, ExecFrame, ExecRequest
from ff_core.contract.operation import OperationView
from ff_core.contract.page import PAGE_ITEMS_MAX, Page
from ff_core.contract.session import Answer, Interrupt, Interrupted, MessageView, NewMessage, NewSession, SessionView
from ff_core.contract.workspace import WorkspaceView
from ff_core.ids import OperationId, RequestId, SessionId, WorkspaceId
from ff_core.world import World
from ff_desktop.connection import Connection
from ff_desktop.errors import BadReply
from ff_desktop.following import follow

PAGES_MAX = 1000
EXEC_LINE_BYTES_MAX = 4 * 1024 * 1024
EXEC_GRACE_S = 30.0
"""How much longer than the command's own limit we wait for the server to say that it ended."""

V = TypeVar("V", bound=BaseModel)


class HttpBackend:
    """See ``ff_desktop.backend.Backend``."""

    def __init__(self, connection: Connection, *, world: World, sleep: Callable[[float], None]) -> None:
        self.connection = connection
        self._world = world
        self._sleep = sleep

    def workspaces(self, *, name: str | None = None) -> Iterator[WorkspaceView]:
        """See ``Backend``."""
        params = {} if name is None else {"name": name}
        for workspace in self.pages("/v1/workspaces", Page[WorkspaceView], params):
            if name is None or workspace.name == name:
                yield workspace

    def workspace(self, workspace: WorkspaceId) -> WorkspaceView:
        """See ``Backend``."""
        return self.connection.ask("GET", f"/v1/workspaces/{workspace}", WorkspaceView)

    def delete(self, workspace: WorkspaceId, *, force: bool = False) -> OperationView:
        """See ``Backend``."""
        params = {"force": "true"} if force else {}
        return self.connection.ask("DELETE", f"/v1/workspaces/{workspace}", OperationView, params=params)

    def operation(self, operation: OperationId) -> OperationView:
        """See ``Backend``."""
        return self.connection.ask("GET", f"/v1/operations/{operation}", OperationView)

    def repository(self, workspace: WorkspaceId) -> Repository:
        """See ``Backend``."""
        return self.connection.ask("GET", f"/v1/workspaces/{workspace}/repository", Repository)

    def sessions(self, workspace: WorkspaceId) -> list[SessionView]:
        """See ``Backend``."""
        found = self.pages(f"/v1/workspaces/{workspace}/sessions", Page[SessionView], {})
        return sorted(found, key=lambda session: (session.created_at, session.id))

    def session(self, session: SessionId) -> SessionView:
        """See ``Backend``."""
        return self.connection.ask("GET", f"/v1/sessions/{session}", SessionView)

    def open_session(self, workspace: WorkspaceId, spec: NewSession) -> SessionView:
        """See ``Backend``."""
        key = str(spec.id) if spec.id else None
        path = f"/v1/workspaces/{workspace}/sessions"
        return self.connection.ask("POST", path, SessionView, body=spec, idempotency_key=key)

    def send(self, session: SessionId, message: NewMessage) -> MessageView:
        """See ``Backend``."""
        key = str(message.id) if message.id else None
        path = f"/v1/sessions/{session}/messages"
        return self.connection.ask("POST", path, MessageView, body=message, idempotency_key=key)

    def interrupt(self, session: SessionId, how: Interrupt) -> Interrupted:
        """See ``Backend``."""
        return self.connection.ask("POST", f"/v1/sessions/{session}/interrupt", Interrupted, body=how)

    def answer(self, session: SessionId, request: RequestId, answer: Answer) -> SessionView:
        """See ``Backend``."""
        return self.connection.ask("POST", f"/v1/sessions/{session}/permissions/{request}", SessionView, body=answer)

    def events(self, workspace: WorkspaceId, *, after: int, lost: Callable[[str], None]) -> Iterator[Event]:
        """See ``Backend``."""
        return follow(self.connection, workspace, after, lost=lost, sleep=self._sleep)

    @contextlib.contextmanager
    def execute(self, workspace: WorkspaceId, request: ExecRequest) -> Iterator[Iterator[ExecFrame]]:
        """See ``Backend``."""
        path, headers = f"/v1/workspaces/{workspace}/exec", {"Accept": MEDIA_TYPE}
        limit_s = request.timeout_s + EXEC_GRACE_S
        with self.connection.stream("POST", path, body=request, headers=headers, read_timeout_s=limit_s) as response:
            yield map(_frame, _lines(response))

    def pages(self, path: str, page_type: type[Page[V]], params: dict[str, str]) -> Iterator[V]:
        """Everything of a list, page by page."""
        cursor: dict[str, str] = {}
        for _ in range(PAGES_MAX):
            page = self.connection.ask("GET", path, page_type, params={"limit": PAGE_ITEMS_MAX, **params, **cursor})
            yield from page.items
            if page.next_cursor is None:
                return
            cursor = {"cursor": page.next_cursor}
        raise BadReply(f"The list at {path} has no end.")


def _lines(response: httpx2.Response) -> Iterator[bytes]:
    """Whole lines of the body. What follows the last line feed was cut off and is dropped."""
    rest = b""
    for piece in response.iter_bytes():
        *lines, rest = (rest + piece).split(b"\n")
        yield from filter(None, lines)
        if len(rest) > EXEC_LINE_BYTES_MAX:
            raise BadReply(f"The server sent a line of more than {EXEC_LINE_BYTES_MAX} bytes.")


def _frame(line: bytes) -> ExecFrame:
    try:
        return EXEC_FRAME.validate_json(line)
    except ValidationError as error:
        raise BadReply("The server sent a piece of output that this version of ff can't read; update ff.") from error
