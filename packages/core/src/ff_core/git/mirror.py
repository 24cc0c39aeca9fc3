"""A bare copy of a repository on this machine, kept so that others can be made from it (:mod:`ff_core.git.seed`).

A mirror is a folder of *generations*. A generation is a bare repository that never changes once it is there: a fetch makes
a new one beside it (``git clone --reference`` of the one before, whose packs are then linked, not copied), and so do repacking
and dropping what is no longer reachable. Only then the file ``current`` is replaced. So a reader needs no care, and a
process that is killed at any point leaves a whole mirror and a folder that the next one removes.

::

    lock      held by whoever makes a generation
    current   name of the newest generation
    used      when (mtime) somebody last read it
    refused   until when (mtime) there can be no mirror, and why: too large, of a kind that can't be a seed
    gen-…     generations; readers hold a shared lock on theirs, an older one goes when nobody holds it
    new-…     being made

Git runs as :mod:`ff_core.git.unattended` says.
"""

import asyncio
import contextlib
import errno
import logging
import os
import shutil
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import NoReturn

from ff_core.errors import FFError
from ff_core.git import seed
from ff_core.git.errors import CloneDiskFull, CloneTimedOut, GitFailed, explain
from ff_core.git.locks import LockBusy, lock, try_lock
from ff_core.git.remote import Credential, RepoUrl
from ff_core.git.unattended import GRACE_S, Listing, bounded, environment, words
from ff_core.process import Completed, ProgramTimedOut, run, stream
from ff_core.world import World

log = logging.getLogger("ff_core.git")

REFUSED_FOR = timedelta(days=1)
PACKS_GOOD = 12
"""With more of them, the small ones are packed together."""
REPACK_EVERY = timedelta(days=1)
"""At most this often a history that was rewritten is packed anew, without what is no longer reachable."""
STDERR_BYTES_MAX = 4 << 20
STDERR_TAIL_CHARS = 8_000
SMALL_TIMEOUT_S = 60.0
"""For what git does with refs alone."""
GRAVE = "trash-"
"""How a folder is called that is being removed."""
_TOO_LARGE = "The repository is larger than a mirror may be."
_LOST = "lost"
"""In a generation whose packs hold what was reachable once."""
_REPACKED = "repacked"
"""In a generation; its mtime is when it or an ancestor was last made from scratch or packed anew."""


class MirrorRefused(FFError):
    """There can be no mirror of this repository for now: it is too large, empty, or of a kind that can't be copied so."""

    code = "mirror_refused"
    status = 409


class MirrorMissing(FFError):
    """There is no mirror of this repository."""

    code = "mirror_missing"
    status = 404


