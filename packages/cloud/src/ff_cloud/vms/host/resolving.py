"""How VMs resolve names: the files that a container gets, and the resolvers it then asks. Pure but for what it reads."""

from collections.abc import Mapping, Sequence
from ipaddress import AddressValueError, IPv4Address
from pathlib import Path

SOURCES = (Path("/etc/resolv.conf"), Path("/run/systemd/resolve/resolv.conf"))
"""The second names the real resolvers where the first only names a stub on the loopback interface."""
PUBLIC = ("8.8.8.8", "8.8.4.4")
"""As Docker does where the host has no resolver that a container could reach."""
RESOLVERS_MAX = 3


def resolv_conf(sources: Sequence[Path] = SOURCES) -> tuple[str, tuple[IPv4Address, ...]]:
    """The text of a VM's ``/etc/resolv.conf``, and the resolvers in it."""
    for source in sources:
        try:
            lines = source.read_text(errors="replace").splitlines()
        except OSError:
            continue
        if resolvers := _resolvers(lines):
            kept = [line for line in lines if line.split()[:1] in (["search"], ["domain"], ["options"])]
            return _text(resolvers, kept), resolvers
    fallback = tuple(IPv4Address(address) for address in PUBLIC)
    return _text(fallback, []), fallback


def hosts(names: Mapping[str, str]) -> str:
    """The text of a VM's ``/etc/hosts``."""
    return "".join(f"{address}\t{name}\n" for name, address in {"localhost": "127.0.0.1", **names}.items())


def _resolvers(lines: Sequence[str]) -> tuple[IPv4Address, ...]:
    found = []
    for line in lines:
        words = line.split()
        if len(words) < 2 or words[0] != "nameserver":
            continue
        try:
            address = IPv4Address(words[1])
        except AddressValueError:  # VMs have no IPv6
            continue
        if not address.is_loopback:
            found.append(address)
    return tuple(found[:RESOLVERS_MAX])


def _text(resolvers: Sequence[IPv4Address], more: Sequence[str]) -> str:
    return "".join(f"{line}\n" for line in [*(f"nameserver {address}" for address in resolvers), *more])
