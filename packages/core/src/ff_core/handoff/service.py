"""Moving workspaces, as a host sees it: freeze, pack, depart where one leaves; unpack, settle, activate where one arrives.

Each is safe to repeat. Whose workspace it is, is decided elsewhere (the server's row); here it is only written down, and until
it is, the copy that arrives is inert, as the one that leaves is frozen.
"""

import asyncio
import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from ff_core.contract.events import HandoffAborted, HandoffArrived, HandoffStarted
from ff_core.contract.handoff import Contents, ConversationPrint, Fingerprint
from ff_core.contract.places import Direction, Location
from ff_core.contract.plain import WorkspaceStatus
from ff_core.contract.record import WorkspaceRecord
from ff_core.handoff import child
from ff_core.handoff.errors import FixerActive, HandoffUnknown, TranscriptsDiffer, TurnRunning
from ff_core.handoff.orders import (
    CONVERSATIONS,
    REPOSITORY,
    SPOOL,
    Conversation,
    Land,
    Landed,
    Look,
    Obstacles,
    Pack,
    Packed,
    Progress,
    Settle,
    Survey,
    Surveyed,
    Unpack,
    Unpacked,
)
from ff_core.handoff.records import Records, conversations, read
from ff_core.ids import HandoffId, WorkspaceId
from ff_core.process import RunAs
from ff_core.ratchet.policy import active_fixer
from ff_core.sessions.service import Sessions
from ff_core.store.engine import Store, Tx
from ff_core.store.journal import Journal
from ff_core.workspaces import repository as workspaces
from ff_core.workspaces.errors import WorkspaceNotReady
from ff_core.workspaces.ownership import Ownership
from ff_core.world import World

SURVEY_TIMEOUT_S = 300.0
MOVE_TIMEOUT_S = 3600.0
"""For packing or unpacking: several gigabytes on a slow disk."""
BUNDLE = "bundle"
UNPACKED = "unpacked"

OnProgress = Callable[[Progress], None]


@dataclass(frozen=True)
class Ground:
    """Where a workspace's things are on this host, or will be."""

    repository: Path
    config_dir: Path
    """``CLAUDE_CONFIG_DIR`` of its agents."""


@dataclass(frozen=True)
class Rules:
    """What travels besides what always does; see ``ff_core.handoff.orders.Survey``."""

    have: tuple[str, ...] = ()
    whole: bool = False
    include: tuple[str, ...] = ()
    credentials: bool = False