class Mirror:
    """The mirror of ``url`` in the folder ``place``, whose parents are made when needed. Any number of processes may share it."""

    def __init__(self, place: Path, url: RepoUrl, *, world: World) -> None:
        self.place = place
        self.url = url
        self._world = world

    def current(self) -> Path | None:
        """The newest generation; None when there is none."""
        try:
            found = self.place / (self.place / "current").read_text()
        except FileNotFoundError:
            return None
        return found if found.is_dir() else None

    @contextlib.contextmanager
    def reading(self) -> Iterator[Path]:
        """The newest generation, which stays as it is for the length of the block. Raises :class:`MirrorMissing`."""
        for _ in range(3):  # between reading the name and locking it a newer one may have come and this one gone
            found = self.current()
            if found is None:
                break
            with try_lock(found, shared=True) as held:
                if held:
                    self._note("used")
                    yield found
                    return
        raise MirrorMissing

    def holds(self, listing: Listing) -> bool:
        """Whether the newest generation has exactly what the server listed; blocking."""
        found = self.current()
        return found is not None and listing.refs is not None and _packed_refs(found) == listing.refs

    async def ensure(
        self,
        *,
        credential: Credential | None,
        timeout_s: float,
        bytes_max: int,
        wanted: Listing | None = None,
        gentle: bool = False,
    ) -> bool:
        """Make the mirror, or bring it up to date; returns whether there is a new generation. May be repeated and raced.

        One process at a time fetches; the others wait for it, and don't when it has brought what they ``wanted``.
        ``gentle``: with the lowest priority. Needs ``timeout_s`` at most, waiting included. A repository of more than
        ``bytes_max``, or one that can't be fetched in time, is refused for a day. Raises :class:`MirrorRefused`,
        ``LockBusy``, or the errors of :mod:`ff_core.git.errors`; whatever happens, the mirror is as good as before.
        """
        deadline_s = asyncio.get_running_loop().time() + timeout_s
        async with self._making(wait_s=timeout_s):
            self._require_welcome()
            before = self.current()
            if wanted is not None and await asyncio.to_thread(self.holds, wanted):
                return False
            order = _Order(credential, deadline_s, bytes_max, gentle)
            try:
                return await self._fetch(before, order)
            except (GitFailed, seed.SeedRefused) as error:  # for one, a damaged disk
                if before is None:
                    raise
                log.warning("mirror of %s is made anew: %s", self.url, error.detail)
                return await self._fetch(None, order)

    async def tidy(self, *, timeout_s: float, gentle: bool = True) -> bool:
        """Repack when it is worth it; returns whether there is a new generation. Raises ``LockBusy`` and ``GitFailed``."""
        async with self._making(wait_s=1.0):
            before = self.current()
            wanted = None if before is None else self._worth(before)
            if before is None or wanted is None:
                return False
            async with self._beside() as new:
                await asyncio.to_thread(_copy, before, new)
                await self._git(["repack", "-q", *wanted], new, timeout_s, gentle=gentle)
                if "-a" in wanted:
                    (new / _LOST).unlink(missing_ok=True)
                    self._touch(new / _REPACKED)
                known = await asyncio.to_thread(seed.read, before)
                await self._describe(new, known.fetched_at, known)
                await asyncio.to_thread(self._make_current, new)
                return True

    @contextlib.asynccontextmanager
    async def _making(self, *, wait_s: float) -> AsyncIterator[None]:
        await asyncio.to_thread(self.place.mkdir, parents=True, exist_ok=True)
        try:
            async with lock(self.place / "lock", wait_s=wait_s, world=self._world):
                await asyncio.to_thread(self._clean)
                yield
        except OSError as error:
            if error.errno in (errno.ENOSPC, errno.EDQUOT):
                raise CloneDiskFull from error
            if error.errno == errno.ENOENT:
                raise LockBusy("The mirror was removed meanwhile.") from error
            raise GitFailed(f"The mirror can't be written: {error.strerror}.") from error

    def _clean(self) -> None:
        """Remove what killed processes left, and older generations that nobody reads; under the lock."""
        current = self.current()
        for path in self.place.glob("new-*"):
            shutil.rmtree(path, ignore_errors=True)
        for path in self.place.glob("gen-*"):
            with try_lock(path) as free:
                if path != current and free:
                    shutil.rmtree(path, ignore_errors=True)

    def _require_welcome(self) -> None:
        refused = self.place / "refused"
        if refused.exists():
            if self._world.now().timestamp() < refused.stat().st_mtime:
                raise MirrorRefused(refused.read_text())
            refused.unlink()

    @contextlib.asynccontextmanager
    async def _beside(self) -> AsyncIterator[Path]:
        new = self.place / f"new-{self._world.new_id()}"
        try:
            yield new
        finally:
            await asyncio.to_thread(shutil.rmtree, new, ignore_errors=True)

    async def _fetch(self, before: Path | None, order: "_Order") -> bool:
        """Make a generation out of the one before and the server, unless nothing has changed; under the lock."""
        async with self._beside() as new:
            await self._clone(new, before, order)
            if (new / "shallow").exists() or "objectformat" in (new / "config").read_text().lower():
                self._refuse("The repository is shallow, or its objects are not named by SHA-1.")
            await self._git(["pack-refs", "--all"], new, SMALL_TIMEOUT_S)
            known = None
            if before is None:
                self._touch(new / _REPACKED)
            elif await asyncio.to_thread(_same, before, new):
                return False
            else:
                known = await asyncio.to_thread(seed.read, before)
                await self._inherit(new, before)
            if not any((new / seed.PACKS).glob("*.pack")):
                raise MirrorRefused("The repository is empty.")
            try:
                manifest = await self._describe(new, self._world.now(), known)
            except seed.SeedRefused:
                if before is not None:
                    raise  # made from scratch it has fewer packs
                self._refuse("The repository has more branches and tags than a mirror may have.")
            if manifest.size_bytes > order.bytes_max:
                self._refuse(_TOO_LARGE)
            await asyncio.to_thread(self._make_current, new)
            return True

    async def _clone(self, new: Path, before: Path | None, order: "_Order") -> None:
        borrowed = [] if before is None else [f"--reference={before}"]
        argv = [
            *words(self.url, order.credential, gentle=order.gentle),
            # What it says about its progress nobody reads when we were killed; then it ends by that.
            *("clone", "--bare", "--progress", "--template=", *borrowed, "--", str(self.url), str(new)),
        ]
        timeout_s = max(1.0, order.deadline_s - asyncio.get_running_loop().time())
        said = ""
        try:
            async with stream(
                bounded(argv, timeout_s, file_bytes_max=order.bytes_max),
                cwd=self.place,
                env=environment(self.url, self.place),
                timeout_s=timeout_s,
                output_bytes_max=STDERR_BYTES_MAX,
                stdin=None if order.credential is None else order.credential.spoken().encode(),
            ) as running:
                async for _, chunk in running:
                    said = (said + chunk.decode(errors="replace"))[-STDERR_TAIL_CHARS:]
        except ProgramTimedOut as error:
            if before is None:
                self._refuse("The repository takes longer to fetch than there is time for a mirror.")
            raise CloneTimedOut(f"The mirror was not brought up to date within {timeout_s:.0f} s.") from error
        if running.exit_code != 0:
            if "File too large" in said:
                self._refuse(_TOO_LARGE)
            raise explain(running.exit_code or 0, said, url=str(self.url))

    async def _inherit(self, new: Path, before: Path) -> None:
        """End the borrowing of a new generation: the packs of the one before become its own."""
        await seed.settle(before, new)
        await asyncio.to_thread(shutil.copy2, before / _REPACKED, new / _REPACKED)
        if (before / _LOST).exists() or await self._loses(before, new):
            (new / _LOST).touch()

    async def _describe(self, new: Path, fetched_at: datetime, known: seed.Manifest | None) -> seed.Manifest:
        return await asyncio.to_thread(
            lambda: seed.describe(new, url=str(self.url), fetched_at=fetched_at, known=known),
        )

    def _make_current(self, new: Path) -> None:
        for path in (new / seed.REFS, new / seed.MANIFEST, new):
            _sync(path)
        name = new.name.replace("new-", "gen-", 1)
        new.rename(self.place / name)
        draft = self.place / "current.new"
        draft.write_text(name)
        _sync(draft)
        draft.replace(self.place / "current")
        _sync(self.place)
        if not (self.place / "used").exists():
            self._note("used")
        self._clean()

    def _refuse(self, reason: str) -> NoReturn:
        """Drop the mirror and have none for a while; under the lock. Raises :class:`MirrorRefused`."""
        (self.place / "refused").write_text(reason)
        self._touch(self.place / "refused", self._world.now() + REFUSED_FOR)
        (self.place / "current").unlink(missing_ok=True)
        self._clean()
        raise MirrorRefused(reason)

    async def _loses(self, before: Path, new: Path) -> bool:
        """Whether something that was reachable before no longer is."""
        old, now = await asyncio.to_thread(_packed_refs, before), await asyncio.to_thread(_packed_refs, new)
        gone = {name for ref, name in old.items() if now.get(ref) != name}
        if not gone:
            return False
        asked = "".join(f"{name}\n" for name in sorted(gone)).encode()
        done = await self._git(["rev-list", "--max-count=1", "--stdin", "--not", "--all"], new, SMALL_TIMEOUT_S, stdin=asked)
        return bool(done.stdout.strip())

    def _worth(self, generation: Path) -> list[str] | None:
        """How to repack, when it is worth it."""
        repacked = datetime.fromtimestamp((generation / _REPACKED).stat().st_mtime, UTC)
        packs = len(list((generation / seed.PACKS).glob("*.pack")))
        return repacking(packs, lost=(generation / _LOST).exists(), repacked=repacked, now=self._world.now())

    async def _git(
        self, arguments: list[str], cwd: Path, timeout_s: float, *, stdin: bytes | None = None, gentle: bool = False
    ) -> Completed:
        try:
            done = await run(
                ["timeout", f"{timeout_s + GRACE_S:.0f}", *words(self.url, None, gentle=gentle), *arguments],
                cwd=cwd,
                env=environment(self.url, self.place),
                timeout_s=timeout_s,
                output_bytes_max=STDERR_BYTES_MAX,
                stdin=stdin,
            )
        except ProgramTimedOut as error:
            raise GitFailed(f"git {arguments[0]} did not end within {timeout_s:g} s.") from error
        if done.exit_code != 0:
            raise explain(done.exit_code, done.stderr.decode(errors="replace"))
        return done

    def _note(self, name: str) -> None:
        self._touch(self.place / name)

    def _touch(self, path: Path, when: datetime | None = None) -> None:
        stamp = (when or self._world.now()).timestamp()
        path.touch(exist_ok=True)
        os.utime(path, (stamp, stamp))


