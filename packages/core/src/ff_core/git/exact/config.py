"""Which settings of a repository travel, and how they are written where they arrive. Pure.

Only what decides what ``git status`` says, what a commit of this repository looks like, and where branches, remotes and
submodules belong. Nothing that names a program, a hook or a file of this host; of an address neither user name nor password.
Settings of the user and of the machine count as if they were the repository's own, for there they are missing.
"""

import re
from collections.abc import Iterable, Mapping

Settings = list[tuple[bytes, bytes]]
"""Names in git's own spelling (section and last word in lower case) with values, in order; a name may come more than once."""

IDENTITY = ("user.name", "user.email", "author.name", "author.email", "committer.name", "committer.email", "i18n.commitencoding")
LOOKS = {
    "core.autocrlf": b"false",
    "core.checkstat": b"default",
    "core.eol": b"native",
    "core.filemode": b"true",
    "core.ignorecase": b"false",
    "core.quotepath": b"true",
    "core.symlinks": b"true",
    "core.trustctime": b"true",
    "diff.ignoresubmodules": None,
    "diff.renamelimit": b"1000",
    "diff.renames": b"true",
    "status.renamelimit": None,
    "status.renames": None,
    "status.showstash": b"false",
}
"""What ``git status`` depends on, with what it is when nobody set it; None: what another one of these is, or no such value."""
SPARSE = ("core.sparsecheckout", "core.sparsecheckoutcone")
VALUE_BYTES_MAX = 4096
SETTINGS_MAX = 20_000

_WHOLE = frozenset(name.encode() for name in (*IDENTITY, *LOOKS, *SPARSE, "submodule.active"))
_ADDRESS = re.compile(rb"remote\.(.+)\.(url|pushurl)\Z", re.DOTALL)
_OF_REMOTE = re.compile(rb"remote\.(.+)\.fetch\Z", re.DOTALL)
_OF_BRANCH = re.compile(rb"branch\.(.+)\.(remote|merge|pushremote|rebase)\Z", re.DOTALL)
_OF_SUBMODULE = re.compile(rb"submodule\.(.+)\.(active|branch|fetchrecursesubmodules|ignore|update|url)\Z", re.DOTALL)
_FETCH = re.compile(rb"[+^]?refs/[^\x00-\x20\x7f:]+(:refs/[^\x00-\x20\x7f:]+)?\Z")
_UPDATES = frozenset({b"checkout", b"rebase", b"merge", b"none"})
"""``submodule.NAME.update`` may also be a command to run."""
_HELPER = re.compile(rb"[A-Za-z0-9][A-Za-z0-9+.-]*::")
_ANONYMOUS = re.compile(rb"\A((?:https?|ftps?)://)[^/@]*@")
_WITHOUT_PASSWORD = re.compile(rb"\A([a-z0-9+.-]+://[^/@:]*):[^/@]*@")
_ESCAPES = {b"\\": b"\\\\", b'"': b'\\"', b"\n": b"\\n", b"\t": b"\\t", b"\b": b"\\b"}


def parse(listing: bytes) -> Settings:
    """What ``git config --list --null`` says."""
    settings = []
    for record in listing.split(b"\0")[:-1]:
        name, separator, value = record.partition(b"\n")
        settings.append((name, value if separator else b"true"))
    return settings


def last(settings: Iterable[tuple[bytes, bytes]]) -> dict[bytes, bytes]:
    """Each name with the value that counts."""
    return dict(settings)


def travelling(settings: Settings, branches: Iterable[bytes]) -> Settings:
    """Those that travel with these branches, ready to be written."""
    wanted = set(branches)
    found: dict[tuple[bytes, bytes], None] = {}  # in order, and each once
    single = last(settings)
    for name, value in settings:
        of_branch = _OF_BRANCH.match(name)
        if of_branch is not None and of_branch[1] not in wanted:
            continue
        kept = carried(name, value if _many(name) else single[name])
        if kept is not None:
            found[name, kept] = None
    return list(found)


