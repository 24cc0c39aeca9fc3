"""Links, addresses, routes and neighbours of Linux, by asking the kernel itself: no program is started, 0.1 ms a question.

What is not there is an answer (null, false), what the kernel refuses is an ``OSError`` with its errno.
"""

import ctypes
import os
import socket
import struct
import threading
from dataclasses import dataclass
from errno import EAGAIN, EEXIST, ENODEV
from ipaddress import IPv4Address, IPv4Interface
from typing import Self

_REQUEST, _ACK, _INTERRUPTED, _DUMP, _REPLACE, _EXCL, _CREATE = 0x1, 0x4, 0x10, 0x300, 0x100, 0x200, 0x400
_ERROR, _DONE = 2, 3
_NEWLINK, _DELLINK, _GETLINK, _SETLINK, _NEWADDR, _GETADDR, _NEWROUTE, _NEWNEIGH = 16, 17, 18, 19, 20, 22, 24, 28
_GETNSID, _NETNSA_NSID, _NETNSA_FD = 90, 1, 3
_IFLA_ADDRESS, _IFLA_IFNAME, _IFLA_MTU, _IFLA_MASTER, _IFLA_PROTINFO = 1, 3, 4, 10, 12
_IFLA_LINKINFO, _IFLA_NET_NS_FD, _IFLA_IFALIAS, _IFLA_LINK_NETNSID = 18, 28, 20, 37
_INFO_KIND, _INFO_DATA, _VETH_PEER = 1, 2, 1
_BRPORT_ISOLATED = 33
_IFA_LOCAL, _IFA_ADDRESS, _RTA_OIF, _RTA_GATEWAY, _NDA_DST, _NDA_LLADDR = 2, 1, 4, 5, 1, 2
_NESTED = 0x8000
_UP = 0x1
_AF_BRIDGE = 7
_TABLE_MAIN, _PROTO_STATIC, _UNICAST, _PERMANENT = 254, 4, 1, 0x80
_CLONE_NEWNET = 0x40000000
_BYTES_MAX = 1 << 20
TIMEOUT_S = 5.0
LISTINGS_MAX = 100
"""How often a list is asked for that changed while it was read: it may lack something that was there all the time."""


@dataclass(frozen=True)
class Link:
    """A network interface. ``master`` is the index of the bridge it is a port of; ``peer_namespace`` the number under which
    our namespace knows that of the other end, where that is another one.
    """

    index: int
    name: str
    alias: str | None
    master: int | None
    peer_namespace: int | None
    mtu: int
    up: bool


