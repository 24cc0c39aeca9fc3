"""One try to bring a handoff on: what its stages are given."""

import asyncio
from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack
from typing import Any

from ff_core.contract.handoff import Receipt
from ff_core.contract.local import LocalStatus
from ff_core.world import World
from ff_desktop.connection import Connection
from ff_desktop.handoffs.errors import OtherAccount
from ff_desktop.handoffs.home import Home
from ff_desktop.handoffs.ledger import Account, Handoff, Ledger
from ff_desktop.handoffs.machine import Back, Stage, Step
from ff_desktop.handoffs.places import DONE, WRITTEN, Crash, place
from ff_desktop.handoffs.report import Report
from ff_desktop.handoffs.server import HandoffServer

Connect = Callable[[], AbstractContextManager[Connection]]
"""A connection as the user who is logged in, for as long as it is held. Blocking. Raises ``NotLoggedIn``."""


TURN_POLL_S = 1.0
ASK_AGAIN_S = 1.0


class Later(Exception):
    """Nothing is wrong, but it has to wait: try the same again in ``seconds``."""

    def __init__(self, seconds: float, why: str) -> None:
        super().__init__(why)
        self.seconds, self.why = seconds, why


class Trip:
    """``handoff`` is as it was last written down."""

    def __init__(
        self,
        handoff: Handoff,
        act: Stage | Back,
        *,
        home: Home,
        ledger: Ledger,
        world: World,
        connect: Connect,
        report: Report,
        crash: Crash,
    ) -> None:
        self.handoff = handoff
        self.home, self.ledger, self.world, self.report = home, ledger, world, report
        self._act, self._crash = act, crash
        self._connect = connect
        self._held = ExitStack()
        self._server: HandoffServer | None = None
        self._account: Account | None = None

    async def server(self) -> HandoffServer:
        """The server, as the same account as before. Raises ``OtherAccount``, ``NotLoggedIn``, ``ServerUnreachable``."""
        if self._server is None:
            connection = await asyncio.to_thread(self._held.enter_context, self._connect())
            self._server = HandoffServer(connection, self.world, self.at)
        if self._account is None:
            account = await self._server.account()
            self._require_same(account)
            self._account = account
        return self._server

    @property
    def account(self) -> Account:
        """Who is logged in. After :meth:`server`."""
        assert self._account is not None  # noqa: S101  (see there)
        return self._account

    def close(self) -> None:
        """Give the connection back; whoever waits for it is told that it broke. May be repeated."""
        if self._server is not None:
            self._server.leave()
        self._held.close()

    def at(self, where: str) -> None:
        """Say where it is."""
        self._crash(place(self.handoff.way, self._act, where))

    def finish(self, step: Step, *, durable: bool = False, **found: Any) -> None:
        """Write down that the stage is finished, with what it found."""
        self.at(DONE)
        self.handoff = self.ledger.finish(self.handoff.id, step, durable=durable, **found)
        self.at(WRITTEN)

    def committed(self, receipt: Receipt) -> None:
        """Write down that the server has decided for it."""
        self.at(DONE)
        self.handoff = self.ledger.commit(self.handoff.id, receipt)
        self.at(WRITTEN)

    def finish_all(self) -> None:
        """Write down that the last stage is finished, and with it all of it."""
        self.at(DONE)
        self.ledger.finish(self.handoff.id, Step.DONE)
        self.handoff = self.ledger.set_status(self.handoff.id, LocalStatus.DONE)
        self.at(WRITTEN)

    def _require_same(self, account: Account) -> None:
        before = self.handoff.state.account
        if before is not None and not before.same(account):
            raise OtherAccount(
                f"This handoff belongs to {before.email} at {before.server}, and you are logged in as {account.email}"
                f" at {account.server}. Log in there again to finish it: ff login --server {before.server}"
            )