def carried(name: bytes, value: bytes) -> bytes | None:
    """The value as it travels; None when this setting stays where it is. Of a value that came it is the same again."""
    if len(name) + len(value) > VALUE_BYTES_MAX or b"\0" in name + value or b"\n" in name:
        return None
    if _ADDRESS.match(name):
        return _address(value)
    if _OF_REMOTE.match(name):
        return value if _FETCH.match(value) else None
    named = _OF_SUBMODULE.match(name) or _OF_BRANCH.match(name)
    if named is None:
        return value if name in _WHOLE else None
    if named[2] in {b"url", b"remote", b"pushremote"}:
        return _address(value)
    return value if named[2] != b"update" or value in _UPDATES else None


def remotes(settings: Settings) -> set[bytes]:
    """The remotes that these settings know."""
    return {found[1] for name, _ in settings if (found := _ADDRESS.match(name) or _OF_REMOTE.match(name)) is not None}


def of_remotes(settings: Settings, without: set[bytes]) -> Settings:
    """What these settings say of remotes, but for some."""
    return [
        (name, value)
        for name, value in settings
        if (found := _ADDRESS.match(name) or _OF_REMOTE.match(name)) is not None and found[1] not in without
    ]


def upstream(settings: Settings, branch: bytes) -> bytes | None:
    """The full name of the ref that a branch follows, whether there is such a ref or not."""
    values = last(settings)
    remote, merge = values.get(b"branch.%s.remote" % branch), values.get(b"branch.%s.merge" % branch)
    if remote is None or merge is None:
        return None
    if remote == b".":
        return merge
    for name, spec in settings:
        if name != b"remote.%s.fetch" % remote or spec.startswith(b"^"):
            continue
        source, _, target = spec.removeprefix(b"+").partition(b":")
        before, star, after = source.partition(b"*")
        if not star and source == merge and target:
            return target
        if star and len(merge) >= len(before) + len(after) and merge.startswith(before) and merge.endswith(after):
            return target.replace(b"*", merge[len(before) : len(merge) - len(after)], 1)
    return None


def unset_here(travelled: Settings, outside: Mapping[bytes, bytes]) -> Settings:
    """What must be written where ``outside`` (user, machine) says something of which the sender knew nothing."""
    here = last(travelled)
    found: Settings = []
    for name, default in LOOKS.items():
        key = name.encode()
        if key not in outside or key in here:
            continue
        if default is None:
            default = here.get(key.replace(b"status.", b"diff.")) or LOOKS[name.replace("status.", "diff.")]  # noqa: PLW2901
        if default is not None:
            found.append((key, default))
    return found


def render(settings: Iterable[tuple[bytes, bytes]]) -> bytes:
    """Lines for a file of settings."""
    lines = []
    before = b""
    for name, value in settings:
        section, _, rest = name.partition(b".")
        subsection, dot, key = rest.rpartition(b".")
        head = b"[%s]" % section
        if dot:
            head = b'[%s "%s"]' % (section, subsection.replace(b"\\", b"\\\\").replace(b'"', b'\\"'))
        if head != before:
            lines.append(head + b"\n")
            before = head
        lines.append(b'\t%s = "%s"\n' % (key, _escaped(value)))
    return b"".join(lines)


def _many(name: bytes) -> bool:
    return bool(_ADDRESS.match(name) or _OF_REMOTE.match(name)) or name == b"submodule.active"


def _address(value: bytes) -> bytes | None:
    if value.startswith(b"-") or _HELPER.match(value) or re.search(rb"[\x00-\x1f\x7f]", value):
        return None
    return _WITHOUT_PASSWORD.sub(rb"\1@", _ANONYMOUS.sub(rb"\1", value))


def _escaped(value: bytes) -> bytes:
    return re.sub(rb'[\\"\n\t\x08]', lambda found: _ESCAPES[found[0]], value)
