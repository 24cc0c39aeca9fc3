"""Where a session is, told to its user: a network, never more. Pure."""

from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network

LOCAL = "local"
_IPV4_BITS = 24
_IPV6_BITS = 48


def place_of(address: str | None) -> str:
    """The network of an address, such as ``192.0.2.0/24`` or ``2001:db8:1::/48``; ``local`` for this very machine."""
    try:
        parsed: IPv4Address | IPv6Address = ip_address((address or "").partition("%")[0])
    except ValueError:
        return LOCAL
    if isinstance(parsed, IPv6Address) and parsed.ipv4_mapped is not None:
        parsed = parsed.ipv4_mapped
    if parsed.is_loopback:
        return LOCAL
    bits = _IPV4_BITS if isinstance(parsed, IPv4Address) else _IPV6_BITS
    return str(ip_network(f"{parsed}/{bits}", strict=False))
