"""What a repository is besides its objects, its index and its working tree; in the form in which it travels."""

import re
from typing import Annotated, Literal

from pydantic import AfterValidator, Field

from ff_core.contract.base import Request
from ff_core.contract.handoff import ObjectName
from ff_core.git.exact.config import SETTINGS_MAX, carried
from ff_core.git.exact.words import Raw

REFS_MAX = 200_000
STASHES_MAX = 10_000
TEXT_BYTES_MAX = 1 << 20
"""Of a file such as ``info/exclude``."""

_REF_UNSAFE = re.compile(rb"[\x00-\x20\x7f~^:?*\[\\]|\.\.|@\{|//|/\.|\.lock(/|\Z)|[/.]\Z")
_WHO = re.compile(rb"[^\x00\n<>]*<[^\x00\n<>]*>\Z")
_MODULE_PART = re.compile(rb"(?!\.{1,2}\Z)[^\x00-\x1f\x7f/]+\Z")


def ref_is_fine(name: bytes) -> bool:
    """Whether git takes it for the name of a ref (``git check-ref-format``)."""
    return name.startswith(b"refs/") and 5 < len(name) <= 1024 and not _REF_UNSAFE.search(name)


def _ref(name: bytes) -> bytes:
    if not ref_is_fine(name):
        msg = "is no name of a ref"
        raise ValueError(msg)
    return name


def _head(name: bytes) -> bytes:
    if not name.startswith(b"refs/heads/"):
        msg = "is no branch"
        raise ValueError(msg)
    return _ref(name)


def _remote(name: bytes) -> bytes:
    if not name.startswith(b"refs/remotes/"):
        msg = "is not of a remote"
        raise ValueError(msg)
    return _ref(name)


def _module(name: bytes) -> bytes:
    if not all(map(_MODULE_PART.match, name.split(b"/"))) or len(name) > 4000:
        msg = "is no name of a submodule"
        raise ValueError(msg)
    return name


def _line(text: bytes) -> bytes:
    if b"\n" in text or b"\0" in text:
        msg = "has more than one line"
        raise ValueError(msg)
    return text


def _who(text: bytes) -> bytes:
    if not _WHO.match(text):
        msg = "is nobody's name"
        raise ValueError(msg)
    return text


def _setting(setting: tuple[bytes, bytes]) -> tuple[bytes, bytes]:
    name, value = setting
    if carried(name, value) != value:
        msg = "is a setting that does not travel"
        raise ValueError(msg)
    return setting


Text = Annotated[Raw, Field(max_length=TEXT_BYTES_MAX)]
Setting = Annotated[tuple[Raw, Raw], AfterValidator(_setting)]


class RefState(Request):
    """A ref. ``oid`` null: there must be none of this name."""

    name: Annotated[Raw, AfterValidator(_ref)]
    oid: ObjectName | None


class SymbolicState(Request):
    """A ref that is another one."""

    name: Annotated[Raw, AfterValidator(_remote)]
    target: Annotated[Raw, AfterValidator(_remote)]


class StashState(Request):
    """An entry of the stash: its commit, and what its log says of it."""

    commit: ObjectName
    who: Annotated[Raw, AfterValidator(_who)]
    when: Annotated[str, Field(pattern=r"^[0-9]{1,12} [+-][0-9]{4}$")]
    message: Annotated[Raw, AfterValidator(_line), Field(max_length=1 << 16)]


class RepositoryState(Request):
    """One of a workspace's repositories; the first is its own, the others are submodules, each after the one it is in."""

    path: Raw
    """Below the workspace; empty for its own."""
    parent: int | None
    """The number of the repository it is in."""
    module: Annotated[Raw, AfterValidator(_module)] | None
    """Its name, when its ``.git`` lies among the modules of its parent's; null: in itself."""
    object_format: Literal["sha1", "sha256"]
    head: ObjectName | None
    branch: Annotated[Raw, AfterValidator(_head)] | None
    """Null when HEAD is detached."""
    upstream: Annotated[Raw, AfterValidator(_ref)] | None
    refs: Annotated[tuple[RefState, ...], Field(max_length=REFS_MAX)]
    """Those that travel, by name."""
    symbolic: Annotated[tuple[SymbolicState, ...], Field(max_length=1_000)] = ()
    """Among what is known of remotes, those that only say which other ref they mean."""
    stash: Annotated[tuple[StashState, ...], Field(max_length=STASHES_MAX)]
    """The oldest first."""
    shallow: Annotated[tuple[ObjectName, ...], Field(max_length=100_000)]
    settings: Annotated[tuple[Setting, ...], Field(max_length=SETTINGS_MAX)]
    sparse: Text | None
    """Patterns of a sparse checkout, in use or not."""
    exclude: Text
    """``info/exclude``, and before it the user's ``core.excludesFile``: as one file they mean what they mean as two."""
    attributes: Text
    """``info/attributes``."""
    global_attributes: Text
    """The user's ``core.attributesFile``, which counts least and so can't be put into another one."""
    whole: bool
    """The pack has all of the history."""
