"""Making the checkout: from a clone, with or without a seed to start from, or empty."""

import asyncio
import shutil
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from pathlib import Path

from ff_core.contract.daemon import SEED_BYTES_MAX, PrepareRepository, Repository, Seeded
from ff_core.contract.plain import GitWay
from ff_core.git import gateway
from ff_core.git.clone import clone, create_empty
from ff_core.git.remote import Credential, RepoUrl, check_branch, parse_repo_url
from ff_core.git.run import Git
from ff_core.git.seed import Manifest, unpack
from ff_core.git.status import status
from ff_core.process import RunAs
from ff_core.workspaces.errors import SeedTooLate


@dataclass(frozen=True)
class Order:
    """What is asked for, checked: these could be an address and a branch."""

    url: RepoUrl | None
    branch: str | None
    credential: Credential | None
    timeout_s: float
    bare: bool


def order_of(request: PrepareRepository, *, allow_plain_http: bool) -> Order:
    """Raises ``InvalidInput`` for an address or branch that can't be one. Pure."""
    return Order(
        url=None if request.url is None else parse_repo_url(request.url, allow_plain_http=allow_plain_http),
        branch=None if request.branch is None else check_branch(request.branch),
        credential=None if request.token is None else Credential(request.token.get_secret_value()),
        timeout_s=request.timeout_s,
        bare=request.bare,
    )


class Seedbed:
    """The place beside ``checkout`` where a seed waits for its clone. Nothing of it outlives the process that took it."""

    def __init__(self, checkout: Path, run_as: RunAs | None) -> None:
        self._place = checkout.with_name(f".{checkout.name}.seed")
        self._run_as = run_as
        self._manifest: Manifest | None = None
        self._taking = False
        self._cloning = False
        self._clones = 0

    async def take(self, stream: AsyncIterator[bytes]) -> Seeded:
        """Unpack a seed; one that was there is replaced. May be repeated.

        Raises ``SeedTooLate`` once a clone has begun (or while another seed comes in), and what ``unpack`` does; there is
        no seed then.
        """
        if self._taking or self._cloning:
            raise SeedTooLate
        self._taking, self._manifest, begun_s, clones = True, None, time.monotonic(), self._clones
        try:
            manifest = await unpack(stream, self._place, bytes_max=SEED_BYTES_MAX, run_as=self._run_as)
            if self._clones != clones:  # one began meanwhile, without this
                await self._clear()
                raise SeedTooLate
        finally:
            self._taking = False
        self._manifest = manifest
        return Seeded(url=manifest.url, size_bytes=manifest.size_bytes, took_ms=round((time.monotonic() - begun_s) * 1000, 1))

    def use(self, url: str | None) -> Path | None:
        """The seed for a clone of ``url``, if there is one; from now on none is taken until :meth:`clear`."""
        self._cloning = True
        self._clones += 1
        return self._place if self._manifest is not None and self._manifest.url == url else None

    async def clear(self) -> None:
        """Remove what is there, also of another process. A seed that is still coming in removes itself."""
        if not self._taking:
            await self._clear()
        self._cloning = False

    async def _clear(self) -> None:
        self._manifest = None
        await asyncio.to_thread(shutil.rmtree, self._place, ignore_errors=True)


async def make(
    order: Order,
    checkout: Path,
    *,
    seedbed: Seedbed,
    access: GitWay | None,
    run_as: RunAs | None,
    progress: Callable[[str], None],
) -> None:
    """Make the checkout, whole or not at all. Raises the errors of ``ff_core.git``."""
    if order.url is None:
        await create_empty(checkout, branch=order.branch or "main", run_as=run_as)
        return
    seed = seedbed.use(str(order.url))
    try:
        await clone(
            order.url,
            checkout,
            branch=order.branch,
            bare=order.bare,
            credential=order.credential,
            progress=progress,
            timeout_s=order.timeout_s,
            run_as=run_as,
            detour=gateway.detour(access, order.url),
            seed=seed,
        )
    finally:
        await seedbed.clear()


async def look(checkout: Path, run_as: RunAs | None) -> Repository:
    """The checkout as it stands. Raises what git says."""
    seen = await status(Git(checkout, run_as=run_as))
    return Repository(
        branch=seen.branch,
        head=seen.head,
        staged=seen.staged,
        unstaged=seen.unstaged,
        untracked=seen.untracked,
        conflicted=seen.conflicted,
    )
