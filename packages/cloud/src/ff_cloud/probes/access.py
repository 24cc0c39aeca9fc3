"""Who is told the metrics. They name no user, but tell how many there are of everything."""

import hmac
from dataclasses import dataclass
from ipaddress import ip_address

from pydantic import SecretStr
from starlette.datastructures import Headers

from ff_cloud.probes.errors import MetricsRefused

_OF_PROXIES = ("forwarded", "via", "x-forwarded-for", "x-forwarded-host", "x-real-ip")


@dataclass(frozen=True, slots=True)
class MetricsAccess:
    """With a ``token``: who shows it. Without: this machine, unless the server is ``published``: a proxy here would bring
    everybody in.
    """

    token: SecretStr | None
    published: bool

    def require(self, peer: str | None, headers: Headers) -> None:
        """Raise ``MetricsRefused`` unless this request, from the address ``peer``, may be answered. Pure."""
        if self.token is not None:
            scheme, _, shown = headers.get("authorization", "").partition(" ")
            wanted = self.token.get_secret_value().encode()
            if scheme.lower() == "bearer" and hmac.compare_digest(shown.encode(), wanted):
                return
        elif not self.published and _is_loopback(peer) and not any(name in headers for name in _OF_PROXIES):
            return
        raise MetricsRefused


def _is_loopback(peer: str | None) -> bool:
    try:
        address = ip_address(peer or "")
    except ValueError:
        return False
    return (getattr(address, "ipv4_mapped", None) or address).is_loopback
