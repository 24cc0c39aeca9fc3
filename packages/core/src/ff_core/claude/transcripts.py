"""Where Claude's transcripts lie, taken from there in a normal form, and settled elsewhere. Runs as the user they belong to.

What is known of the CLI's folders was seen, with the version this package is pinned to::

    <config dir>/projects/<slug>/<id>.jsonl       the conversation
    <config dir>/projects/<slug>/<id>/…           its subagents, and large outputs of its tools

The CLI looks for a conversation by its id in all of ``projects``, so of each there must be one. No link is followed there.
What is not of one conversation alone (memory, snapshots of shells, background outputs) stays. Nothing here imports the SDK.
"""

import hashlib
import os
import re
import shutil
import stat
import struct
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Protocol

from ff_core.claude.normal_form import exchanged, spelling
from ff_core.contract.handoff import ConversationPrint
from ff_core.errors import FFError, InvalidInput
from ff_core.ids import SessionId

FILES_MAX = 100_000
"""Of one conversation."""
DEPTH_MAX = 50
CHUNK_BYTES = 128 << 10
ASIDE = ".before-handoff"
ARRIVING = ".arriving"
_SLUG_CHARS_MAX = 200
_ID = re.compile(r"[0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}\Z")
_OPEN_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_NEW_FILE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC


class TranscriptsBroken(FFError):
    """The files of a conversation are not what they should be; nothing of it was moved."""

    code = "transcripts_broken"
    status = 422


class TranscriptsLinked(FFError):
    """Claude's folder of transcripts is a symbolic link, which is not followed. Put the folder itself there, then try again."""

    code = "transcripts_linked"
    status = 409


class NormalFile(Protocol):
    """A file of a conversation in the normal form."""

    @property
    def name(self) -> bytes:
        """``<id>.jsonl``, or ``<id>/`` and more."""
        ...

    def chunks(self) -> Iterator[bytes]:
        """The content; may be asked for more than once."""
        ...


@dataclass(frozen=True)
class TranscriptFile:
    """A file on this disk. Its content is the same every time as long as no agent writes to it."""

    name: bytes
    path: Path
    folder: bytes | None
    """The folder whose path is exchanged for the word; None where the text is in the normal form already."""

    def chunks(self) -> Iterator[bytes]:
        """The content in the normal form. Raises ``OSError``, and :class:`TranscriptsBroken` when it is no file any more."""
        raw = _read(self.path)
        return raw if self.folder is None else exchanged(raw, spelling(self.folder, self.name))

    @cached_property
    def size(self) -> int:
        """Of the normal form, in bytes; reads the file."""
        return sum(map(len, self.chunks()))


def slug(cwd: Path) -> str:
    """The name of the folder in which the CLI keeps conversations of ``cwd``, which need not exist.

    The rule is the CLI's own (2.1.330), seen by running it: each UTF-16 unit of the real path that is no ASCII letter or digit
    becomes a dash; of a long name the first 200 characters are kept, and a hash of the path in base 36 follows. The SDK's
    ``project_key_for_directory`` differs for characters beyond U+FFFF and for decomposed ones.
    """
    raw = os.path.realpath(cwd).encode("utf-16-le", "surrogatepass")
    units = [unit for (unit,) in struct.iter_unpack("<H", raw)]
    name = re.sub(r"[^a-zA-Z0-9]", "-", "".join(map(chr, units)))
    return name if len(name) <= _SLUG_CHARS_MAX else f"{name[:_SLUG_CHARS_MAX]}-{_hash(units)}"


def find(config_dir: Path, provider_session_id: str) -> Path | None:
    """The folder in ``projects`` that holds this conversation, the newest where there are several; None where there is none.

    Raises ``InvalidInput`` for an id that is none, :class:`TranscriptsLinked`.
    """
    places = [
        (_mtime_ns(folder / _conversation(provider_session_id)), folder) for folder in _holding(config_dir, provider_session_id)
    ]
    return max(places)[1] if places else None


def collect(config_dir: Path, provider_session_id: str) -> Iterator[TranscriptFile]:
    """The files of this conversation, sorted by name; none when the CLI never wrote it. Links and special files are left out.

    ``config_dir`` is spelled as the CLI was given it: it is in the paths that the CLI wrote. Raises what :func:`find` raises, and
    :class:`TranscriptsBroken` when there are too many.
    """
    folder = find(config_dir, provider_session_id)
    return iter(()) if folder is None else iter(_settled(folder, provider_session_id))


