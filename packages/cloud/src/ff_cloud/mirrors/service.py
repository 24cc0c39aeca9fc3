"""What a VM is given of a repository before it clones, and who may get what.

* A repository that anybody may read has one mirror for all; every time it is given away the server is asked anew,
  without a credential, whether that is still so.
* A repository that needs a credential has one for each user who has a ``github_token``; every time the server is asked anew
  with it. Nobody else can get at it: its folder is found by the user's id.
* When the answer is no, the mirror goes.

Nobody waits for a mirror to be made. The first clone of a repository comes from its server; :meth:`Mirrors.note_clone` has the
mirror made afterwards, with low priority, one at a time on a machine.
"""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing, suppress
from dataclasses import dataclass
from pathlib import Path

import structlog

from ff_cloud.credentials.service import Credentials
from ff_cloud.kit.db import Database
from ff_cloud.kit.heartbeats import UNHEARD, Pulse
from ff_cloud.kit.rounds import rounds
from ff_cloud.mirrors.folders import Folders
from ff_cloud.mirrors.policy import Rules
from ff_cloud.users import service as users
from ff_core.contract.credentials import CredentialKind
from ff_core.errors import FFError
from ff_core.git import seed
from ff_core.git.errors import RepoAuthFailed, RepoNotFound
from ff_core.git.mirror import Mirror, MirrorMissing
from ff_core.git.remote import Credential, RepoUrl
from ff_core.git.unattended import Listing, look
from ff_core.ids import UserId
from ff_core.world import World

log = structlog.get_logger(__name__)

LOOK_TIMEOUT_S = 5.0
REFRESH_WAIT_S = 3.0
"""How long a workspace waits for its mirror to be brought up to date; what is late is fetched by the VM itself."""
FETCH_TIMEOUT_S = 300.0
MAKE_TIMEOUT_S = 3600.0
TURN_WAIT_S = 3600.0
TIDY_TIMEOUT_S = 1800.0
NOTED_MAX = 64
"""Repositories that wait for their mirror; further ones wait for their next clone."""
SWEEP_EVERY_S = 900.0


@dataclass(frozen=True, slots=True)
class _Access:
    """A mirror, and that its reader may read the repository."""

    mirror: Mirror
    credential: Credential | None
    listing: Listing