def repacking(packs: int, *, lost: bool, repacked: datetime, now: datetime) -> list[str] | None:
    """Arguments of ``git repack`` for a mirror of so many packs; None: let it be. Pure."""
    if lost and now - repacked >= REPACK_EVERY:
        return ["-a", "-d"]
    if packs > PACKS_GOOD:
        return ["--geometric=2", "-d"]  # keeps what is unreachable: nothing is looked for but the packs
    return None


def remove(place: Path, world: World) -> bool:
    """Remove the mirror at ``place`` if nobody uses it; returns whether it is gone. Blocking, may be repeated and raced."""
    with contextlib.ExitStack() as held:
        for path in (place / "lock", *place.glob("gen-*")):
            if not held.enter_context(try_lock(path)) and path.exists():
                return False
        bury(place, world)
        return True


def bury(folder: Path, world: World) -> None:
    """Remove a folder at once for all who look, then what is in it; whoever still reads it finds it gone. Blocking."""
    grave = folder.with_name(f"{GRAVE}{world.new_id()}")
    with contextlib.suppress(FileNotFoundError):
        folder.rename(grave)
        shutil.rmtree(grave, ignore_errors=True)


def disk_bytes(place: Path) -> int:
    """What the mirror at ``place`` takes of the disk: packs that generations share are counted once. Blocking."""
    taken: dict[tuple[int, int], int] = {}
    for folder, _, files in os.walk(place):
        for name in files:
            with contextlib.suppress(FileNotFoundError):
                found = Path(folder, name).stat()
                taken[found.st_dev, found.st_ino] = found.st_blocks * 512
    return sum(taken.values())