class Netlink:
    """A conversation with the kernel about the network namespace in which it was opened; for one thread at a time."""

    def __init__(self) -> None:
        self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, socket.NETLINK_ROUTE)
        self._socket.settimeout(TIMEOUT_S)
        self._socket.bind((0, 0))
        self._seq = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()

    def link(self, name: str) -> Link | None:
        """The interface of that name."""
        try:
            (answer,) = self._ask(_GETLINK, _link_head() + _text(_IFLA_IFNAME, name))
        except OSError as error:
            if error.errno == ENODEV:
                return None
            raise
        return _link_of(answer)

    def links(self) -> list[Link]:
        """Every interface."""
        return [_link_of(answer) for answer in self._list(_GETLINK, _link_head())]

    def namespace_number(self, namespace_fd: int) -> int | None:
        """The number under which this namespace knows another, see ``Link.peer_namespace``; null when it does not."""
        (answer,) = self._ask(_GETNSID, b"\0" * 4 + _number(_NETNSA_FD, namespace_fd))
        number = struct.unpack("=i", _attrs(answer[4:])[_NETNSA_NSID])[0]
        return number if number >= 0 else None

    def add_veth(self, name: str, *, master: int, mtu: int, peer: str, peer_mac: bytes, namespace_fd: int) -> bool:
        """Make a pair: ``name`` here, a port of ``master``; ``peer`` in another namespace. False when the name is taken.

        The pair ends with that namespace. The peer has to be brought up over there.
        """
        other = _link_head() + _text(_IFLA_IFNAME, peer) + _attr(_IFLA_ADDRESS, peer_mac)
        other += _number(_IFLA_MTU, mtu) + _number(_IFLA_NET_NS_FD, namespace_fd)
        data = _attr(_INFO_DATA | _NESTED, _attr(_VETH_PEER | _NESTED, other))
        info = _attr(_IFLA_LINKINFO | _NESTED, _attr(_INFO_KIND, b"veth") + data)
        mine = _text(_IFLA_IFNAME, name) + _number(_IFLA_MTU, mtu) + _number(_IFLA_MASTER, master)
        try:
            self._do(_NEWLINK, _link_head(flags=_UP) + mine + info, flags=_CREATE | _EXCL)
        except OSError as error:
            if error.errno == EEXIST:
                return False
            raise
        return True

    def isolate(self, index: int) -> None:
        """Let the port of a bridge reach the bridge itself and no other isolated port."""
        port = _attr(_BRPORT_ISOLATED, b"\x01")
        self._do(_SETLINK, _link_head(family=_AF_BRIDGE, index=index) + _attr(_IFLA_PROTINFO | _NESTED, port))

    def isolated(self, index: int) -> bool:
        """Whether a port is, see :meth:`isolate`."""
        for answer in self._list(_GETLINK, _link_head(family=_AF_BRIDGE)):
            if struct.unpack_from("=i", answer, 4)[0] == index:
                port = _attrs(_attrs(answer[16:]).get(_IFLA_PROTINFO, b""))
                return port.get(_BRPORT_ISOLATED) == b"\x01"
        return False

    def set_alias(self, index: int, alias: str) -> None:
        """Write something for others on an interface."""
        self._do(_NEWLINK, _link_head(index=index) + _attr(_IFLA_IFALIAS, alias.encode()))

    def enslave(self, index: int, master: int) -> None:
        """Make an interface a port of a bridge."""
        self._do(_NEWLINK, _link_head(index=index) + _number(_IFLA_MASTER, master))

    def set_up(self, index: int) -> None:
        """Bring an interface up."""
        self._do(_NEWLINK, _link_head(index=index, flags=_UP))

    def remove(self, name: str) -> None:
        """Remove an interface, with its peer. Not there: nothing to do."""
        try:
            self._do(_DELLINK, _link_head() + _text(_IFLA_IFNAME, name))
        except OSError as error:
            if error.errno != ENODEV:
                raise

    def add_address(self, index: int, address: IPv4Interface) -> None:
        """Give an interface an address. It may have it already."""
        head = struct.pack("=BBBBI", socket.AF_INET, address.network.prefixlen, 0, 0, index)
        packed = address.ip.packed
        self._do(_NEWADDR, head + _attr(_IFA_LOCAL, packed) + _attr(_IFA_ADDRESS, packed), flags=_CREATE | _REPLACE)

    def addresses(self, index: int) -> list[IPv4Interface]:
        """The IPv4 addresses of an interface."""
        found = []
        for answer in self._list(_GETADDR, struct.pack("=BBBBI", socket.AF_INET, 0, 0, 0, 0)):
            _, prefix, _, _, owner = struct.unpack_from("=BBBBI", answer)
            if owner == index:
                found.append(IPv4Interface((_attrs(answer[8:])[_IFA_LOCAL], prefix)))
        return found

    def add_default_route(self, index: int, gateway: IPv4Address) -> None:
        """Send what has no other way to ``gateway``. The route may be there already."""
        head = struct.pack("=BBBBBBBBI", socket.AF_INET, 0, 0, 0, _TABLE_MAIN, _PROTO_STATIC, 0, _UNICAST, 0)
        try:
            self._do(_NEWROUTE, head + _attr(_RTA_GATEWAY, gateway.packed) + _number(_RTA_OIF, index), flags=_CREATE | _EXCL)
        except OSError as error:
            if error.errno != EEXIST:
                raise

    def pin_neighbour(self, index: int, address: IPv4Address, mac: bytes) -> None:
        """Know who has ``address`` behind the interface, whatever anybody there says."""
        head = struct.pack("=BBHiHBB", socket.AF_INET, 0, 0, index, _PERMANENT, 0, 0)
        self._do(_NEWNEIGH, head + _attr(_NDA_DST, address.packed) + _attr(_NDA_LLADDR, mac), flags=_CREATE | _REPLACE)

    def _do(self, kind: int, body: bytes, *, flags: int = 0) -> None:
        self._ask(kind, body, flags=flags | _ACK)

    def _list(self, kind: int, body: bytes) -> list[bytes]:
        attempts = 0
        while True:
            attempts += 1
            try:
                return self._ask(kind, body, flags=_DUMP)
            except OSError as error:
                if error.errno != EAGAIN or attempts == LISTINGS_MAX:
                    raise

    def _ask(self, kind: int, body: bytes, *, flags: int = 0) -> list[bytes]:
        """All answers, so that the next question finds the socket free. Raises ``EAGAIN`` when a list changed meanwhile."""
        self._seq += 1
        self._socket.send(struct.pack("=IHHII", 16 + len(body), kind, flags | _REQUEST, self._seq, 0) + body)
        found: list[bytes] = []
        changed = False
        while True:
            data = self._socket.recv(_BYTES_MAX)
            while data:
                length, kind, marks, seq, _ = struct.unpack_from("=IHHII", data)
                payload, data = data[16:length], data[(length + 3) & ~3 :]
                if seq != self._seq:
                    continue
                if kind == _ERROR and (code := -struct.unpack_from("=i", payload)[0]):
                    raise OSError(code, os.strerror(code))
                changed = changed or bool(marks & _INTERRUPTED)
                if kind in {_ERROR, _DONE}:
                    if changed:
                        raise OSError(EAGAIN, "it changed while it was listed")
                    return found
                found.append(payload)
                if not flags & (_DUMP | _ACK):
                    return found


