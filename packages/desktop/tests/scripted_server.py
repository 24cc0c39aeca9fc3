"""A server that speaks the contract and does as a test scripts it."""

import asyncio
import json
import threading
from base64 import b64encode, urlsafe_b64encode
from collections import deque
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from urllib.parse import parse_qsl, urlencode

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, RedirectResponse, Response, StreamingResponse
from starlette.routing import Route

from ff_core.contract.account import AuthSessionView, SignUp, TokenPairView, UserView
from ff_core.contract.authorization import DeviceLogin, ServerMetadata
from ff_core.contract.base import dump
from ff_core.contract.daemon import Repository
from ff_core.contract.events import (
    Event,
    MessageAssistant,
    MessageQueued,
    MessageUser,
    PermissionRequested,
    TurnFinished,
    sse_frame,
)
from ff_core.contract.execution import ExecRequest
from ff_core.contract.operation import OperationStatus, OperationView
from ff_core.contract.problem import MEDIA_TYPE, Problem
from ff_core.contract.session import (
    Activity,
    Answer,
    MessageState,
    MessageView,
    NewMessage,
    NewSession,
    PendingRequest,
    PermissionPreset,
    SessionStatus,
    SessionView,
)
from ff_core.contract.workspace import Location, NewWorkspace, WorkspaceStatus, WorkspaceView
from ff_core.testing.serve import TRANSPORT
from ff_core.world import uuid7

START = datetime(2026, 11, 23, tzinfo=UTC)
PASSWORD = "correct horse battery"


@dataclass
class Login:
    """A session: its good access tokens, its refresh token, and how often it was exchanged."""

    access: set[str]
    refresh: str
    refreshed: int = 0


