"""Tells the kernel what :mod:`ff_cloud.vms.host.egress` decided. Needs root, on the machine where the VMs' network is."""

import asyncio
from pathlib import Path

from ff_cloud.vms.host import egress
from ff_cloud.vms.host.commands import run
from ff_cloud.vms.host.egress import Egress
from ff_cloud.vms.host.errors import HostFailed

ATTEMPTS_MAX = 5
LOCK_WAIT_S = 10
"""How long iptables waits for another program that is changing rules, such as dockerd."""
_IPV6 = Path("/proc/sys/net/ipv6")


async def apply(wanted: Egress) -> bool:
    """Put the rules in force, each table in one step; says whether anything had to change. Safe to repeat and to race.

    Raises ``HostFailed`` when the kernel or its tools refuse.
    """
    return any(await asyncio.gather(*(asyncio.to_thread(_apply, tool, wanted) for tool in _tools())))


async def stands(wanted: Egress) -> bool:
    """Whether the rules are in force, exactly and before all others. Raises ``HostFailed``."""
    for tool in _tools():
        saved = await asyncio.to_thread(_saved, tool)
        if not egress.standing(saved, _chains(tool, wanted), wanted):
            return False
    return True


async def remove(deployment: str) -> None:
    """Take the rules of a deployment away. There are none: nothing to do. Raises ``HostFailed``."""
    for tool in _tools():
        await asyncio.to_thread(_remove, tool, deployment)


def _remove(tool: str, deployment: str) -> None:
    script = egress.removal(_saved(tool), deployment)
    if script is not None:
        _restore(tool, script)


def _apply(tool: str, wanted: Egress) -> bool:
    chains, changed = _chains(tool, wanted), False
    for attempt in range(ATTEMPTS_MAX):
        saved = _saved(tool)
        if egress.standing(saved, chains, wanted):
            return changed
        try:
            _restore(tool, egress.script(saved, chains, wanted))
            changed = True
        except HostFailed:  # somebody else changed the rules since we looked
            if attempt == ATTEMPTS_MAX - 1:
                raise
    raise HostFailed("The rules about what VMs may reach do not stay in force; another program changes them. Look for it.")


def _chains(tool: str, wanted: Egress) -> egress.Table:
    return egress.chains(wanted) if tool == "iptables" else egress.chains_v6(wanted)


def _tools() -> list[str]:
    return ["iptables", "ip6tables"] if _IPV6.exists() else ["iptables"]


def _saved(tool: str) -> str:
    return run([f"{tool}-save", "-t", "filter"])


def _restore(tool: str, script: str) -> None:
    run([f"{tool}-restore", "--noflush", "--wait", str(LOCK_WAIT_S)], stdin=script)
