"""Addresses of repositories, credentials for them, names of branches: checked here, before git sees them. Pure."""

import re
from dataclasses import dataclass, field
from urllib.parse import urlsplit

from ff_core.git.errors import BranchInvalid, RepoAuthFailed, RepoUrlInvalid

URL_CHARS_MAX = 2048
BRANCH_BYTES_MAX = 244
"""Git keeps a branch as a file ``NAME.lock`` where it can; 255 bytes are what file systems take."""
TOKEN_CHARS_MAX = 4096

_HOST = re.compile(r"(?!-)[A-Za-z0-9._-]{1,253}|\[[0-9a-fA-F:.]{2,45}\]")
_PATH = re.compile(r"(/[A-Za-z0-9._~!$&'()*+,;=:@%-]+)+/?")
_SSH = re.compile(r"(ssh|git\+ssh|ssh\+git)://|[^/:]+@[^/:]+:", re.IGNORECASE)
_UNSAFE = re.compile(r"[\x00-\x20\x7f]")
_BRANCH_UNSAFE = re.compile(r"[\x00-\x20\x7f~^:?*\[\\]|\.\.|@\{|//|(^|/)\.|\.lock(/|$)|/$|^/|\.$|^-")


@dataclass(frozen=True)
class RepoUrl:
    """The address of a repository, without any credential. Made by :func:`parse_repo_url`."""

    scheme: str
    authority: str
    """Host, and port where it is not the scheme's own; in lower case."""
    path: str

    @property
    def origin(self) -> str:
        """The server: what a credential is good for."""
        return f"{self.scheme}://{self.authority}"

    def __str__(self) -> str:
        return self.origin + self.path


@dataclass(frozen=True)
class Credential:
    """A token for a git server. Its text is kept out of ``repr``."""

    token: str = field(repr=False)
    username: str = "x-access-token"
    """What GitHub wants beside a token; GitLab takes any name, Bitbucket ``x-token-auth``."""

    def __post_init__(self) -> None:
        # A line break would add lines to the credential protocol.
        if not 0 < len(self.token) <= TOKEN_CHARS_MAX or re.search(r"[\x00-\x1f\x7f]", self.token + self.username):
            raise RepoAuthFailed("This can't be a token: it is empty, too long, or has a line break in it.")

    def spoken(self) -> str:
        """As git's credential protocol says it; secret."""
        return f"username={self.username}\npassword={self.token}\n"


def parse_repo_url(text: str, *, allow_plain_http: bool = False) -> RepoUrl:
    """Read the address of a repository: https, or http where that is allowed (loopback, tests).

    Raises :class:`RepoUrlInvalid` with a sentence that says what to write instead and never repeats the address.
    """
    _refuse_dangerous(text)
    try:
        parts = urlsplit(text)
        port = parts.port
    except ValueError as error:
        raise RepoUrlInvalid("The host or port in the repository address is not valid.") from error
    if parts.scheme == "http" and not allow_plain_http:
        raise RepoUrlInvalid("Plain http is not allowed for repositories here; use the https address.")
    if parts.scheme not in ("https", "http"):
        raise RepoUrlInvalid("A repository address looks like https://host/owner/name.git; this one does not.")
    if "@" in parts.netloc:
        raise RepoUrlInvalid(
            "Leave the user name and token out of the repository address and give the token separately, "
            "so that it is not stored or shown with the address."
        )
    if "?" in text or "#" in text:
        raise RepoUrlInvalid("A repository address has no '?' or '#' in it.")
    host = parts.netloc if port is None else parts.netloc.rpartition(":")[0]
    if not _HOST.fullmatch(host) or port == 0 or parts.netloc.endswith(":"):
        raise RepoUrlInvalid("The host or port in the repository address is not valid.")
    if not _PATH.fullmatch(parts.path) or any(name in (".", "..") for name in parts.path.split("/")):
        raise RepoUrlInvalid("The repository address needs a plain path after the host, such as /owner/name.git.")
    standard = {"https": 443, "http": 80}[parts.scheme]
    authority = host.lower() if port in (None, standard) else f"{host.lower()}:{port}"
    return RepoUrl(parts.scheme, authority, parts.path.rstrip("/"))


def check_branch(name: str) -> str:
    """Return ``name`` when git accepts it for a branch (git-check-ref-format), else raise :class:`BranchInvalid`."""
    if not name or name == "HEAD" or _BRANCH_UNSAFE.search(name):
        raise BranchInvalid(
            "This is not a branch name that git accepts: it can't be empty, start with '-' or '.', end with '/', '.' "
            "or '.lock', or contain spaces, control characters, '..', '//', '@{' or any of ~ ^ : ? * [ \\."
        )
    try:
        size = len(name.encode())
    except UnicodeEncodeError as error:
        raise BranchInvalid("The branch name is not valid Unicode text.") from error
    if size > BRANCH_BYTES_MAX:
        raise BranchInvalid(f"The branch name is longer than {BRANCH_BYTES_MAX} bytes.")
    return name


def _refuse_dangerous(text: str) -> None:
    if len(text) > URL_CHARS_MAX:
        raise RepoUrlInvalid(f"The repository address is longer than {URL_CHARS_MAX} characters.")
    if text.startswith("-"):
        raise RepoUrlInvalid("A repository address can't start with '-'.")
    if _UNSAFE.search(text):
        raise RepoUrlInvalid("A repository address can't contain spaces or control characters.")
    if _SSH.match(text):
        raise RepoUrlInvalid("SSH addresses are not supported yet; use the https address and a token.")
