"""The address of a server: checked once, so that a key never travels where it should not."""

import ipaddress
from dataclasses import dataclass
from urllib.parse import urlsplit

from ff_core.contract.workspace import URL_CHARS_MAX
from ff_core.errors import InvalidInput
from ff_desktop.errors import InsecureServer


@dataclass(frozen=True)
class Server:
    """A server that may be talked to: https, or this machine, or plain http that the user accepted (``insecure``)."""

    url: str
    """Scheme, host, port and path prefix, without a slash at the end."""
    loopback: bool
    insecure: bool

    @classmethod
    def parse(cls, text: str, *, insecure: bool) -> "Server":
        """Check an address as typed. Raises ``InvalidInput``, or ``InsecureServer`` for plain http to another machine."""
        text = text.strip()
        try:
            parts = urlsplit(text)
            host, _ = parts.hostname, parts.port
        except ValueError as error:
            raise InvalidInput(f"The server's address is not a URL: {error}.") from error
        if len(text) > URL_CHARS_MAX or parts.scheme not in {"http", "https"} or not host:
            raise InvalidInput("The server's address must look like https://factory.example.com or http://127.0.0.1:8420.")
        if parts.username is not None or parts.password is not None or parts.query or parts.fragment:
            raise InvalidInput("The server's address must not hold a user, a password, a query or a fragment.")
        if any(not c.isprintable() or c.isspace() for c in text):
            raise InvalidInput("The server's address must not hold spaces or control characters.")
        loopback = _is_loopback(host)
        if parts.scheme == "http" and not loopback and not insecure:
            raise InsecureServer
        return cls(url=f"{parts.scheme}://{parts.netloc}{parts.path.rstrip('/')}", loopback=loopback, insecure=insecure)


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
