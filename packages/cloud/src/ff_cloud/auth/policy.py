"""Which passwords are good enough (NIST 800-63B-4): long, and not made of what everybody tries first. Pure.

No rules on classes of characters, no forced change. Words that everybody tries, sequences, repetitions and what is known of
the user are taken away; what remains has to be something.
"""

import re
from collections.abc import Iterable
from importlib import resources

from ff_cloud.auth.errors import PasswordRefused
from ff_core.contract.account import PASSWORD_CHARS_MIN

_REST_CHARS_MIN = 6
_DISTINCT_CHARS_MIN = 5
_CONTEXT_CHARS_MIN = 4
_RUN_CHARS_MIN = 3

_PRODUCT = ("factoryfactory", "factory-factory", "factory", "ffcloud", "claude")
_PHRASES = frozenset(
    {
        "correcthorsebatterystaple",
        "thequickbrownfoxjumpsoverthelazydog",
        "thequickbrownfox",
        "tobeornottobe",
        "loremipsumdolorsitamet",
        "maytheforcebewithyou",
        "onceuponatime",
        "letmeinplease",
        "thisismypassword",
        "ihatepasswords",
        "iforgotmypassword",
        "changethispassword",
    }
)
_WORDS = tuple(resources.files(__package__).joinpath("common_words.txt").read_text("utf-8").split())
_SEQUENCES = ("abcdefghijklmnopqrstuvwxyz", "01234567890123456789", "qwertyuiop", "qwertzuiop", "asdfghjkl", "zxcvbnm", "yxcvbnm")
_SEQUENCE_CHARS = 4


def require_good(password: str, known: Iterable[str]) -> None:
    """Raise :class:`PasswordRefused` for a normalised password that is too short or too easy. ``known``: e-mail, name."""
    if len(password) < PASSWORD_CHARS_MIN:
        raise PasswordRefused(f"A password needs at least {PASSWORD_CHARS_MIN} characters.")
    plain = re.sub(r"[\s._\-]+", "", password.casefold())
    if plain in _PHRASES or len(set(plain)) < _DISTINCT_CHARS_MIN or len(_rest(plain, known)) < _REST_CHARS_MIN:
        raise PasswordRefused


def _rest(plain: str, known: Iterable[str]) -> str:
    personal = {piece for text in known for piece in (text.casefold(), *re.split(r"[^\w]+", text.casefold()))}
    words = {word for word in (*personal, *_PRODUCT, *_WORDS) if len(word) >= _CONTEXT_CHARS_MIN}
    for word in sorted(words, key=len, reverse=True):
        plain = plain.replace(word, "\0")
    pieces = [_without_sequences(piece) for piece in plain.split("\0")]
    rest = re.sub(rf"(.)\1{{{_RUN_CHARS_MIN - 1},}}", "", "".join(pieces))
    period = _period(rest)
    return rest[:period] if period * 2 <= len(rest) else rest


def _without_sequences(text: str) -> str:
    kept, at = "", 0
    while at < len(text):
        length = _sequence_at(text, at)
        if length >= _SEQUENCE_CHARS:
            at += length
        else:
            kept += text[at]
            at += 1
    return kept


def _sequence_at(text: str, at: int) -> int:
    longest = 1
    for line in _SEQUENCES:
        for row in (line, line[::-1]):
            length = _SEQUENCE_CHARS
            while at + length <= len(text) and text[at : at + length] in row:
                longest = max(longest, length)
                length += 1
    return longest


def _period(text: str) -> int:
    """The shortest length after which the text repeats itself; its own length when it does not."""
    return (text + text).find(text, 1) if text else 0
