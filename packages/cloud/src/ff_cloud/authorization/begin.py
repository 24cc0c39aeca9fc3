"""What authorization needs of the room ``auth``: the beginning and the end of a session, inside a transaction of ours."""

import json
from base64 import urlsafe_b64decode
from datetime import datetime
from typing import Protocol
from uuid import UUID

from ff_cloud.kit.db import SystemTx
from ff_cloud.kit.origin import Origin
from ff_core.contract.account import Scope, TokenPairView
from ff_core.ids import UserId


class Sessions(Protocol):
    """Sessions of programs; ``setup`` makes one of ``ff_cloud.auth.sessions``."""

    async def begin(
        self, tx: SystemTx, user_id: UserId, origin: Origin, client_id: str, scopes: frozenset[Scope] | None
    ) -> TokenPairView:
        """Begin a session and answer its first tokens. Raises ``AccountDisabled``."""
        ...

    async def end(self, tx: SystemTx, user_id: UserId, session_id: UUID, now: datetime) -> None:
        """End a session with everything it gave out; may be repeated."""
        ...


def session_of(tokens: TokenPairView) -> UUID:
    """The session that tokens of ours, made a moment ago, belong to."""
    payload = tokens.access_token.split(".")[1]
    return UUID(json.loads(urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))["sid"])
