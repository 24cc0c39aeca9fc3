"""The desktop's side of a handoff as far as the server sees it: plain requests, and bundles as bytes."""

import asyncio
import hashlib
import subprocess
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from uuid import UUID

from api_user import LIMIT_S, Refused, User, new_id

from ff_core.contract.base import dump
from ff_core.contract.daemon import Bind, ModelAccess, PrepareRepository
from ff_core.contract.handoff import BundleFacts, Contents, Fingerprint, HandoffStatus, HandoffView
from ff_core.contract.places import Direction
from ff_core.contract.session import NewSession
from ff_core.engine import Engine
from ff_core.handoff.service import Rules
from ff_core.ids import HandoffId, SessionId, WorkspaceId
from ff_core.settings import CoreSettings
from ff_core.world import SystemWorld

SESSION = SessionId(UUID(int=0x5E55))
PRINT = Fingerprint(repositories=(), conversations=(), records="0" * 64)
COUNTS = ("commits", "files", "file_bytes", "deleted", "stashes", "submodules", "sessions", "queued", "events")
CONTENTS = dict.fromkeys(COUNTS, 0)


@dataclass
class Desktop:
    """One that belongs to a user."""

    user: User
    name: str = "laptop"
    id: UUID = field(default_factory=new_id)

    def facts(self, content: bytes, fingerprint: Fingerprint = PRINT) -> dict[str, Any]:
        """Of a bundle."""
        return {"size": len(content), "sha256": hashlib.sha256(content).hexdigest(), "fingerprint": dump(fingerprint)}

    def wanted(self, direction: str, workspace_id: UUID, *, epoch: int, **more: Any) -> dict[str, Any]:
        """The body that begins a handoff."""
        wanted = {"id": str(new_id()), "direction": direction, "workspace_id": str(workspace_id), "epoch": epoch}
        return {**wanted, "desktop_id": str(self.id), "desktop_name": self.name, **more}

    def sent(self, workspace_id: UUID, content: bytes, *, epoch: int = 0, **more: Any) -> dict[str, Any]:
        """The same for a send."""
        usual = {"workspace": {"name": f"ws {str(workspace_id)[-8:]}"}, "bundle": self.facts(content), "contents": CONTENTS}
        return self.wanted("SEND", workspace_id, epoch=epoch, **usual | more)

    def announced(self, workspace_id: UUID, *, epoch: int = 0, **more: Any) -> dict[str, Any]:
        """The same before its bundle is packed."""
        return self.wanted("SEND", workspace_id, epoch=epoch, **{"workspace": {"name": f"ws {str(workspace_id)[-8:]}"}} | more)

    async def announce(
        self, handoff: HandoffView, bundle: BundleFacts | dict[str, Any], contents: Contents | None = None
    ) -> HandoffView:
        """Say what will be uploaded."""
        facts = dump(bundle) if isinstance(bundle, BundleFacts) else bundle
        body = {"bundle": facts, "contents": CONTENTS if contents is None else dump(contents)}
        return HandoffView.model_validate(await self.user.call("POST", f"/v1/handoffs/{handoff.id}/bundle", body))

    async def begin(self, wanted: dict[str, Any]) -> HandoffView:
        return HandoffView.model_validate(await self.user.call("POST", "/v1/handoffs", wanted))

    async def begin_pull(self, workspace_id: UUID, *, epoch: int, **more: Any) -> HandoffView:
        return await self.begin(self.wanted("PULL", workspace_id, epoch=epoch, **more))

    async def upload(self, handoff: HandoffView, content: bytes, offset: int = 0, *, pieces: int = 1) -> HandoffView:
        """What is left of a bundle, in pieces."""
        size = -(-(len(content) - offset) // pieces)
        for at in range(offset, len(content), size):
            handoff = await self.put(handoff, at, content[at : at + size])
        return handoff

    async def put(self, handoff: HandoffView, offset: int, piece: bytes) -> HandoffView:
        response = await self.user.http.put(f"/v1/handoffs/{handoff.id}/bundle?offset={offset}", content=piece)
        if response.status_code >= 400:
            raise Refused(response.status_code, response.json())
        return HandoffView.model_validate(response.json())

    async def send(
        self, workspace_id: UUID, content: bytes, like: HandoffView, *, epoch: int, pieces: int = 1, **more: Any
    ) -> HandoffView:
        """All of a bundle that a pull gave."""
        assert like.bundle is not None
        assert like.contents is not None
        facts = {"bundle": dump(like.bundle), "contents": dump(like.contents)}
        handoff = await self.begin(self.sent(workspace_id, content, epoch=epoch, **facts | more))
        return await self.upload(handoff, content, pieces=pieces)

    async def download(self, handoff: HandoffView, *, offset: int = 0) -> bytes:
        response = await self.user.http.get(f"/v1/handoffs/{handoff.id}/bundle?offset={offset}")
        if response.status_code >= 400:
            raise Refused(response.status_code, response.json())
        return response.content

    async def look(self, handoff: HandoffView) -> HandoffView:
        return HandoffView.model_validate(await self.user.call("GET", f"/v1/handoffs/{handoff.id}"))

    async def commit(self, handoff: HandoffView, arrived: Fingerprint | None = None) -> HandoffView:
        body = {} if arrived is None else {"arrived": dump(arrived)}
        return HandoffView.model_validate(await self.user.call("POST", f"/v1/handoffs/{handoff.id}/commit", body))

    async def abort(self, handoff: HandoffView) -> HandoffView:
        return HandoffView.model_validate(await self.user.call("POST", f"/v1/handoffs/{handoff.id}/abort"))

    async def until(self, handoff: HandoffView, *statuses: HandoffStatus) -> HandoffView:
        """The handoff, once it has one of these."""
        async with asyncio.timeout(LIMIT_S):
            while (found := await self.look(handoff)).status not in statuses:
                assert found.status.open, found
                await asyncio.sleep(0.05)
        return found


@dataclass(frozen=True)
class Made:
    """A bundle of a workspace that no server knows."""

    workspace_id: UUID
    content: bytes
    bundle: BundleFacts
    contents: Contents

    def sent(self, **more: Any) -> dict[str, Any]:
        """What is told of it."""
        return {"bundle": dump(self.bundle), "contents": dump(self.contents), **more}


async def make_bundle(root: Path, url: str | None = None) -> Made:
    """With a commit, a change that is staged, one that is not, and a session. ``url``: a repository that has the rest."""
    settings = CoreSettings(root=root, claude=Path("/bin/false"), run_as=None, allow_plain_http=True)
    engine = await Engine.open(settings, SystemWorld())
    try:
        workspace_id, handoff_id = WorkspaceId(new_id()), HandoffId(new_id())
        model = ModelAccess(base_url="http://127.0.0.1:9")
        await engine.bind(Bind(workspace_id=workspace_id, name="made", model=model))
        prepared = await engine.prepare(workspace_id, PrepareRepository(url=url))
        script = """
            git config user.email a@b && git config user.name a
            echo one > a.txt && git add a.txt && git commit -qm first
            echo two > a.txt && git add a.txt && echo three > a.txt && echo new > b.txt
        """
        await asyncio.to_thread(subprocess.run, ["sh", "-ec", script], cwd=settings.repository, check=True)
        await engine.sessions.create(workspace_id, NewSession(id=SESSION, name="talk"))
        await engine.handoffs.freeze(workspace_id, handoff_id, Direction.SEND)
        rules = Rules(have=() if prepared.head is None else (prepared.head,))
        packed = await engine.handoffs.pack(engine.ground, workspace_id, handoff_id, rules, lambda _: None)
        facts = BundleFacts(size=packed.size, sha256=packed.sha256, fingerprint=packed.fingerprint)
        return Made(workspace_id, engine.handoffs.bundle(handoff_id).read_bytes(), facts, packed.contents)
    finally:
        await engine.close()
