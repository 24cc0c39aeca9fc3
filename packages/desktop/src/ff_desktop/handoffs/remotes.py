"""Addresses of repositories: which of the many spellings are the same, and how the cloud would clone it. Pure."""

import re
from urllib.parse import urlsplit

_SCP = re.compile(r"(?:[^@/:]+@)?(?P<host>\[[0-9a-fA-F:.]+\]|[^/:@]+):(?P<path>[^:].*)")
_SCHEMES = {"https": 443, "http": 80, "ssh": 22, "git+ssh": 22, "ssh+git": 22, "git": 9418}
_PLAIN = frozenset({"http", "https"})


def cloud_url(url: str | None) -> str | None:
    """The address under which the cloud can clone what the user reaches at ``url``; None: under none.

    Over SSH a repository has the same path as over https with every host we know; a folder of this machine is nobody else's.
    User names and passwords are left out.
    """
    parts = _parts(url)
    if parts is None:
        return None
    scheme, host, port, path = parts
    if scheme in _PLAIN:
        authority = host if port in {None, _SCHEMES[scheme]} else f"{host}:{port}"
        return f"{scheme}://{authority}/{path}"
    # The port of SSH says nothing about that of https.
    return f"https://{host}/{path}"


def same_repository(one: str | None, other: str | None) -> bool:
    """Whether two addresses lead to one repository, however they are spelled."""
    first, second = _identity(one), _identity(other)
    return first is not None and first == second


def _identity(url: str | None) -> tuple[str, str] | None:
    parts = _parts(url)
    if parts is None:
        return None
    scheme, host, port, path = parts
    authority = host if port in {None, _SCHEMES[scheme]} or scheme not in _PLAIN else f"{host}:{port}"
    return authority, path.removesuffix(".git").casefold()


def _parts(url: str | None) -> tuple[str, str, int | None, str] | None:
    """Scheme, host, port and path; None for what is no address of a server."""
    if not url:
        return None
    if "://" not in url:
        found = _SCP.fullmatch(url)
        # One letter and a colon is a drive.
        if found is None or len(found["host"]) == 1:
            return None
        return _checked("ssh", found["host"], None, found["path"])
    try:
        split = urlsplit(url)
        return _checked(split.scheme.lower(), split.netloc.rpartition("@")[2], split.port, split.path)
    except ValueError:
        return None


def _checked(scheme: str, authority: str, port: int | None, path: str) -> tuple[str, str, int | None, str] | None:
    host = authority if port is None else authority.rpartition(":")[0]
    path = path.strip("/")
    if scheme not in _SCHEMES or not host or not path:
        return None
    return scheme, host.lower(), port, path