def used_at(place: Path) -> datetime:
    """When the mirror at ``place`` was last read, made or tried; later than now: until then it is refused. Blocking."""
    latest = 0.0
    for name in ("used", "lock", "refused"):
        with contextlib.suppress(FileNotFoundError):
            latest = max(latest, (place / name).stat().st_mtime)
    return datetime.fromtimestamp(latest, UTC)


@dataclass(frozen=True)
class _Order:
    credential: Credential | None
    deadline_s: float
    bytes_max: int
    gentle: bool


def _packed_refs(repository: Path) -> dict[str, str]:
    lines = (repository / seed.REFS).read_bytes().split(b"\n")
    return {os.fsdecode(line[41:]): line[:40].decode("ascii", "replace") for line in lines if line[:1] not in (b"", b"#", b"^")}


def _same(one: Path, other: Path) -> bool:
    return all((one / name).read_bytes() == (other / name).read_bytes() for name in ("HEAD", seed.REFS))


def _copy(generation: Path, to: Path) -> None:
    """Its packs linked (git replaces files and never changes them), its other files copied."""

    def put(source: str, target: str) -> None:
        (os.link if f"/{seed.PACKS}/" in source else shutil.copy2)(source, target)

    shutil.copytree(generation, to, copy_function=put)
    (to / seed.MANIFEST).unlink()


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