def normal_files(folder: Path) -> list[TranscriptFile]:
    """The files in a folder of files in the normal form, sorted by name; none when there is no such folder."""
    return [TranscriptFile(name, folder / os.fsdecode(name), None) for name in _names(folder)]


def print_of(session_id: SessionId, files: Iterable[NormalFile]) -> ConversationPrint:
    """Of a conversation, from its files in any order: the SHA-256 over each name, with its length before it, and the SHA-256 of
    its content, sorted by name.
    """
    whole = hashlib.sha256()
    digests = sorted((file.name, _digest(file)) for file in files)
    for name, digest in digests:
        whole.update(struct.pack("<I", len(name)) + name + digest)
    return ConversationPrint(session_id=session_id, files=len(digests), sha256=whole.hexdigest())


def print_of_folder(session_id: SessionId, folder: Path) -> ConversationPrint:
    """The same, of files in the normal form."""
    return print_of(session_id, normal_files(folder))


def print_of_settled(session_id: SessionId, config_dir: Path, provider_session_id: str) -> ConversationPrint:
    """The same, of a conversation where the CLI keeps it."""
    return print_of(session_id, collect(config_dir, provider_session_id))


def settle(source: Path, config_dir: Path, cwd: Path, provider_session_id: str) -> None:
    """Put a conversation where the CLI finds it when it is started in ``cwd`` with this ``config_dir``.

    ``source`` has its files in the normal form, or nothing: then nothing is done. What lies here of the same conversation and is
    not the same is put aside as ``….before-handoff``, in place of what lay there. The ``.jsonl`` comes last: while it is not
    there, nothing is. May be repeated, also after a crash; no agent may run in the conversation meanwhile.
    Raises ``InvalidInput``, :class:`TranscriptsBroken` before anything was done, :class:`TranscriptsLinked`, ``OSError``.
    """
    conversation, beside = _conversation(provider_session_id), os.fsencode(provider_session_id) + b"/"
    files = normal_files(source)
    if not files:
        return
    first = [file for file in files if file.name == os.fsencode(conversation)]
    others = [file for file in files if file.name.startswith(beside)]
    if not first or len(files) != len(others) + 1:
        raise TranscriptsBroken
    folder = _folder_for(config_dir, cwd)
    _settle_beside(others, folder, provider_session_id)
    for older in _holding(config_dir, provider_session_id):
        if older != folder:
            _put_aside(older / provider_session_id)
            _put_aside(older / conversation)
    _settle_conversation(first[0], folder)


def _settle_beside(files: list[TranscriptFile], folder: Path, name: str) -> None:
    """Make ``folder/name`` hold these files and no others; it is exchanged as a whole."""
    live, arriving = folder / name, folder / f"{name}{ARRIVING}"
    _remove(arriving)
    here = [file for file in _settled(folder, name) if file.name.startswith(os.fsencode(name) + b"/")]
    if [file.name for file in here] == [file.name for file in files] and all(map(_same, here, files)):
        return
    for file in files:
        below = Path(os.fsdecode(file.name)).relative_to(name)
        (arriving / below.parent).mkdir(mode=0o700, parents=True, exist_ok=True)
        _write(file, arriving / below, folder)
    for made, _, _ in os.walk(arriving):
        _sync(made)
    _put_aside(live)
    if files:
        arriving.rename(live)
    _sync(folder)


def _settle_conversation(file: TranscriptFile, folder: Path) -> None:
    name = os.fsdecode(file.name)
    live, arriving = folder / name, folder / f"{name}{ARRIVING}"
    _remove(arriving)
    if _is_file(live) and _same(TranscriptFile(file.name, live, os.fsencode(folder)), file):
        return
    _write(file, arriving, folder)
    _put_aside(live)
    arriving.rename(live)
    _sync(folder)


def _settled(folder: Path, provider_session_id: str) -> list[TranscriptFile]:
    conversation = _conversation(provider_session_id)
    names = [os.fsencode(conversation)] if _is_file(folder / conversation) else []
    beside = folder / provider_session_id
    names += [os.fsencode(provider_session_id) + b"/" + name for name in _names(beside)]
    return [TranscriptFile(name, folder / os.fsdecode(name), os.fsencode(folder)) for name in sorted(names)]


