"""Where mirrors lie: ``public/NAME`` for all, ``private/USER/NAME`` for one user. All of it blocks but the locks."""

import shutil
from collections.abc import Iterator
from contextlib import AbstractAsyncContextManager, contextmanager, suppress
from pathlib import Path
from uuid import UUID

import structlog

from ff_cloud.mirrors.policy import Kept, MirrorsUnusable, Rules, name_of
from ff_core.git.locks import lock, try_lock
from ff_core.git.mirror import GRAVE, Mirror, bury, disk_bytes, remove, used_at
from ff_core.git.remote import RepoUrl
from ff_core.ids import UserId
from ff_core.world import World

log = structlog.get_logger(__name__)


class Folders:
    """The mirrors below ``root``, which any number of processes of one machine may share."""

    def __init__(self, root: Path, world: World) -> None:
        self.root = root
        self._public, self._private = root / "public", root / "private"
        self._world = world

    def public(self, url: RepoUrl) -> Mirror:
        """The mirror that all users share."""
        return Mirror(self._public / name_of(url), url, world=self._world)

    def private(self, user_id: UserId, url: RepoUrl) -> Mirror:
        """The mirror of one user, who was shown the repository with a credential of his."""
        return Mirror(self._private / str(user_id) / name_of(url), url, world=self._world)

    def prepare(self) -> None:
        """Make the root, for our eyes only."""
        with _translated():
            self.root.mkdir(mode=0o700, parents=True, exist_ok=True)
            self.root.chmod(0o700)

    def made(self, mirror: Mirror) -> bool:
        """Whether a mirror is there."""
        with _translated():
            return mirror.current() is not None

    def making(self, *, wait_s: float) -> AbstractAsyncContextManager[None]:
        """Held by the one process that makes mirrors in the background."""
        return lock(self.root / "making", wait_s=wait_s, world=self._world)

    def free_bytes(self) -> int:
        """Of the disk."""
        with _translated():
            return shutil.disk_usage(self.root).free

    def remove(self, mirror: Mirror) -> bool:
        """Remove a mirror unless somebody uses it."""
        with _translated():
            return remove(mirror.place, self._world)

    def forget(self, user_id: UserId) -> None:
        """Remove all mirrors of one user, used or not: what reads them now breaks off."""
        with _translated():
            bury(self._private / str(user_id), self._world)

    def users(self) -> list[UserId]:
        """Those who have private mirrors."""
        found = []
        with _translated():
            for path in _folders(self._private):
                with suppress(ValueError):
                    found.append(UserId(UUID(path.name)))
        return found

    def collect(self, rules: Rules) -> int:
        """Remove what is too much and what killed processes left; returns the bytes that remain. Not while another does it."""
        self.prepare()
        guard = self.root / "collecting"
        with _translated(), guard.open("a"), try_lock(guard) as alone:
            kept = [Kept(place, disk_bytes(place), used_at(place)) for place in self._places()]
            total = sum(one.disk_bytes for one in kept)
            if not alone:
                return total
            for grave in (*self._public.glob(f"{GRAVE}*"), *self._private.glob(f"{GRAVE}*"), *self._private.glob(f"*/{GRAVE}*")):
                shutil.rmtree(grave, ignore_errors=True)
            for one in rules.surplus(kept, self.free_bytes(), self._world.now()):
                if remove(one.place, self._world):
                    total -= one.disk_bytes
                    log.info("mirror.removed", place=str(one.place.relative_to(self.root)), disk_bytes=one.disk_bytes)
            for user in _folders(self._private):
                with suppress(OSError):
                    user.rmdir()  # when nothing is in it
            return total

    def _places(self) -> Iterator[Path]:
        yield from _folders(self._public)
        for user in _folders(self._private):
            yield from _folders(user)


@contextmanager
def _translated() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise MirrorsUnusable(f"Mirrors can't be used: {error.strerror}.") from error


def _folders(parent: Path) -> list[Path]:
    if not parent.is_dir():
        return []
    return [path for path in parent.iterdir() if path.is_dir() and not path.name.startswith(GRAVE)]
