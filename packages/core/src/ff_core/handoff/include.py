"""What of a working tree travels besides what git tracks. Pure."""

import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from enum import StrEnum

from ff_core.handoff.names import fault

WORKTREE_INCLUDE = ".worktreeinclude"
"""In the top folder of a repository: ignored files that a copy of the working tree needs, as lines of a gitignore file."""

_EXAMPLES = re.compile(rb"\.(example|sample|template|dist|tmpl|tpl)(\.[^.]*)?\Z")
_CREDENTIALS = re.compile(
    rb"""
    \.env.* | .*\.env
    | .*\.(pem|key|p12|pfx|pkcs12|jks|keystore|kdbx|ppk|ovpn)
    | id_(rsa|dsa|ecdsa|ed25519|ecdsa_sk|ed25519_sk)(?!.*\.pub\Z).*
    | \.npmrc | \.netrc | _netrc | \.pypirc | \.git-credentials | \.pgpass | \.my\.cnf | \.htpasswd | \.dockercfg | \.vault-token
    | \.terraformrc | terraform\.tfvars | .*\.auto\.tfvars | .*\.tfstate(\.backup)?
    | service[-_]?account.*\.json | client[-_]secret.*\.json | secrets?\.(json|ya?ml|toml|ini|env|properties)
    | kubeconfig | .*\.kubeconfig
    """,
    re.VERBOSE | re.DOTALL,
)
_NAMED_CREDENTIALS = re.compile(rb"\.?credentials.*\Z", re.DOTALL)
_SOURCE = re.compile(
    rb".*\.(py|pyi|ipynb|js|jsx|mjs|cjs|ts|tsx|mts|cts|go|rs|rb|java|kt|kts|scala|cs|fs|php|swift|m|mm|c|h|cc|cpp|cxx|hpp|ex|exs|erl"
    rb"|hs|ml|clj|lua|pl|r|jl|dart|vue|svelte|html?|css|scss|less|md|mdx|rst|adoc|sql|proto|graphql|snap)\Z",
    re.DOTALL,
)
_TEMPORARY = re.compile(rb".*\.tmp\.[0-9]{1,7}\.[0-9]{10,13}(\.[0-9a-f]+)?\Z", re.DOTALL)
"""What Claude's tools write a file as before they rename it: ``NAME.tmp.PID.TIME``."""


class Reason(StrEnum):
    """Why something is left behind; public, in ``LeftBehind.reason``."""

    IGNORED = "ignored"
    SPECIAL = "special"
    UNREADABLE = "unreadable"
    CREDENTIAL = "credential"
    TEMPORARY = "temporary"
    OTHER_FILESYSTEM = "other_filesystem"
    WORKTREE = "worktree"
    """A working tree of a repository that is elsewhere: its ``.git`` is a file that leads out of here."""
    NAME = "name"
    """Some file system takes its name for ``.git``."""


def looks_like_a_credential(path: bytes) -> bool:
    """By its name alone. Files that are examples, and source code that is called so, don't."""
    name = path.rpartition(b"/")[2].lower()
    if _EXAMPLES.search(name):
        return False
    if _NAMED_CREDENTIALS.match(name):
        return not _SOURCE.match(name)
    return bool(_CREDENTIALS.fullmatch(name))


def looks_temporary(path: bytes) -> bool:
    """By its name alone."""
    return bool(_TEMPORARY.match(path.rpartition(b"/")[2]))


def parents(path: bytes) -> Iterable[bytes]:
    """The folders that a path is in, the inmost first."""
    while path := path.rpartition(b"/")[0]:
        yield path


@dataclass(frozen=True)
class Judge:
    """Decides for each path of one repository. Folders in ``ignored``, ``included``, ``said`` end with a slash: all in them."""

    tracked: frozenset[bytes]
    submodules: frozenset[bytes]
    """They are looked at by themselves."""
    ignored: frozenset[bytes]
    included: frozenset[bytes]
    """Untracked paths that match ``.worktreeinclude`` or the rules that were given."""
    said: frozenset[bytes]
    """Those that match the rules that were given: that is a yes also for credentials."""
    credentials: bool
    """A yes for all of them."""
    _above: frozenset[bytes] = field(init=False)

    def __post_init__(self) -> None:
        wanted = self.tracked | self.included
        object.__setattr__(self, "_above", frozenset(parent for path in wanted for parent in parents(path.rstrip(b"/"))))

    def leads_somewhere(self, folder: bytes) -> bool:
        """Whether something that travels for certain is in this folder."""
        return folder in self._above

    def ignores_folder(self, folder: bytes) -> bool:
        """Whether git ignores all of it."""
        return folder + b"/" in self.ignored

    def takes_folder(self, folder: bytes) -> bool:
        """Whether all of it is included, though it is ignored: a repository of its own, say."""
        return folder + b"/" in self.included

    def of_file(self, path: bytes, *, ignored: bool, regular: bool) -> Reason | None:
        """Why a file or a link is left behind; None when it travels. ``ignored``: so is the folder that it is in."""
        if path in self.tracked:
            return None
        if fault(path) is not None:
            return Reason.NAME
        ignored = ignored or path in self.ignored
        if ignored and path not in self.included:
            return Reason.IGNORED
        if not ignored and looks_temporary(path):
            return Reason.TEMPORARY
        if regular and not self.credentials and looks_like_a_credential(path) and not self._is_said(path):
            return Reason.CREDENTIAL
        return None

    def _is_said(self, path: bytes) -> bool:
        return path in self.said or any(parent + b"/" in self.said for parent in parents(path))
