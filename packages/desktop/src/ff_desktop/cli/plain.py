"""Text from elsewhere made harmless: a name, a prompt or a tool's output must not drive the user's terminal."""

import unicodedata

_BIDI = frozenset("\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")
"""Marks that reorder what follows, so that a command could read as another one."""
_LINE_ENDS = frozenset("\u2028\u2029")


def plain(text: str) -> str:
    """The same text with every control character, escape, lone surrogate and direction mark made visible.

    Line feeds stay and tabs become spaces. Emoji, their joiners and all scripts stay as they are.
    """
    return "".join(map(_shown, text.replace("\r\n", "\n")))


def one_line(text: str, chars_max: int = 200) -> str:
    """:func:`plain` on one line, cut with an ellipsis."""
    flat = plain(" ".join(text[: chars_max * 4].split()))
    return flat if len(flat) <= chars_max and len(text) <= chars_max * 4 else flat[: chars_max - 1] + "…"


def _shown(char: str) -> str:
    if char == "\n" or char.isprintable():
        return char
    if char == "\t":
        return "    "
    code = ord(char)
    if code < 0x20:
        return chr(0x2400 + code)
    if code == 0x7F:
        return "\u2421"
    if char in _BIDI or char in _LINE_ENDS or unicodedata.category(char) in {"Cc", "Cs"}:
        return f"<{code:04X}>"
    return char