def netlink_of(namespace_fd: int) -> Netlink:
    """A conversation about another network namespace; the caller's own stays as it is. Needs root."""
    made: list[Netlink | OSError] = []

    def enter() -> None:  # in a thread of its own, which ends there: a namespace belongs to a thread
        try:
            made.append(Netlink() if _libc.setns(namespace_fd, _CLONE_NEWNET) == 0 else _last_error())
        except OSError as error:
            made.append(error)

    thread = threading.Thread(target=enter, name="namespace")
    thread.start()
    thread.join()
    if isinstance(made[0], OSError):
        raise made[0]
    return made[0]


_libc = ctypes.CDLL(None, use_errno=True)


def _last_error() -> OSError:
    code = ctypes.get_errno()
    return OSError(code, os.strerror(code))


def _link_head(*, family: int = 0, index: int = 0, flags: int = 0) -> bytes:
    return struct.pack("=BBHiII", family, 0, 0, index, flags, flags)


def _attr(kind: int, value: bytes) -> bytes:
    return struct.pack("=HH", 4 + len(value), kind) + value + b"\0" * (-len(value) % 4)


def _number(kind: int, value: int) -> bytes:
    return _attr(kind, struct.pack("=I", value))


def _text(kind: int, value: str) -> bytes:
    return _attr(kind, value.encode() + b"\0")


def _attrs(data: bytes) -> dict[int, bytes]:
    found = {}
    while len(data) >= 4:
        length, kind = struct.unpack_from("=HH", data)
        found[kind & 0x3FFF] = data[4:length]
        data = data[(length + 3) & ~3 :]
    return found


def _link_of(answer: bytes) -> Link:
    _, _, _, index, flags, _ = struct.unpack_from("=BBHiII", answer)
    attrs = _attrs(answer[16:])
    alias, master, peer = attrs.get(_IFLA_IFALIAS), attrs.get(_IFLA_MASTER), attrs.get(_IFLA_LINK_NETNSID)
    return Link(
        index=index,
        name=attrs[_IFLA_IFNAME].rstrip(b"\0").decode(),
        alias=alias.rstrip(b"\0").decode(errors="replace") if alias else None,
        master=struct.unpack("=I", master)[0] if master else None,
        peer_namespace=struct.unpack("=i", peer)[0] if peer else None,
        mtu=struct.unpack("=I", attrs[_IFLA_MTU])[0],
        up=bool(flags & _UP),
    )
