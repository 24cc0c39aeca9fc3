"""The server's side of handoffs in memory, by the words of ``ff_core.contract.handoff``; its cloud is a folder.

``misbehave`` gives it a bad character: whatever is asked for that name next fails that way.
"""

import asyncio
import hashlib
import shutil
from datetime import UTC, datetime, timedelta
from pathlib import Path
from uuid import UUID

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route

from ff_core.contract.account import UserView
from ff_core.contract.base import ErrorView
from ff_core.contract.handoff import (
    Announced,
    BundleFacts,
    CommitHandoff,
    HandoffStatus,
    HandoffView,
    NewHandoff,
    Receipt,
    Takeover,
)
from ff_core.contract.page import Page
from ff_core.contract.places import Direction, Location
from ff_core.contract.problem import Problem
from ff_core.contract.workspace import WorkspaceStatus, WorkspaceView
from ff_core.handoff.orders import JOURNAL, RECORDS, REPOSITORY, SPOOL, Pack, Unpack
from ff_core.handoff.pack import pack
from ff_core.handoff.unpack import unpack
from ff_core.testing.serve import TRANSPORT

CHUNK_BYTES = 64 << 10
NOW = datetime(2026, 11, 26, 12, 0, tzinfo=UTC)
USER = UserView(id=UUID(int=42), email="ada@example.com", name="Ada", plan="free", created_at=NOW)


class Handoff:
    def __init__(self, wanted: NewHandoff) -> None:
        self.wanted = wanted
        self.status = HandoffStatus.UPLOADING if wanted.direction is Direction.SEND else HandoffStatus.EXPORTING
        self.bundle, self.contents = wanted.bundle, wanted.contents
        self.data = bytearray()
        self.receipt = self.error = None
        self.arrived = None
        self.epoch = wanted.epoch


