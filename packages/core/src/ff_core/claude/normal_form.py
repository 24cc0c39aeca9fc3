"""The text of transcripts without the one path that would be dead elsewhere. Pure.

A conversation refers to files beside it (large outputs, its memory) by the absolute path of its folder. In the normal form, in
which it travels and is compared, that path is the word :data:`WORD`.

The two are *exchanged*: the word becomes the path where the text had the word already. So normalizing and settling are the same
act, done twice it undoes itself, and every text, also one that speaks of other hosts or of this module, comes home as it left.
"""

import json
import os
import re
from collections.abc import Iterable, Iterator

WORD = b"ff-handoff:/conversation"
"""Part of the format of bundles: never to be changed."""
_LONGER = frozenset(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._~%+@:/-")
"""What before a path means that it is the end of a longer one."""
_LINE_ENDS = frozenset({rb"\n", rb"\r", rb"\t"})
"""In JSON, what looks like a letter before a path may be the end of a line."""
_AFTER = rb"(?![A-Za-z0-9_-])"
"""Where the name of the folder ends: there are others whose names go on."""
_CONTEXT_BYTES = 2


def spelling(folder: bytes, name: bytes) -> bytes:
    """How the path ``folder`` is written in the file ``name``: as the CLI writes JSON, or as it is."""
    if not name.endswith((b".json", b".jsonl")):
        return folder
    return os.fsencode(json.dumps(os.fsdecode(folder), ensure_ascii=False)[1:-1])


def exchanged(chunks: Iterable[bytes], path: bytes) -> Iterator[bytes]:
    """The text with ``path`` and :data:`WORD` exchanged, whatever the borders of chunks.

    Holds a chunk and the length of the path. ``path`` is absolute, and its last component has letters, digits and dashes only.
    """
    pattern = re.compile(b"(?:" + re.escape(path) + b"|" + re.escape(WORD) + b")" + _AFTER)
    longest = max(len(path), len(WORD))
    text, done = b"", 0
    for chunk in chunks:
        text += chunk
        # Whether something begins before `sure` can be told from what is here.
        sure = len(text) - longest
        if sure > done:
            piece, done = _exchange(pattern, path, text, done, sure)
            yield piece
            drop = max(done - _CONTEXT_BYTES, 0)
            text, done = text[drop:], done - drop
    if done < len(text):
        yield _exchange(pattern, path, text, done, len(text))[0]


def _exchange(pattern: re.Pattern[bytes], path: bytes, text: bytes, begin: int, end: int) -> tuple[bytes, int]:
    """The text from ``begin`` on with what begins before ``end`` exchanged, and where it ends in the old one."""
    if text.find(path, begin) < 0 and text.find(WORD, begin) < 0:
        return text[begin:end], end
    parts = []
    at = begin
    while at < end and (found := pattern.search(text, at)) is not None and (at := found.start()) < end:
        if _begins(text, at):
            parts += [text[begin:at], WORD if found.group() == path else path]
            begin = at = found.end()
        else:
            at += 1
    parts.append(text[begin:end])
    return b"".join(parts), max(begin, end)


def _begins(text: bytes, at: int) -> bool:
    return at == 0 or text[at - 1] not in _LONGER or text[max(at - 2, 0) : at] in _LINE_ENDS
