"""The handoffs of a desktop, put together."""

import socket
from uuid import UUID

from ff_core.contract.handoff import DesktopRef
from ff_core.host import Host
from ff_core.ids import DesktopId
from ff_core.store.facts import DESKTOP_ID, settled
from ff_desktop.connection import machine_name
from ff_desktop.handoffs.home import Home
from ff_desktop.handoffs.service import DesktopHandoffs
from ff_desktop.handoffs.trip import Connect


def handoffs_of(host: Host, connect: Connect) -> DesktopHandoffs:
    """Those of this machine. ``connect`` leads to the server of the user who is logged in."""
    return DesktopHandoffs(home_of(host), connect, host.world)


def home_of(host: Host) -> Home:
    """What they use of this machine."""
    with host.store.transaction() as tx:
        identity = settled(tx, DESKTOP_ID, lambda: str(host.world.new_id()))
    return Home(
        store=host.store,
        moves=host.handoffs,
        projects=host.projects,
        desktop=DesktopRef(id=DesktopId(UUID(identity)), name=machine_name(socket.gethostname())),
        environment=host.settings.environment,
        config_dir=host.settings.claude_config,
        worktrees=host.settings.worktrees,
    )
