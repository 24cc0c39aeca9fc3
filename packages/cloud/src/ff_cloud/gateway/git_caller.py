"""Which VM asks the gateway for git or GitHub, with which secret of its owner, and how much at once."""

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

from pydantic import SecretStr
from starlette.requests import Request

from ff_cloud.credentials.service import Opened
from ff_cloud.gateway.door import Owner
from ff_cloud.gateway.errors import VmTokenRefused
from ff_cloud.gateway.git_errors import TooManyTransfers
from ff_core.contract.credentials import CredentialKind
from ff_core.ids import VmId

TRANSFERS_MAX = 8
"""Of one VM at the same time; further ones are told to wait."""


class KnowsOwners(Protocol):
    """What :class:`ff_cloud.gateway.door.Door` does; each call is a short transaction of its own."""

    async def owner_of(self, token: str) -> Owner:
        """Whose VM shows this token. Raises ``VmTokenRefused``."""
        ...

    async def credential(self, owner: Owner, *kinds: CredentialKind) -> Opened | None:
        """The first of these that the owner has set, opened."""
        ...


class Callers:
    """Tells VMs by their tokens and counts what they have under way."""

    def __init__(self, door: KnowsOwners, *, transfers_max: int = TRANSFERS_MAX) -> None:
        self._door = door
        self._transfers_max = transfers_max
        self._under_way: Counter[VmId] = Counter()

    async def caller(self, request: Request) -> Owner:
        """Whose request this is. Raises :class:`VmTokenRefused`."""
        given = request.headers.getlist("authorization")
        scheme, _, token = given[0].partition(" ") if len(given) == 1 else ("", "", "")
        if scheme.lower() != "bearer" or not token:
            raise VmTokenRefused
        return await self._door.owner_of(token)

    async def github_token(self, owner: Owner) -> SecretStr | None:
        """The owner's ``github_token``; None when he set none."""
        opened = await self._door.credential(owner, CredentialKind.GITHUB_TOKEN)
        return None if opened is None else opened.value

    @contextmanager
    def transfer(self, owner: Owner) -> Iterator[None]:
        """One request for the length of the block. Raises :class:`TooManyTransfers`."""
        if self._under_way[owner.vm_id] >= self._transfers_max:
            raise TooManyTransfers
        self._under_way[owner.vm_id] += 1
        try:
            yield
        finally:
            self._under_way[owner.vm_id] -= 1
            if not self._under_way[owner.vm_id]:
                del self._under_way[owner.vm_id]
