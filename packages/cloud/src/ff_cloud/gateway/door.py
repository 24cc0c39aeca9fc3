"""Who asks the gateway, and which secret of his goes in: asked anew for each request, so that a revocation counts at once."""

from dataclasses import dataclass

from ff_cloud.credentials.service import Credentials, Opened
from ff_cloud.gateway.errors import VmTokenRefused
from ff_cloud.gateway.tokens import presented
from ff_cloud.kit.db import Database
from ff_cloud.users import service as users
from ff_cloud.users.errors import AccountDisabled
from ff_cloud.vms import gate
from ff_core.contract.credentials import CredentialKind
from ff_core.ids import UserId, VmId, WorkspaceId


@dataclass(frozen=True, slots=True)
class Owner:
    """Whom a VM works for."""

    user_id: UserId
    workspace_id: WorkspaceId
    vm_id: VmId


class Door:
    """Shared by everything the gateway serves. ``token_key`` is ``Secrets.gateway_token_key``."""

    def __init__(self, *, db: Database, token_key: bytes, credentials: Credentials) -> None:
        self._db = db
        self._token_key = token_key
        self._credentials = credentials

    async def owner_of(self, token: str) -> Owner:
        """Whose VM shows this token. Raises :class:`VmTokenRefused` for a token that we never made, of an older generation,
        of a VM that is gone or going, and of a user who is gone or disabled.
        """
        shown = presented(self._token_key, token)
        if shown is None:
            raise VmTokenRefused
        async with self._db.system_transaction() as tx:
            found = await gate.serving(tx, shown.vm_id, shown.generation)
            if found is None:
                raise VmTokenRefused
            try:
                await users.require_enabled(tx, found.user_id)
            except AccountDisabled as error:
                raise VmTokenRefused("The account this machine belongs to is disabled.") from error
        return Owner(found.user_id, found.workspace_id, shown.vm_id)

    async def credential(self, owner: Owner, *kinds: CredentialKind) -> Opened | None:
        """The first of these that the owner has set, opened; the transaction sees the rows of this owner and no others."""
        async with self._db.transaction(owner.user_id) as tx:
            return await self._credentials.open_first(tx, kinds)