class HandoffServer:
    """One user's. ``folder`` has a folder for each workspace that is in the cloud."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir()
        self.user = USER
        self.workspaces: dict[UUID, WorkspaceView] = {}
        self.handoffs: dict[UUID, Handoff] = {}
        self.asked: list[str] = []
        self.down = False
        self.remotes: dict[str, Path] = {}  # where the cloud finds what it is to clone
        self._faults: list[tuple[str, str]] = []
        self._tasks: set[asyncio.Task] = set()

    def app(self) -> Starlette:
        one = "/v1/handoffs/{handoff:uuid}"
        return Starlette(
            routes=[
                Route("/v1/me", self._named("me", self._me)),
                Route("/v1/workspaces", self._named("workspaces", self._workspaces)),
                Route("/v1/workspaces/{workspace:uuid}", self._named("workspace", self._workspace)),
                Route("/v1/workspaces/{workspace:uuid}/takeover", self._named("takeover", self._takeover), methods=["POST"]),
                Route("/v1/handoffs", self._named("list", self._list), methods=["GET"]),
                Route("/v1/handoffs", self._named("create", self._create), methods=["POST"]),
                Route(one, self._named("look", self._look)),
                Route(f"{one}/bundle", self._named("announce", self._announce), methods=["POST"]),
                Route(f"{one}/bundle", self._named("piece", self._piece), methods=["PUT"]),
                Route(f"{one}/bundle", self._named("download", self._download), methods=["GET"]),
                Route(f"{one}/commit", self._named("commit", self._commit), methods=["POST"]),
                Route(f"{one}/abort", self._named("abort", self._abort), methods=["POST"]),
            ]
        )

    def misbehave(self, name: str, how: str, times: int = 1) -> None:
        """``cut``: the connection breaks before anything is done; ``cut after``: when it is done; ``cut within``: of a body.

        ``busy``: 503. ``slow``: a little of a body, and more later. ``fail``: whatever is open comes to nothing.
        """
        self._faults += [(name, how)] * times

    def forgive(self) -> None:
        """No faults any more."""
        self._faults.clear()

    def cloud(self, workspace_id: UUID) -> Path:
        return self.folder / str(workspace_id) / REPOSITORY

    def runs(self, workspace_id: UUID) -> bool:
        """Whether sessions may run in the cloud."""
        workspace = self.workspaces.get(workspace_id)
        return workspace is not None and workspace.location is Location.CLOUD and self._open_of(workspace_id) is None

    def end(self, status: HandoffStatus, code: str = "fingerprint_differs") -> None:
        """Whatever is open comes to nothing."""
        for handoff in self.handoffs.values():
            if handoff.status.open:
                handoff.status, handoff.error = status, ErrorView(code=code, message="It came to nothing.")

    def _named(self, name, endpoint):
        async def answer(request: Request) -> Response:
            self.asked.append(name)
            how = next((how for which, how in self._faults if which == name), None)
            if how is not None:
                self._faults.remove((name, how))
            if self.down or how == "cut":
                request.scope[TRANSPORT].abort()
                return Response()
            if how == "busy":
                return _problem(503, "busy")
            if how == "fail":
                self.end(HandoffStatus.FAILED, "repo_auth_failed")
            request.state.within, request.state.slow = how == "cut within", how == "slow"
            response = await endpoint(request)
            if how == "cut after":
                request.scope[TRANSPORT].abort()
            return response

        return answer

    async def _me(self, _request: Request) -> Response:
        return _say(self.user)

    async def _workspace(self, request: Request) -> Response:
        found = self.workspaces.get(request.path_params["workspace"])
        return _problem(404, "not_found") if found is None else _say(found)

    async def _workspaces(self, request: Request) -> Response:
        name = request.query_params.get("name")
        return _say(Page[WorkspaceView](items=tuple(each for each in self.workspaces.values() if name in {None, each.name})))

    async def _list(self, request: Request) -> Response:
        wanted = request.query_params.get("workspace_id")
        found = [self._view(each) for each in self.handoffs.values() if wanted in {None, str(each.wanted.workspace_id)}]
        return _say(Page[HandoffView](items=tuple(reversed(found))))

    async def _create(self, request: Request) -> Response:
        wanted = NewHandoff.model_validate_json(await request.body())
        known = self.handoffs.get(wanted.id)
        if known is not None:
            return _say(self._view(known)) if known.wanted == wanted else _problem(409, "handoff_differs")
        workspace = self.workspaces.get(wanted.workspace_id)
        if workspace is None and wanted.direction is Direction.SEND:
            workspace = self._new(wanted)
        if workspace is None:
            return _problem(404, "not_found")
        origin = workspace.location is wanted.direction.origin
        mine = wanted.direction is Direction.PULL or workspace.desktop in {None, wanted.desktop_name}
        if not (origin and mine and workspace.epoch == wanted.epoch):
            return _problem(409, "stale_epoch")
        if self._open_of(wanted.workspace_id) is not None:
            return _problem(409, "handoff_open")
        handoff = self.handoffs[wanted.id] = Handoff(wanted)
        if wanted.direction is Direction.PULL:
            self._begin(self._export(handoff))
        return _say(self._view(handoff))

    async def _look(self, request: Request) -> Response:
        found = self._found(request)
        return _problem(404, "not_found") if found is None else _say(self._view(found))

    async def _announce(self, request: Request) -> Response:
        found, wanted = self._found(request), Announced.model_validate_json(await request.body())
        if found is None or not (found.status.open or found.status is HandoffStatus.COMMITTED):
            return _problem(409, "handoff_over")
        if (found.bundle, found.contents) != (wanted.bundle, wanted.contents):
            if found.status is not HandoffStatus.UPLOADING:
                return _problem(409, "handoff_differs")
            found.bundle, found.contents = wanted.bundle, wanted.contents
            found.data.clear()
        return _say(self._view(found))

    async def _piece(self, request: Request) -> Response:
        found = self._found(request)
        offset = int(request.query_params["offset"])
        if found is None or found.bundle is None or found.status is not HandoffStatus.UPLOADING:
            return _problem(409, "handoff_over")
        if offset != len(found.data):
            return _problem(409, "wrong_offset")
        body = await request.body()
        assert len(body) <= 16 << 20
        found.data += body
        if len(found.data) == found.bundle.size:
            found.status = HandoffStatus.RESTORING
            self._begin(self._restore(found))
        return _say(self._view(found))

    async def _download(self, request: Request) -> Response:
        found = self._found(request)
        if found is None or not found.data:
            return _problem(404, "not_found")
        data = bytes(found.data[int(request.query_params["offset"]) :])

        async def pieces():
            for at in range(0, len(data), CHUNK_BYTES):
                if request.state.within and at > len(data) // 2:
                    request.scope[TRANSPORT].abort()
                    return
                yield data[at : at + CHUNK_BYTES]
                if request.state.slow:
                    await asyncio.sleep(0.1)

        return StreamingResponse(pieces(), headers={"content-length": str(len(data))})

    async def _commit(self, request: Request) -> Response:
        found = self._found(request)
        if found is None:
            return _problem(404, "not_found")
        if found.status is HandoffStatus.COMMITTED:
            return _say(self._view(found))
        workspace = self.workspaces[found.wanted.workspace_id]
        if found.status is not HandoffStatus.READY or workspace.epoch != found.wanted.epoch:
            return _problem(409, "handoff_over")
        arrived = CommitHandoff.model_validate_json(await request.body()).arrived or found.arrived
        if arrived != found.bundle.fingerprint:
            return _problem(409, "fingerprint_differs")
        found.status, found.epoch = HandoffStatus.COMMITTED, workspace.epoch + 1
        found.receipt = Receipt(
            handoff_id=found.wanted.id,
            workspace_id=workspace.id,
            name=workspace.name,
            direction=found.wanted.direction,
            epoch=found.epoch,
            committed_at=NOW,
            bundle_bytes=found.bundle.size,
            bundle_sha256=found.bundle.sha256,
            sent=found.bundle.fingerprint,
            arrived=arrived,
            contents=found.contents,
        )
        desktop = found.wanted.desktop_name if found.wanted.direction is Direction.PULL else None
        self._place(workspace.id, found.wanted.direction.destination, found.epoch, desktop)
        return _say(self._view(found))

    async def _abort(self, request: Request) -> Response:
        found = self._found(request)
        if found is None:
            return _problem(404, "not_found")
        if found.status is HandoffStatus.COMMITTED:
            return _problem(409, "handoff_committed")
        if found.status.open:
            found.status = HandoffStatus.ABORTED
        return _say(self._view(found))

    async def _takeover(self, request: Request) -> Response:
        wanted = Takeover.model_validate_json(await request.body())
        workspace = self.workspaces.get(request.path_params["workspace"])
        if workspace is None:
            return _problem(404, "not_found")
        theirs = workspace.location is Location.DESKTOP and workspace.desktop == "another"
        if not theirs and (workspace.location, workspace.epoch) == (Location.DESKTOP, wanted.epoch):
            return _say(workspace)
        if theirs or workspace.epoch >= wanted.epoch:
            return _problem(409, "stale_epoch")
        self.end(HandoffStatus.ABORTED)
        self._place(workspace.id, Location.DESKTOP, wanted.epoch, None)
        return _say(self.workspaces[workspace.id])

    def _begin(self, work) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _restore(self, handoff: Handoff) -> None:
        assert hashlib.sha256(handoff.data).hexdigest() == handoff.bundle.sha256
        top = self.folder / str(handoff.wanted.workspace_id)
        fresh = self.folder / f"new-{handoff.wanted.id}"
        bundle = self.folder / f"{handoff.wanted.id}.bundle"
        bundle.write_bytes(handoff.data)
        url = handoff.wanted.workspace.repo_url
        base = None if url is None else self.remotes[url]
        order = Unpack(bundle=bundle, size=handoff.bundle.size, sha256=handoff.bundle.sha256, into=fresh, base=base)
        done = await asyncio.to_thread(unpack, order, lambda _: None)
        if handoff.status is HandoffStatus.RESTORING:
            shutil.rmtree(top, ignore_errors=True)
            fresh.rename(top)
            handoff.arrived, handoff.status = done.fingerprint, HandoffStatus.READY

    async def _export(self, handoff: Handoff) -> None:
        top = self.folder / str(handoff.wanted.workspace_id)
        bundle, spool = self.folder / f"{handoff.wanted.id}.bundle", self.folder / f"{handoff.wanted.id}.spool"
        spool.mkdir()
        for name in (RECORDS, JOURNAL):
            shutil.copy(top / SPOOL / name, spool / name)
        order = Pack(
            repository=top / REPOSITORY,
            config_dir=top,
            have=handoff.wanted.have,
            whole=not handoff.wanted.have,
            refs="all",
            include=(*self._came_by(handoff), *handoff.wanted.include),
            credentials=True,
            spool=spool,
            bundle=bundle,
        )
        packed = await asyncio.to_thread(pack, order, lambda _: None)
        handoff.data = bytearray(bundle.read_bytes())
        handoff.bundle = _facts(packed)
        handoff.contents = packed.contents
        if handoff.status is HandoffStatus.EXPORTING:
            handoff.status = HandoffStatus.READY

    def _came_by(self, handoff: Handoff) -> tuple[str, ...]:
        of_it = [each for each in self.handoffs.values() if each.wanted.workspace_id == handoff.wanted.workspace_id]
        sent = [each for each in of_it if (each.wanted.direction, each.status) == (Direction.SEND, HandoffStatus.COMMITTED)]
        return sent[-1].wanted.include if sent else ()

    def _new(self, wanted: NewHandoff) -> WorkspaceView:
        made = self.workspaces[wanted.workspace_id] = WorkspaceView(
            id=wanted.workspace_id,
            name=wanted.workspace.name,
            status=WorkspaceStatus.READY,
            location=Location.DESKTOP,
            epoch=wanted.epoch,
            repo_url=wanted.workspace.repo_url,
            branch=wanted.workspace.branch,
            github_issue_url=None,
            pr_url=None,
            error=None,
            operation_id=None,
            vm=None,
            last_active_at=NOW,
            created_at=NOW,
            updated_at=NOW,
        )
        return made

    def _place(self, workspace_id: UUID, location: Location, epoch: int, desktop: str | None) -> None:
        change = {"location": location, "epoch": epoch, "desktop": desktop}
        self.workspaces[workspace_id] = self.workspaces[workspace_id].model_copy(update=change)

    def _open_of(self, workspace_id: UUID) -> Handoff | None:
        found = (each for each in self.handoffs.values() if each.wanted.workspace_id == workspace_id and each.status.open)
        return next(found, None)

    def _found(self, request: Request) -> Handoff | None:
        return self.handoffs.get(request.path_params["handoff"])

    def _view(self, handoff: Handoff) -> HandoffView:
        return HandoffView(
            id=handoff.wanted.id,
            workspace_id=handoff.wanted.workspace_id,
            direction=handoff.wanted.direction,
            status=handoff.status,
            desktop_id=handoff.wanted.desktop_id,
            desktop_name=handoff.wanted.desktop_name,
            epoch=handoff.epoch,
            received_bytes=len(handoff.data),
            bundle=handoff.bundle,
            contents=handoff.contents,
            receipt=handoff.receipt,
            error=handoff.error,
            operation_id=None,
            expires_at=NOW + timedelta(hours=1),
            created_at=NOW,
            updated_at=NOW,
        )


def _facts(packed):
    return BundleFacts(size=packed.size, sha256=packed.sha256, fingerprint=packed.fingerprint)


def _say(view) -> Response:
    return Response(view.model_dump_json(), media_type="application/json")


def _problem(status: int, code: str) -> Response:
    problem = Problem(title=code, status=status, code=code, detail=f"The server says {code}.")
    return Response(problem.model_dump_json(), status, media_type="application/problem+json")