class ScriptedServer:
    """The API with one user. Tests read and change its state; a lock-free tail is enough, lists only grow."""

    def __init__(self) -> None:
        self.url = ""
        self.ids = 0
        self.requests: list[tuple[str, str, dict[str, str], bytes]] = []
        self.keys: dict[str, str] = {"00000000-0000-7000-8000-000000000001": "ffk_secret"}
        """API keys by their ids; nothing here makes one."""
        self.logins: dict[str, Login] = {}
        """Logins that go on, by their ids."""
        self.access_life_s = 600
        self.polls: deque[str] = deque()
        """What a device login is answered before it is approved."""
        self.codes: dict[str, dict[str, str]] = {}
        """Authorization codes that were given, and what was asked for."""
        self.workspaces: dict[str, WorkspaceView] = {}
        self.sessions: dict[str, SessionView] = {}
        self.operations: dict[str, OperationView] = {}
        self.journal: list[Event] = []
        self.cut_after: deque[int] = deque()
        """For each coming event stream: after how many stored events its connection is cut, in the middle of the next frame."""
        self.resends = False
        """Every event stream begins with the first event, whatever the cursor says."""
        self.fail_next: deque[Problem] = deque()
        """Answers for the coming requests, whatever they ask."""
        self.polls_until_ready = 2
        self.fail_provisioning = False
        self.suspend_error = None
        self.queries: dict[str, dict[str, str]] = {}
        self.streams_open = 0
        self.exec_cancelled = threading.Event()
        self.exec_started = threading.Event()
        self.answers: list[tuple[str, Answer]] = []
        self.user = UserView(id=self.new_id(), email="ada@example.com", name="Ada", plan="free", created_at=START)

    # -- what tests call

    def new_id(self):
        self.ids += 1
        return uuid7(1_800_000_000_000 + self.ids, self.ids)

    def add_workspace(self, name="demo", status=WorkspaceStatus.READY, **fields):
        view = WorkspaceView(
            **{
                "id": self.new_id(), "name": name, "status": status, "location": Location.CLOUD, "epoch": 1, "repo_url": None,
                "branch": None, "github_issue_url": None, "pr_url": None, "error": None, "operation_id": None, "vm": None,
                "last_active_at": START, "created_at": START, "updated_at": START, **fields,
            }
        )  # fmt: skip
        self.workspaces[str(view.id)] = view
        return view

    def add_session(self, workspace, name="main", **fields):
        at = START + timedelta(seconds=self.ids)
        view = SessionView(
            **{
                "id": self.new_id(), "workspace_id": workspace.id, "name": name, "model": None,
                "permissions": PermissionPreset.STRICT, "status": SessionStatus.RUNNING, "activity": Activity.IDLE,
                "provider_session_id": None, "queued": 0, "pending": (), "error": None, "created_at": at, "updated_at": at,
                **fields,
            }
        )  # fmt: skip
        self.sessions[str(view.id)] = view
        return view

    def tell(self, workspace, body, session=None, hint=False):
        seq = None if hint else sum(e.seq is not None for e in self.journal) + 1
        session_id = session.id if session else None
        self.journal.append(Event(workspace_id=workspace.id, seq=seq, at=START, session_id=session_id, body=body))

    def ask(self, workspace, session, **fields):
        """Make the session wait for the user."""
        request = PendingRequest(
            **{"id": self.new_id(), "kind": "permission", "tool_name": "Bash", "input": {"command": "rm -r x"}, "asked_at": START}
            | fields
        )
        self.change(session, pending=(*self.sessions[str(session.id)].pending, request), activity=Activity.WAITING)
        return request

    def change(self, session, **update):
        self.sessions[str(session.id)] = self.sessions[str(session.id)].model_copy(update=update)

    def refuse(self, name, status, code, detail):
        """Let that handler refuse everything from now on."""

        async def refusing(request):
            return refused(status, code, detail)

        setattr(self, name, refusing)

    def seen(self, method, path_part):
        return [r for r in self.requests if r[0] == method and path_part in r[1]]

    # -- the API

    def app(self):
        v1 = [
            ("/auth/signup", "POST", self.sign_up), ("/auth/login", "POST", self.log_in), ("/auth/logout", "POST", self.log_out),
            ("/auth/refresh", "POST", self.refresh), ("/auth/token", "POST", self.token), ("/auth/device", "POST", self.device),
            ("/auth/device/token", "POST", self.device_token), ("/auth/sessions", "GET", self.list_logins),
            ("/auth/sessions", "DELETE", self.end_logins), ("/auth/sessions/{id}", "DELETE", self.end_login),
            ("/api-keys/{id}", "DELETE", self.delete_key), ("/me", "GET", self.me),
            ("/workspaces", "POST", self.create), ("/workspaces", "GET", self.page), ("/workspaces/{id}", "GET", self.get),
            ("/workspaces/{id}", "DELETE", self.delete), ("/operations/{id}", "GET", self.operation),
            ("/workspaces/{id}/suspend", "POST", self.suspend),
            ("/workspaces/{id}/exec", "POST", self.execute), ("/workspaces/{id}/repository", "GET", self.repository),
            ("/workspaces/{id}/sessions", "POST", self.open_session), ("/workspaces/{id}/sessions", "GET", self.list_sessions),
            ("/workspaces/{id}/events", "GET", self.events), ("/sessions/{id}", "GET", self.session),
            ("/sessions/{id}/messages", "POST", self.send), ("/sessions/{id}/interrupt", "POST", self.interrupt),
            ("/sessions/{id}/permissions/{rid}", "POST", self.answer),
        ]  # fmt: skip
        routes = [Route(f"/v1{path}", self.recorded(handler.__name__), methods=[method]) for path, method, handler in v1]

        async def alive(request):
            return JSONResponse({"status": "ok", "version": "9.9"})

        async def metadata(request):
            return reply(
                ServerMetadata(
                    issuer=self.url, authorization_endpoint=f"{self.url}/authorize", token_endpoint=f"{self.url}/v1/auth/token",
                    device_authorization_endpoint=f"{self.url}/v1/auth/device", jwks_uri=f"{self.url}/.well-known/jwks.json",
                )
            )  # fmt: skip

        more = [Route("/healthz", alive), Route("/.well-known/oauth-authorization-server", metadata)]
        return Starlette(routes=[*routes, *more, Route("/authorize", self.authorize)])

    def recorded(self, name):
        """The handler of that name, looked up at each request so that a test may put another in its place."""

        async def endpoint(request: Request) -> Response:
            body = await request.body()
            self.requests.append((request.method, request.url.path, dict(request.headers), body))
            if self.fail_next:
                return problem(self.fail_next.popleft())
            key = request.headers.get("authorization", "").removeprefix("Bearer ")
            begins = ("/v1/auth/signup", "/v1/auth/login", "/v1/auth/refresh", "/v1/auth/token", "/v1/auth/device")
            known = key in self.keys.values() or self.login_of(key) is not None
            if not request.url.path.startswith(begins) and not known:
                return refused(401, "not_authenticated", "The key is not good (any more).")
            try:
                return await getattr(self, name)(request)
            except KeyError:
                return refused(404, "not_found", "There is no such thing, or it is not yours.")

        return endpoint

    async def sign_up(self, request):
        wanted = SignUp.model_validate_json(await request.body())
        self.user = self.user.model_copy(update={"email": wanted.email})
        return reply(self.begin(), 201)

    async def log_in(self, request):
        if json.loads(await request.body())["password"] != PASSWORD:
            return refused(401, "wrong_credentials", "E-mail or password is wrong.")
        return reply(self.begin())

    def begin(self):
        login_id = str(self.new_id())
        self.logins[login_id] = Login(set(), "")
        return self.pair(login_id)

    def pair(self, login_id):
        login, number = self.logins[login_id], self.new_id()
        login.access.add(f"access-secret-{number}")
        login.refresh = f"refresh-secret-{number}"
        return TokenPairView(
            access_token=f"access-secret-{number}", expires_in=self.access_life_s, refresh_token=login.refresh,
            refresh_expires_in=1_000_000,
        )  # fmt: skip

    def login_of(self, access):
        return next((login_id for login_id, login in self.logins.items() if access in login.access), None)

    async def refresh(self, request):
        """Each token is good once, and a second use ends the login."""
        wanted = json.loads(await request.body())
        await asyncio.sleep(0.05)  # so that others come meanwhile
        for login_id, login in list(self.logins.items()):
            if wanted["refresh_token"] == login.refresh and wanted["client_id"] == "ff":
                login.refreshed += 1
                login.access.clear()
                return reply(self.pair(login_id))
        self.logins.clear()
        return refused(401, "refresh_reused", "This refresh token was used before.")

    async def authorize(self, request):
        """A page where nobody is asked: the answer comes at once."""
        query = dict(request.query_params)
        code = f"code-{len(self.codes)}"
        self.codes[code] = query
        return RedirectResponse(f"{query['redirect_uri']}?{urlencode({'code': code, 'state': query['state'], 'iss': self.url})}")

    async def token(self, request):
        form = dict(parse_qsl((await request.body()).decode()))
        asked = self.codes.pop(form["code"])
        challenge = urlsafe_b64encode(sha256(form["code_verifier"].encode()).digest()).rstrip(b"=").decode()
        assert (asked["code_challenge"], asked["redirect_uri"]) == (challenge, form["redirect_uri"])
        return reply(self.begin())

    async def device(self, request):
        return reply(
            DeviceLogin(
                device_code="d" * 43, user_code="BCDF-GHJK", verification_uri=f"{self.url}/device", expires_in=600, interval=1
            )
        )

    async def device_token(self, request):
        if self.polls:
            code = self.polls.popleft()
            return refused(400, code, code)
        return reply(self.begin())

    async def list_logins(self, request):
        mine = self.login_of(request.headers["authorization"].removeprefix("Bearer "))
        views = [
            AuthSessionView(
                id=login_id, client="ff", device="ff on \x1b[31mhost", place="192.0.2.0/24", created_at=START, last_used_at=START,
                expires_at=START, current=login_id == mine,
            )
            for login_id in self.logins
        ]  # fmt: skip
        return JSONResponse({"items": [dump(view) for view in views], "next_cursor": None})

    async def end_login(self, request):
        del self.logins[request.path_params["id"]]
        return Response(status_code=204)

    async def end_logins(self, request):
        mine = self.login_of(request.headers["authorization"].removeprefix("Bearer "))
        keep = set() if request.query_params.get("all") == "true" else {mine}
        self.logins = {login_id: login for login_id, login in self.logins.items() if login_id in keep}
        return Response(status_code=204)

    async def log_out(self, request):
        del self.logins[self.login_of(request.headers["authorization"].removeprefix("Bearer "))]
        return Response(status_code=204)

    async def delete_key(self, request):
        del self.keys[request.path_params["id"]]
        return Response(status_code=204)

    async def me(self, request):
        return reply(self.user)

    async def create(self, request):
        wanted = NewWorkspace.model_validate_json(await request.body())
        operation = self.new_operation("provision")
        view = self.add_workspace(
            wanted.name, WorkspaceStatus.PROVISIONING, repo_url=wanted.repo_url, branch=wanted.branch, operation_id=operation.id
        )
        return reply(view, 201)

    async def page(self, request):
        name, limit = request.query_params.get("name"), 2
        found = [w for w in self.workspaces.values() if name in {None, w.name}]
        start = int(request.query_params.get("cursor", 0))
        more = len(found) > start + limit
        items = [dump(w) for w in found[start : start + limit]]
        return JSONResponse({"items": items, "next_cursor": str(start + limit) if more else None})

    async def get(self, request):
        view = self.workspaces[request.path_params["id"]]
        if view.status is WorkspaceStatus.PROVISIONING:
            self.polls_until_ready -= 1
            if self.polls_until_ready <= 0:
                failed = {"code": "repository_not_found", "message": "There is no repository at that address."}
                status = WorkspaceStatus.FAILED if self.fail_provisioning else WorkspaceStatus.READY
                error = failed if self.fail_provisioning else None
                view = WorkspaceView.model_validate({**dump(view), "status": status, "error": error})
                self.workspaces[str(view.id)] = view
        return reply(view)

    async def delete(self, request):
        view = self.workspaces[request.path_params["id"]]
        return reply(self.new_operation("terminate", view), 202)

    async def suspend(self, request):
        self.queries["suspend"] = dict(request.query_params)
        return reply(self.new_operation("suspend", self.workspaces[request.path_params["id"]]), 202)

    def new_operation(self, kind, workspace=None):
        view = OperationView(
            id=self.new_id(), kind=kind, workspace_id=workspace.id if workspace else None, status=OperationStatus.RUNNING,
            step="start", progress=0, error=None, created_at=START, updated_at=START, finished_at=None,
        )  # fmt: skip
        self.operations[str(view.id)] = view
        return view

    async def operation(self, request):
        view = self.operations[request.path_params["id"]]
        if view.kind == "terminate":
            self.workspaces.pop(str(view.workspace_id), None)
            view = view.model_copy(update={"status": OperationStatus.DONE, "finished_at": START})
        if view.kind == "suspend":
            view = view.model_copy(update={"error": self.suspend_error, "finished_at": START})
            view = view.model_copy(update={"status": OperationStatus.UNDONE if self.suspend_error else OperationStatus.DONE})
        return reply(view)

    async def repository(self, request):
        return reply(Repository(branch="main", head="a" * 40, staged=1, unstaged=0, untracked=2, conflicted=0))

    async def open_session(self, request):
        wanted = NewSession.model_validate_json(await request.body())
        workspace = self.workspaces[request.path_params["id"]]
        fields = {"id": wanted.id or self.new_id(), "model": wanted.model, "permissions": wanted.permissions}
        return reply(self.add_session(workspace, wanted.name or "session", **fields), 201)

    async def list_sessions(self, request):
        workspace = self.workspaces[request.path_params["id"]]
        found = [dump(s) for s in self.sessions.values() if s.workspace_id == workspace.id]
        return JSONResponse({"items": found[::-1], "next_cursor": None})

    async def session(self, request):
        return reply(self.sessions[request.path_params["id"]])

    async def send(self, request):
        wanted = NewMessage.model_validate_json(await request.body())
        session = self.sessions[request.path_params["id"]]
        workspace = self.workspaces[str(session.workspace_id)]
        self.tell(workspace, MessageQueued(message_id=wanted.id, text=wanted.text), session)
        self.tell(workspace, MessageUser(message_id=wanted.id, text=wanted.text), session)
        if wanted.text == "ask":
            asked = self.ask(workspace, session)
            body = PermissionRequested(request_id=asked.id, tool_name=asked.tool_name, input=asked.input)
            self.tell(workspace, body, session)
        elif wanted.text != "hang":
            self.tell(workspace, MessageAssistant(text=f"You said: {wanted.text}"), session)
            outcome = wanted.text if wanted.text in {"failed", "interrupted"} else "done"
            self.tell(workspace, TurnFinished(message_ids=(wanted.id,), outcome=outcome), session)
        view = MessageView(id=wanted.id, session_id=session.id, text=wanted.text, state=MessageState.QUEUED, created_at=START)
        return reply(view, 202)

    async def interrupt(self, request):
        session = self.sessions[request.path_params["id"]]
        return JSONResponse({"was_working": session.activity is Activity.WORKING, "cancelled": session.queued})

    async def answer(self, request):
        session, rid = self.sessions[request.path_params["id"]], request.path_params["rid"]
        self.answers.append((rid, Answer.model_validate_json(await request.body())))
        self.change(session, pending=tuple(p for p in session.pending if str(p.id) != rid), activity=Activity.WORKING)
        return reply(self.sessions[str(session.id)])

    async def events(self, request):
        workspace = self.workspaces[request.path_params["id"]]
        after = int(request.headers.get("last-event-id") or request.query_params.get("after", 0))
        after = 0 if self.resends else after
        cut_after = self.cut_after.popleft() if self.cut_after else None
        transport = request.scope[TRANSPORT]

        async def frames():
            self.streams_open += 1
            position, sent, cursor = 0, 0, after
            yield b": hello\n\n"
            try:
                while str(workspace.id) in self.workspaces:
                    if position == len(self.journal):
                        await asyncio.sleep(0.01)
                        continue
                    event = self.journal[position]
                    position += 1
                    if event.seq is not None and event.seq <= after:
                        continue
                    if event.seq is None and cursor < sum(e.seq is not None for e in self.journal[:position]):
                        continue
                    if sent == cut_after:
                        yield sse_frame(event)[:-9]
                        await asyncio.sleep(0.05)
                        transport.abort()
                        return
                    yield sse_frame(event)
                    cursor = event.seq or cursor
                    sent += event.seq is not None
            finally:
                self.streams_open -= 1

        return StreamingResponse(frames(), media_type="text/event-stream")

    async def execute(self, request):
        wanted = ExecRequest.model_validate_json(await request.body())
        self.workspaces[request.path_params["id"]]
        return StreamingResponse(self.frames(wanted, request), media_type="application/x-ndjson")

    async def frames(self, wanted, request):
        match wanted.argv:
            case ["bytes"]:
                everything = bytes(range(256)) * 300
                for start in range(0, len(everything), 1000):
                    yield output("stdout", everything[start : start + 1000])
                yield output("stderr", b"\xff\xfe problem\n")
                yield frame(kind="exit", exit_code=0)
            case ["cat"]:
                yield output("stdout", (wanted.stdin or "<none>").encode())
                yield frame(kind="exit", exit_code=0)
            case ["exit", code]:
                yield frame(kind="exit", exit_code=int(code))
            case ["late"]:
                yield frame(kind="exit", exit_code=-9, timed_out=True)
            case ["missing"]:
                yield frame(kind="error", code="command_not_found", message="There is no program named 'missing'.")
            case ["cut"]:
                yield output("stdout", b"half")
                await asyncio.sleep(0.05)
                request.scope[TRANSPORT].abort()
            case ["sleep"]:
                yield output("stdout", b"started\n")
                self.exec_started.set()
                try:
                    await asyncio.sleep(60)
                finally:
                    self.exec_cancelled.set()
            case argv:
                yield output("stdout", json.dumps({"argv": argv, "cwd": wanted.cwd, "timeout_s": wanted.timeout_s}).encode())
                yield frame(kind="exit", exit_code=0)


def reply(view, status=200):
    return JSONResponse(dump(view), status)


def problem(document):
    return JSONResponse(dump(document), document.status, media_type=MEDIA_TYPE)


def refused(status, code, detail):
    return problem(Problem(title="Refused", status=status, code=code, detail=detail))


def frame(**fields):
    return json.dumps(fields).encode() + b"\n"


def output(channel, data):
    return frame(kind="output", channel=channel, data=b64encode(data).decode())
