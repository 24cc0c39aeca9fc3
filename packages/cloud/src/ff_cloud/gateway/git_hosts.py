"""Which git servers there are, and what an address at the gateway means: decided here, before anything is asked. Pure."""

import re
from dataclasses import dataclass
from urllib.parse import urljoin, urlsplit

from ff_cloud.errors import SettingsInvalid
from ff_cloud.gateway.git_errors import GitHostRefused, GitLfsUnsupported, GitMoved, GitPathRefused

PREFIX = "/git"
HOSTS_MAX = 32
_STANDARD_PORTS = {"https": 443, "http": 80}
_ENTRY = re.compile(r"(?:(https?)://)?((?!-)[a-z0-9.-]{1,253}|\[[0-9a-f:.]{2,45}\])(?::([0-9]{1,5}))?")
# No escapes, no dots alone, nothing empty: what the gateway reads is letter for letter what the server will read.
_NAME = r"(?!\.{1,2}/)[A-Za-z0-9._~+-]{1,255}"
_ADDRESS = re.compile(
    rf"{PREFIX}/(?P<scheme>https?)/(?P<authority>[a-z0-9.:\[\]-]{{1,260}})/(?P<repository>{_NAME}(?:/{_NAME}){{0,19}})"
    r"/(?P<action>info/refs|git-upload-pack|git-receive-pack|info/lfs/[A-Za-z0-9/]{1,40})"
)
_SERVICES = ("git-upload-pack", "git-receive-pack")


@dataclass(frozen=True)
class GitRequest:
    """One request of git's smart protocol, for a server that is allowed."""

    origin: str
    """The server, such as ``https://github.com``: what a credential is good for."""
    repository: str
    """Path below the origin, without a slash at either end."""
    action: str
    """``info/refs`` or the service."""
    service: str

    @property
    def upstream(self) -> str:
        """Where it really goes."""
        query = f"?service={self.service}" if self.action == "info/refs" else ""
        return f"{self.origin}/{self.repository}/{self.action}{query}"

    @property
    def address(self) -> str:
        """Its path at the gateway."""
        return f"{PREFIX}/{self.upstream.replace('://', '/', 1)}"


def parse_hosts(text: str) -> tuple[str, ...]:
    """Origins out of a setting: names with commas between them, each with scheme and port where they are not the usual.

    ``github.com, http://10.0.0.1:3000`` gives ``https://github.com`` and ``http://10.0.0.1:3000``. Raises ``SettingsInvalid``.
    """
    entries = [entry.strip() for entry in text.split(",") if entry.strip()]
    if len(entries) > HOSTS_MAX:
        raise SettingsInvalid(f"FF_GIT_HOSTS: must name at most {HOSTS_MAX} git servers")
    return tuple(dict.fromkeys(map(parse_host, entries)))


def parse_host(entry: str) -> str:
    """The origin that one entry of the setting means. Raises ``SettingsInvalid``."""
    found = _ENTRY.fullmatch(entry.lower())
    port = int(found[3]) if found and found[3] else None
    if found is None or port == 0 or (port or 0) > 65535:
        raise SettingsInvalid(
            "FF_GIT_HOSTS: must name git servers like github.com or https://git.example.com:8443, without a path"
        )
    scheme = found[1] or "https"
    return f"{scheme}://{found[2]}" + ("" if port in (None, _STANDARD_PORTS[scheme]) else f":{port}")


def origin_of(url: str) -> str:
    """The server of an address with any path, as :func:`parse_host` has it. Raises ``SettingsInvalid``."""
    return parse_host("/".join(url.split("/")[:3]))


def read_request(method: str, path: str, query: str, hosts: tuple[str, ...]) -> GitRequest:
    """What is asked, letter for letter. ``path`` is the undecoded one.

    Raises ``GitPathRefused`` for anything but the smart protocol, ``GitLfsUnsupported``, and ``GitHostRefused``.
    """
    found = _ADDRESS.fullmatch(path)
    if found is None:
        raise GitPathRefused
    origin = f"{found['scheme']}://{found['authority']}"
    if origin not in hosts:
        raise GitHostRefused(
            f"The gateway does not lead to {found['authority']}; ask the administrator to add it to FF_GIT_HOSTS."
        )
    action = found["action"]
    if action.startswith("info/lfs/"):
        raise GitLfsUnsupported
    service = query.removeprefix("service=") if action == "info/refs" else action
    asked = (method, query) == (("GET", f"service={service}") if action == "info/refs" else ("POST", ""))
    if service not in _SERVICES or not asked:
        raise GitPathRefused
    return GitRequest(origin=origin, repository=found["repository"], action=action, service=service)


def follow(asked: GitRequest, location: str) -> GitRequest:
    """What a redirect leads to, when that is the same service of a repository on the same server.

    Raises ``GitMoved`` when it is not: no other server may be asked, and none may get the credential.
    """
    if asked.action != "info/refs" or not location:
        raise GitMoved
    try:
        parts = urlsplit(urljoin(asked.upstream, location))
        moved = read_request("GET", f"{PREFIX}/{parts.scheme}/{parts.netloc}{parts.path}", parts.query, (asked.origin,))
    except (ValueError, GitPathRefused, GitHostRefused, GitLfsUnsupported) as error:
        raise GitMoved from error
    if moved.service != asked.service:
        raise GitMoved
    return moved