class Mirrors:
    """The mirrors of this machine. One per process; :meth:`run` must run in one process at least."""

    def __init__(
        self,
        *,
        folders: Folders,
        rules: Rules,
        db: Database,
        credentials: Credentials,
        world: World,
        pulse: Pulse = UNHEARD,
        refresh_wait_s: float = REFRESH_WAIT_S,
    ) -> None:
        self._folders = folders
        self._rules = rules
        self._db = db
        self._credentials = credentials
        self._world = world
        self._pulse = pulse
        self._refresh_wait_s = refresh_wait_s
        self._noted: asyncio.Queue[tuple[UserId, RepoUrl]] = asyncio.Queue(NOTED_MAX)
        self._waiting: set[tuple[UserId, RepoUrl]] = set()
        self._refreshing: dict[Path, asyncio.Task[None]] = {}

    async def seed_for(self, user_id: UserId, url: str) -> AsyncIterator[bytes] | None:
        """What is known of a repository that this user may read now, as a stream for its VM; None: nothing.

        Takes a few seconds at most and raises nothing. The stream may break off; then it is as if there were none.
        """
        address = self._rules.admitted(url)
        if address is None:
            return None
        try:
            access = await self._access(user_id, address, make=False)
            if access is None:
                return None
            await self._refresh(access)
            there = await asyncio.to_thread(self._folders.made, access.mirror)
        except FFError as error:
            log.info("mirror.unused", url=url, code=error.code)
            return None
        return self._stream(access.mirror) if there else None

    def note_clone(self, user_id: UserId, url: str) -> None:
        """A workspace of this user has cloned this: its mirror is made or brought up to date, when there is time."""
        address = self._rules.admitted(url)
        if address is None or (user_id, address) in self._waiting:
            return
        try:
            self._noted.put_nowait((user_id, address))
        except asyncio.QueueFull:
            log.info("mirror.not_noted", url=url)
        else:
            self._waiting.add((user_id, address))

    async def forget_user(self, user_id: UserId) -> None:
        """Remove the private mirrors of a user on this machine. May be repeated."""
        await asyncio.to_thread(self._folders.forget, user_id)

    async def run(self) -> None:
        """Make mirrors that were asked for and remove what must go, until cancelled."""
        await asyncio.to_thread(self._folders.prepare)
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._work())
                group.create_task(rounds("mirrors", self.sweep, lambda: self._world.sleep(SWEEP_EVERY_S), self._pulse))
        finally:
            for task in self._refreshing.values():
                task.cancel()

    async def sweep(self) -> None:
        """Remove what must go. Safe in any number of processes."""
        for user_id in await asyncio.to_thread(self._folders.users):
            if not await self._may_have_mirrors(user_id):
                await self.forget_user(user_id)
        await asyncio.to_thread(self._folders.collect, self._rules)

    async def make(self, user_id: UserId, url: RepoUrl) -> None:
        """Make a mirror, or bring it up to date and in order. Raises ``FFError``."""
        await asyncio.to_thread(self._folders.prepare)
        access = await self._access(user_id, url, make=True)
        if access is None or access.listing.refs == {}:
            return
        mirror = access.mirror
        async with self._folders.making(wait_s=TURN_WAIT_S):
            changed = await mirror.ensure(
                credential=access.credential,
                timeout_s=MAKE_TIMEOUT_S,
                bytes_max=await self._one_bytes_max(),
                wanted=access.listing,
                gentle=True,
            )
            tidied = await mirror.tidy(timeout_s=TIDY_TIMEOUT_S)
        total = await asyncio.to_thread(self._folders.collect, self._rules)
        log.info("mirror.made", url=str(url), changed=changed, tidied=tidied, total_bytes=total)

    async def _work(self) -> None:
        while True:
            user_id, url = noted = await self._noted.get()
            self._waiting.discard(noted)
            try:
                await self.make(user_id, url)
            except FFError as error:
                log.info("mirror.not_made", url=str(url), code=error.code, reason=error.detail)

    async def _access(self, user_id: UserId, url: RepoUrl, *, make: bool) -> _Access | None:
        """The mirror that this user may read, after the server has said so just now; with ``make``, one that may be made.

        Raises what :func:`look` raises when the server can't say.
        """
        for mirror, private in ((self._folders.public(url), False), (self._folders.private(user_id, url), True)):
            if not make and not await asyncio.to_thread(self._folders.made, mirror):
                continue
            credential = await self._credential(user_id, url) if private else None
            if credential is not None or not private:
                with suppress(RepoAuthFailed, RepoNotFound):
                    listing = await look(url, credential=credential, timeout_s=LOOK_TIMEOUT_S, folder=self._folders.root)
                    return _Access(mirror, credential, listing)
            if await asyncio.to_thread(self._folders.made, mirror):
                removed = await asyncio.to_thread(self._folders.remove, mirror)
                log.info("mirror.withdrawn", url=str(url), private=private, removed=removed)
        return None

    async def _credential(self, user_id: UserId, url: RepoUrl) -> Credential | None:
        if url.origin != self._rules.github:
            return None
        async with self._db.transaction(user_id) as tx:
            opened = await self._credentials.open_first(tx, (CredentialKind.GITHUB_TOKEN,))
        return None if opened is None else Credential(opened.value.get_secret_value())

    async def _refresh(self, access: _Access) -> None:
        """Bring a mirror up to date if that is done soon; otherwise it goes on without us."""
        mirror = access.mirror
        if await asyncio.to_thread(mirror.holds, access.listing):
            return
        task = self._refreshing.get(mirror.place)
        if task is None:
            task = asyncio.create_task(self._fetch(access), name="mirror refresh")
            self._refreshing[mirror.place] = task
            task.add_done_callback(lambda _: self._refreshing.pop(mirror.place, None))
        await asyncio.wait({task}, timeout=self._refresh_wait_s)

    async def _fetch(self, access: _Access) -> None:
        try:
            await access.mirror.ensure(
                credential=access.credential,
                timeout_s=FETCH_TIMEOUT_S,
                bytes_max=await self._one_bytes_max(),
                wanted=access.listing,
            )
        except FFError as error:
            log.info("mirror.not_refreshed", url=str(access.mirror.url), code=error.code, reason=error.detail)

    async def _one_bytes_max(self) -> int:
        return self._rules.one_bytes_max(await asyncio.to_thread(self._folders.free_bytes))

    async def _stream(self, mirror: Mirror) -> AsyncGenerator[bytes, None]:
        """The mirror stays as it is until the stream is closed. Raises ``FFError``."""
        try:
            with mirror.reading() as generation:
                async with aclosing(seed.pack(generation)) as pieces:
                    async for piece in pieces:
                        yield piece
        except MirrorMissing:
            raise
        except (seed.SeedRefused, OSError) as error:
            log.warning("mirror.damaged", url=str(mirror.url), reason=str(error))
            await asyncio.to_thread(self._folders.remove, mirror)
            raise seed.SeedRefused("The mirror is damaged; it is made anew.") from error

    async def _may_have_mirrors(self, user_id: UserId) -> bool:
        async with self._db.system_transaction() as tx:
            if not await users.is_enabled(tx, user_id):
                return False
        async with self._db.transaction(user_id) as tx:
            return any(view.kind is CredentialKind.GITHUB_TOKEN for view in await self._credentials.list(tx))
