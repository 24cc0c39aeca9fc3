"""Where a request comes from, as limits count it and the audit log keeps it."""

from dataclasses import dataclass
from ipaddress import IPv4Network, IPv6Address, IPv6Network, ip_address
from typing import Annotated

from fastapi import Depends, Request

USER_AGENT_CHARS_MAX = 200

Networks = tuple[IPv4Network | IPv6Network, ...]


@dataclass(frozen=True, slots=True)
class Origin:
    """``address`` is the client's, ``network`` what counts as one client, ``user_agent`` what its program calls itself."""

    address: str | None
    network: str
    user_agent: str


def origin_of(request: Request) -> Origin:
    """The origin of a request. ``X-Forwarded-For`` counts only behind a proxy of ``app.state.trusted_proxies``."""
    peer = None if request.client is None else request.client.host
    trusted: Networks = getattr(request.app.state, "trusted_proxies", ())
    address = client_address(peer, request.headers.getlist("x-forwarded-for"), trusted)
    return Origin(address, network_of(address), request.headers.get("user-agent", "")[:USER_AGENT_CHARS_MAX])


def client_address(peer: str | None, forwarded: list[str], trusted: Networks) -> str | None:
    """The nearest address that is not a trusted proxy's own; what stands before it was written by the client. Pure."""
    hops = [hop.strip() for line in forwarded for hop in line.split(",")]
    address = peer
    while address is not None and hops and _is_trusted(address, trusted):
        address = hops.pop()
    return address


def network_of(host: str | None) -> str:
    """What counts as one address: an IPv4 address, a /64 of IPv6 (one customer), or ``local`` for a local socket."""
    try:
        address = ip_address((host or "").partition("%")[0])
    except ValueError:
        return "local"
    if isinstance(address, IPv6Address) and address.ipv4_mapped is None:
        return f"{IPv6Address(int(address) >> 64 << 64)}/64"
    return str(getattr(address, "ipv4_mapped", None) or address)


def _is_trusted(address: str, trusted: Networks) -> bool:
    try:
        parsed = ip_address(address)
    except ValueError:
        return False
    return any(parsed in network for network in trusted)


async def _origin(request: Request) -> Origin:
    return origin_of(request)


TheOrigin = Annotated[Origin, Depends(_origin)]
"""The dependency for endpoints."""