class Handoffs:
    """One per host. ``folder`` is made when needed; below it each handoff has one of its own, which belongs to ``run_as``."""

    packer = child
    """Carries out the orders to pack, unpack and so on; tests have them carried out in their own process."""

    def __init__(
        self,
        *,
        store: Store,
        journal: Journal,
        world: World,
        sessions: Callable[[], Sessions],
        ownership: Ownership,
        folder: Path,
        run_as: RunAs | None,
    ) -> None:
        self._store, self._journal, self._world = store, journal, world
        self._sessions, self._ownership = sessions, ownership
        self._folder, self._run_as = folder, run_as
        self._records = Records(store, journal, world)

    def bundle(self, handoff_id: HandoffId) -> Path:
        """Where its bundle is, or comes to be."""
        return self._folder / str(handoff_id) / BUNDLE

    def staging(self, handoff_id: HandoffId) -> Path:
        """Where it is unpacked."""
        return self._folder / str(handoff_id) / UNPACKED

    def forget(self, handoff_id: HandoffId) -> None:
        """Remove everything that lies here of it. May be repeated."""
        shutil.rmtree(self._folder / str(handoff_id), ignore_errors=True)

    async def survey(self, ground: Ground, workspace_id: WorkspaceId, rules: Rules) -> Surveyed:
        """What would travel. Changes nothing, and may be asked at any time."""
        record = self._records.of(workspace_id)
        order = Survey(**self._wanted(ground, record, rules))
        found = await self.packer.survey(order, run_as=self._run_as, timeout_s=SURVEY_TIMEOUT_S)
        return found.model_copy(update={"contents": _with_records(found.contents, record)})

    def require_movable(self, workspace_id: WorkspaceId) -> None:
        """Raise what :meth:`freeze` would raise now; changes nothing."""
        with self._store.transaction() as tx:
            self._require_movable(tx, workspace_id, interrupt=False)

    async def freeze(
        self, workspace_id: WorkspaceId, handoff_id: HandoffId, direction: Direction, *, interrupt: bool = False
    ) -> None:
        """Let nothing new begin, and end the agents that rest, so that their transcripts are whole.

        Raises ``FixerActive``; ``TurnRunning``, unless it is to be interrupted; ``WorkspaceNotReady``; what
        ``Ownership.require`` does. Then nothing has changed.
        """
        with self._store.transaction() as tx:
            row = workspaces.read(tx, workspace_id)
            if row is None or row.moving != handoff_id:
                self._require_movable(tx, workspace_id, interrupt=interrupt)
                workspaces.freeze(tx, workspace_id, handoff_id, self._world.now())
                self._journal.append(tx, workspace_id, HandoffStarted(handoff_id=handoff_id, direction=direction))
        await self._sessions().halt(workspace_id)

    async def thaw(self, workspace_id: WorkspaceId, handoff_id: HandoffId, direction: Direction, reason: str) -> None:
        """It stays here after all, and goes on."""
        with self._store.transaction() as tx:
            row = workspaces.read(tx, workspace_id)
            if row is not None and row.moving == handoff_id:
                workspaces.freeze(tx, workspace_id, None, self._world.now())
                aborted = HandoffAborted(handoff_id=handoff_id, direction=direction, reason=reason)
                self._journal.append(tx, workspace_id, aborted)
        self.forget(handoff_id)
        await self._sessions().resume_queues()

    def depart(self, workspace_id: WorkspaceId, handoff_id: HandoffId, direction: Direction, epoch: int) -> None:
        """It lives elsewhere now: what is here is a copy in which nothing runs."""
        with self._store.transaction() as tx:
            row = workspaces.read(tx, workspace_id)
            if row is not None and row.epoch < epoch:
                workspaces.place(tx, workspace_id, direction.destination, epoch, self._world.now())
                workspaces.freeze(tx, workspace_id, None, self._world.now())
        self.forget(handoff_id)

    def heed(self, workspace_id: WorkspaceId, location: Location, epoch: int) -> None:
        """It was taken by force, and this is what the server says of where it lives. May be repeated."""
        with self._store.transaction() as tx:
            if workspaces.read(tx, workspace_id) is not None:
                workspaces.place(tx, workspace_id, location, epoch, self._world.now())

    async def pack(
        self, ground: Ground, workspace_id: WorkspaceId, handoff_id: HandoffId, rules: Rules, progress: OnProgress
    ) -> Packed:
        """Make the bundle, at :meth:`bundle`, of a workspace that this handoff has frozen. Raises what ``child.pack`` does."""
        row = workspaces.find(self._store, workspace_id)
        if row is None or row.moving != handoff_id:
            raise HandoffUnknown("This handoff has not frozen the workspace, so it can't be packed.")
        folder = await asyncio.to_thread(self._clean_folder, handoff_id)
        spool = folder / SPOOL
        spool.mkdir(mode=0o700)
        record = self._records.write(workspace_id, spool)
        self._give_away(folder)
        order = Pack(**self._wanted(ground, record, rules), spool=spool, bundle=self.bundle(handoff_id))
        packed = await self.packer.pack(order, run_as=self._run_as, timeout_s=MOVE_TIMEOUT_S, progress=progress)
        return packed.model_copy(update={"contents": _with_records(packed.contents, record)})

    async def unpack(self, handoff_id: HandoffId, *, size: int, sha256: str, base: Path | None, progress: OnProgress) -> Unpacked:
        """Make of the bundle at :meth:`bundle` what was packed, at :meth:`staging`; its fingerprint is that of the bundle.

        ``base``: a repository with the commits it builds on. Raises what ``child.unpack`` does.
        """
        staging = self.staging(handoff_id)
        await asyncio.to_thread(shutil.rmtree, staging, ignore_errors=True)
        self._give_away(staging.parent)
        order = Unpack(
            bundle=self.bundle(handoff_id),
            size=size,
            sha256=sha256,
            into=staging,
            base=base,
        )
        return await self.packer.unpack(order, run_as=self._run_as, timeout_s=MOVE_TIMEOUT_S, progress=progress)

    async def look(self, ground: Ground, rules: Rules) -> Fingerprint:
        """What a worktree is now, as if it were packed by these rules; its repositories only. Changes nothing."""
        order = Look(**self._rules(ground, rules))
        return (await self.packer.look(order, run_as=self._run_as, timeout_s=MOVE_TIMEOUT_S)).fingerprint

    async def in_the_way(self, handoff_id: HandoffId, ground: Ground, rules: Rules) -> tuple[str, ...]:
        """The first files of a worktree that did not travel by these rules, and that what was unpacked would overwrite."""
        order = Obstacles(staging=self.repository(handoff_id), sent_as=Survey(**self._rules(ground, rules)))
        return (await self.packer.obstacles(order, run_as=self._run_as, timeout_s=SURVEY_TIMEOUT_S)).paths

    async def land(self, order: Land, progress: OnProgress) -> Landed:
        """Take what was unpacked into a worktree; see ``ff_core.handoff.landing``. To be repeated until it is done."""
        return await self.packer.land(order, run_as=self._run_as, timeout_s=MOVE_TIMEOUT_S, progress=progress)

    def as_sent(self, ground: Ground, rules: Rules) -> Survey:
        """A worktree, and the rules by which it was sent."""
        return Survey(**self._rules(ground, rules))

    def keep(self, handoff_id: HandoffId) -> Path:
        """Put what was unpacked where :meth:`forget` does not find it, and say where that is. May be repeated."""
        kept = self._folder / f"kept-{handoff_id}"
        if not kept.exists():
            self.staging(handoff_id).rename(kept)
        return kept

    def repository(self, handoff_id: HandoffId) -> Path:
        """The checkout that was unpacked, whole and by itself."""
        return self.staging(handoff_id) / REPOSITORY

    def record(self, handoff_id: HandoffId) -> WorkspaceRecord:
        """What was unpacked of sessions and all that. Raises ``RecordsBroken``."""
        return read(self.staging(handoff_id) / SPOOL)

    def require_settling(self, workspace_id: WorkspaceId, handoff_id: HandoffId) -> None:
        """Raise what :meth:`settle` would (``RecordsBroken``, ``JournalDiverged``); changes nothing."""
        self._records.require_fit(self.staging(handoff_id) / SPOOL, workspace_id=workspace_id)

    async def settle(
        self, workspace_id: WorkspaceId, handoff_id: HandoffId, ground: Ground, arrived: Fingerprint
    ) -> WorkspaceRecord:
        """Make sessions, journal and transcripts of this host what was unpacked; it stays inert.

        The workspace has a row here. ``ground``: where its checkout is, or will be. ``arrived``: what unpacking found.
        Raises ``RecordsBroken``, ``JournalDiverged``, ``TranscriptsDiffer``.
        """
        record = self._records.adopt(self.staging(handoff_id) / SPOOL, workspace_id=workspace_id)
        found = await self._settle_transcripts(handoff_id, ground, conversations(record))
        if set(found) != set(arrived.conversations):
            raise TranscriptsDiffer
        return record

    async def activate(
        self, workspace_id: WorkspaceId, handoff_id: HandoffId, direction: Direction, *, epoch: int, place: str
    ) -> None:
        """It lives here from now on: say so, and go on with the prompts that wait."""
        with self._store.transaction() as tx:
            row = workspaces.read(tx, workspace_id)
            if row is None:
                raise HandoffUnknown
            if row.epoch < epoch or row.location is not self._ownership.here:
                now = self._world.now()
                workspaces.place(tx, workspace_id, self._ownership.here, epoch, now)
                workspaces.freeze(tx, workspace_id, None, now)
                arrived = HandoffArrived(
                    handoff_id=handoff_id,
                    direction=direction,
                    location=self._ownership.here,
                    epoch=epoch,
                    place=place,
                )
                self._journal.append(tx, workspace_id, arrived)
        self.forget(handoff_id)
        await self._sessions().resume_queues()

    async def _settle_transcripts(
        self, handoff_id: HandoffId, ground: Ground, sessions: tuple[Conversation, ...]
    ) -> tuple[ConversationPrint, ...]:
        if not sessions:
            return ()
        order = Settle(
            conversations=self.staging(handoff_id) / CONVERSATIONS,
            sessions=sessions,
            config_dir=ground.config_dir,
            cwd=ground.repository,
        )
        return (await self.packer.settle(order, run_as=self._run_as, timeout_s=SURVEY_TIMEOUT_S)).conversations

    def _require_movable(self, tx: Tx, workspace_id: WorkspaceId, *, interrupt: bool) -> None:
        self._ownership.require(tx, workspace_id)
        row = workspaces.read(tx, workspace_id)
        if row is None or row.status is not WorkspaceStatus.READY:
            raise WorkspaceNotReady
        service = self._sessions()
        views = service.within(tx, workspace_id)
        fixer = active_fixer(views)
        if fixer is not None:
            raise FixerActive(
                f"A ratchet fixer is active in this workspace (session {fixer.name}): wait or stop the fixer, for example with"
                f" ff stop {row.name} --session {fixer.id}",
                session_id=str(fixer.id),
            )
        busy = service.busy(workspace_id)
        if busy and not interrupt:
            names = ", ".join(view.name for view in views if view.id in busy)
            raise TurnRunning(
                f"An agent is in the middle of a turn in this workspace (session {names});"
                " wait until it is done (--wait) or stop it (--interrupt).",
                session_id=str(busy[0]),
            )

    def _wanted(self, ground: Ground, record: WorkspaceRecord, rules: Rules) -> dict[str, object]:
        return self._rules(ground, rules) | {"conversations": conversations(record)}

    def _rules(self, ground: Ground, rules: Rules) -> dict[str, object]:
        return {
            "repository": ground.repository,
            "config_dir": ground.config_dir,
            "have": rules.have,
            "whole": rules.whole,
            # In a VM the repository is the workspace's own; on a desktop its other branches are other workspaces'.
            "refs": "all" if self._ownership.here is Location.CLOUD else "branch",
            "include": rules.include,
            "credentials": rules.credentials,
        }

    def _clean_folder(self, handoff_id: HandoffId) -> Path:
        self.forget(handoff_id)
        return self.folder(handoff_id)

    def folder(self, handoff_id: HandoffId) -> Path:
        """The handoff's own, made if there is none; ours alone until :meth:`pack` or :meth:`unpack` give it to the user."""
        self._folder.mkdir(mode=0o711, parents=True, exist_ok=True)
        folder = self._folder / str(handoff_id)
        folder.mkdir(mode=0o700, exist_ok=True)
        return folder

    def _give_away(self, folder: Path) -> None:
        """To the user as whom the packing process runs. Nothing of his runs in it before, so no link of his is followed."""
        if self._run_as is None:
            return
        for path in (folder, *folder.rglob("*")):
            os.chown(path, self._run_as.uid, self._run_as.gid, follow_symlinks=False)


def _with_records(contents: Contents, record: WorkspaceRecord) -> Contents:
    """With what the packing process did not count."""
    return contents.model_copy(update={"sessions": len(record.sessions), "queued": len(record.queued), "events": record.last_seq})