def _holding(config_dir: Path, provider_session_id: str) -> list[Path]:
    """All folders that hold this conversation, as absolute paths in the spelling of ``config_dir``."""
    conversation = _conversation(provider_session_id)
    projects = _projects(config_dir)
    if projects.is_symlink():
        raise TranscriptsLinked
    try:
        with os.scandir(projects) as entries:
            folders = [projects / entry.name for entry in entries if entry.is_dir(follow_symlinks=False)]
    except (FileNotFoundError, NotADirectoryError):
        return []
    return [folder for folder in folders if _is_file(folder / conversation)]


def _projects(config_dir: Path) -> Path:
    return Path(os.path.abspath(config_dir)) / "projects"  # noqa: PTH100  (links stay as they are spelled)


def _folder_for(config_dir: Path, cwd: Path) -> Path:
    projects = _projects(config_dir)
    folder = projects / slug(cwd)
    for made in (projects, folder):
        if made.is_symlink():
            raise TranscriptsLinked
        made.mkdir(mode=0o700, parents=True, exist_ok=True)
        _sync(made.parent)
    return folder


def _conversation(provider_session_id: str) -> str:
    if not _ID.match(provider_session_id):
        raise InvalidInput("The id of an agent's conversation must be a UUID.")
    return f"{provider_session_id}.jsonl"


def _names(folder: Path) -> list[bytes]:
    """The paths of the regular files below, sorted."""
    found: list[bytes] = []
    waiting = [(b"", 0)]
    top = os.fsencode(folder)
    if folder.is_symlink():
        return found
    while waiting:
        path, depth = waiting.pop()
        try:
            entries = list(os.scandir(top + b"/" + path))
        except (FileNotFoundError, NotADirectoryError):
            continue
        for entry in entries:
            if entry.is_dir(follow_symlinks=False):
                waiting.append((path + entry.name + b"/", depth + 1))
            elif entry.is_file(follow_symlinks=False):
                found.append(path + entry.name)
        if len(found) > FILES_MAX or depth > DEPTH_MAX or len(waiting) > FILES_MAX:
            raise TranscriptsBroken("A conversation has too many files or folders; nothing of it was moved.")
    return sorted(found)


def _read(path: Path) -> Iterator[bytes]:
    fd = os.open(path, _OPEN_FILE)
    with os.fdopen(fd, "rb", buffering=0) as file:
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            raise TranscriptsBroken
        while chunk := file.read(CHUNK_BYTES):
            yield chunk


def _write(file: TranscriptFile, path: Path, folder: Path) -> None:
    """The normal form, with the word exchanged for ``folder``, on the disk."""
    with os.fdopen(os.open(path, _NEW_FILE, 0o600), "wb") as written:
        for chunk in exchanged(file.chunks(), spelling(os.fsencode(folder), file.name)):
            written.write(chunk)
        written.flush()
        os.fsync(written.fileno())


def _put_aside(path: Path) -> None:
    if os.path.lexists(path):
        aside = path.with_name(f"{path.name}{ASIDE}")
        _remove(aside)
        path.rename(aside)
        _sync(path.parent)


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _sync(folder: Path | str) -> None:
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def _is_file(path: Path) -> bool:
    try:
        return stat.S_ISREG(path.lstat().st_mode)
    except (FileNotFoundError, NotADirectoryError):
        return False


def _mtime_ns(path: Path) -> int:
    return path.lstat().st_mtime_ns


def _digest(file: NormalFile) -> bytes:
    digest = hashlib.sha256()
    for chunk in file.chunks():
        digest.update(chunk)
    return digest.digest()


def _same(one: NormalFile, other: NormalFile) -> bool:
    return _digest(one) == _digest(other)


def _hash(units: list[int]) -> str:
    """JavaScript's ``hash = (hash << 5) - hash + unit | 0``, without its sign, in base 36."""
    value = 0
    for unit in units:
        value = (value * 31 + unit) & 0xFFFFFFFF
    value = min(value, (1 << 32) - value)
    digits = ""
    while value:
        value, digit = divmod(value, 36)
        digits = "0123456789abcdefghijklmnopqrstuvwxyz"[digit] + digits
    return digits or "0"
