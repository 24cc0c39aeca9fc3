"""Which names may travel. Pure.

A name is a path as bytes, relative to the top of its repository (or of its own little folder), of any bytes a file system takes.
What is refused could leave the folder it is meant for, or become git's own folder on some file system that git knows.
"""

import re

from ff_core.handoff.errors import BundleBroken

PATH_BYTES_MAX = 4095
"""What one system call takes, without the zero byte at its end."""
NAME_BYTES_MAX = 255
_PLAIN = re.compile(rb"[A-Za-z0-9][A-Za-z0-9._-]{0,99}\Z")
_NTFS = re.compile(rb"(?:\.git|git~1)[. ]*(?:[\\:].*)?\Z", re.IGNORECASE | re.DOTALL)
"""NTFS has short names, drops dots and spaces at the end, and has streams behind a colon; a backslash ends a component there."""
_HFS_IGNORES = re.compile("[\u200c-\u200f\u202a-\u202e\u206a-\u206f\ufeff]")
"""Characters that HFS+ drops when it compares names."""


def fault(path: bytes) -> str | None:
    """Why this path can't travel, as the end of a sentence ("it …"); None when it can.

    Only its first component is compared with ``.git``: a repository of its own further down, which git takes for untracked
    files, is files like any other.
    """
    if len(path) > PATH_BYTES_MAX:
        return "is too long"
    if b"\0" in path:
        return "has a zero byte in it"
    components = path.split(b"/")
    if any(part in {b"", b".", b".."} for part in components):
        return "leaves its folder, or goes there by a detour"
    if any(len(part) > NAME_BYTES_MAX for part in components):
        return "has a component that is too long"
    return "is git's own" if is_git_folder(components[0]) else None


def checked_path(path: bytes) -> bytes:
    """``path``, when it may travel. Raises :class:`BundleBroken`."""
    if (why := fault(path)) is not None:
        raise BundleBroken(f"A name in the bundle can't be used: it {why}. Nothing of the bundle was used.")
    return path


def checked_plain(name: bytes) -> bytes:
    """``name``, when it is one of ours: a file name of 1 to 100 plain characters. Raises :class:`BundleBroken`."""
    if not _PLAIN.match(name):
        raise BundleBroken
    return name


def is_git_folder(component: bytes) -> bool:
    """Whether some file system takes this name for ``.git``: what git's own ``is_ntfs_dotgit`` and ``is_hfs_dotgit`` know."""
    if _NTFS.match(component):
        return True
    try:
        text = component.decode()
    except UnicodeDecodeError as exc:
        text = component[: exc.start].decode()  # like git, which takes this for the end
    return _HFS_IGNORES.sub("", text).translate(_ASCII_LOWER) == ".git"


_ASCII_LOWER = {upper: upper + 32 for upper in range(ord("A"), ord("Z") + 1)}
