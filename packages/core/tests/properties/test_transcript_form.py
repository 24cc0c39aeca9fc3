"""The normal form of transcripts: the folder's path and the word are exchanged, nothing else is, and twice is not at all."""

import json
import os
import unicodedata
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import pytest
from claude_agent_sdk import project_key_for_directory
from hypothesis import given, settings
from hypothesis import strategies as st

from ff_core.claude.normal_form import WORD, exchanged, spelling
from ff_core.claude.transcripts import slug

HOME = b"/home/u/.claude/projects/-home-u-ff"
CLOUD = b"/workspace/home/.claude/projects/-workspace-repo"
ODD = b'/home/\xc3\xbc "x\\n/.claude/projects/-'
FOLDERS = [HOME, CLOUD, ODD]

pieces = st.sampled_from(
    [
        *FOLDERS,
        *(spelling(folder, b"x.jsonl") for folder in FOLDERS),
        WORD,
        *(token[:cut] for token in (*FOLDERS, WORD) for cut in (1, 9, -1)),
        *(token[cut:] for token in (*FOLDERS, WORD) for cut in (1, 9, -2)),
        *(b"\\n", b"\\", b"n", b"/", b":", b"-", b"_", b".", b" ", b"\n", b'"', b"\xc3", b"\x9c", b"x"),
    ]
)
texts = st.lists(pieces | st.binary(max_size=3), max_size=12).map(b"".join)


def exchange(text: bytes, folder: bytes) -> bytes:
    return b"".join(exchanged([text], folder))


@given(texts, st.sampled_from(FOLDERS), st.lists(st.integers(0, 300), max_size=20))
def test_borders_of_chunks_do_not_matter(text: bytes, folder: bytes, cuts: list[int]) -> None:
    borders = [0, *sorted(min(cut, len(text)) for cut in cuts), len(text)]
    chunks = [text[begin:end] for begin, end in pairwise(borders)]
    assert b"".join(exchanged(chunks, folder)) == exchange(text, folder)


@pytest.mark.parametrize("end", [b"", b"s", b"/x", b" "])
@pytest.mark.parametrize("begin", [b"", b"x", b"\\n", b"\\x", b" "])
@pytest.mark.parametrize("token", [HOME, WORD])
def test_a_border_may_be_anywhere(begin: bytes, token: bytes, end: bytes) -> None:
    text = b"." * 100 + begin + token + end
    for cut in range(len(text)):
        assert b"".join(exchanged([text[:cut], text[cut:]], HOME)) == exchange(text, HOME)


@settings(max_examples=400)
@given(texts, st.sampled_from(FOLDERS), st.sampled_from(FOLDERS))
def test_every_text_comes_home_as_it_left(text: bytes, here: bytes, there: bytes) -> None:
    normal = exchange(text, here)
    assert exchange(normal, here) == text
    assert exchange(exchange(normal, there), there) == normal


@pytest.mark.parametrize(
    "text",
    [
        b"Full output saved to: %s/id/tool-results/x.txt\n",
        b'{"persistedOutputPath":"%s/id/tool-results/x.txt"}',
        b"at `%s/memory/`.",
        b"%s",
        b"a line\\n%s\\n\\n%s/x",
        b"cat <%s/x >%s.",
        "\u201c%s\u201d".encode(),
    ],
)
def test_the_folder_of_the_conversation_is_the_word(text: bytes) -> None:
    text = text.replace(b"%s", HOME)
    assert exchange(text, HOME) == text.replace(HOME, WORD)
    assert exchange(exchange(text, HOME), CLOUD) == text.replace(HOME, CLOUD)


@pytest.mark.parametrize(
    "text",
    [
        HOME + b"-other/x",
        HOME + b"s",
        HOME + b"_",
        b"/backup" + HOME,
        b"/." + HOME,
        HOME[:-1],
        HOME[1:],
        b"/home/u/proj and /home/u/.claude/settings.json",
        HOME.upper(),
    ],
)
def test_nothing_else_is_touched(text: bytes) -> None:
    assert exchange(text, HOME) == text


def test_json_is_spelled_as_javascript_does() -> None:
    assert spelling(ODD, b"x.txt") == ODD
    escaped = b'/home/\xc3\xbc \\"x\\\\n/.claude/projects/-'
    assert spelling(ODD, b"a/x.jsonl") == spelling(ODD, b"x.meta.json") == escaped
    line = json.dumps({"path": os.fsdecode(ODD) + "/x"}, ensure_ascii=False).encode()
    assert json.loads(exchange(line, escaped)) == {"path": WORD.decode() + "/x"}
    assert spelling(b"/\xff", b"x.json") == b"/\xff"


def test_memory_is_flat() -> None:
    taken = given_back = most = 0

    def produced() -> Iterator[bytes]:
        nonlocal taken, most
        for _ in range(400):
            chunk = b"x" * 50_000 + b" " + HOME + b"\n"
            taken += len(chunk)
            most = max(most, taken - given_back)
            yield chunk

    for piece in exchanged(produced(), HOME):
        given_back += len(piece) + piece.count(WORD) * (len(HOME) - len(WORD))
    assert given_back == taken
    assert most < 110_000


plain = st.text(st.characters(min_codepoint=1, max_codepoint=0xFFFF, exclude_categories=["Cs"]), min_size=1, max_size=60).filter(
    lambda name: name not in {".", ".."} and unicodedata.is_normalized("NFC", name)
)


@given(st.lists(plain, max_size=8))
def test_the_slug_is_that_of_the_sdk(names: list[str]) -> None:
    cwd = Path("/nowhere-at-all", *(name.replace("/", "-") for name in names))
    if unicodedata.is_normalized("NFC", str(cwd)):
        assert slug(cwd) == project_key_for_directory(cwd)


def test_slugs_that_were_seen() -> None:
    """Of the CLI itself, 2.1.330; where the SDK says otherwise, the CLI is right."""
    base = "/srv/slugs/"
    long = "/".join(["long-part-" + "x" * 40] * 6)
    longer = "/".join(["l\u00e5ng-\U0001f600-" + "x" * 40] * 6)
    assert slug(Path(base + "plain.x_y z")) == "-srv-slugs-plain-x-y-z"
    assert slug(Path(base + "emoji-\U0001f600-\u00e9")) == "-srv-slugs-emoji-----"
    assert slug(Path(base + "e\u0301-nfd")) == "-srv-slugs-e--nfd"
    assert slug(Path(base + long)).endswith("-long-part-" + "x" * 26 + "-pknk3j")
    assert slug(Path(base + longer)).endswith("-l-ng----" + "x" * 34 + "-o464ht")
    assert slug(Path(os.fsdecode(b"/tmp/\xff/\xfe" + b"x" * 300)))
    assert slug(Path("/")) == "-"


def test_a_link_is_named_for_where_it_leads(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")
    assert slug(tmp_path / "link") == slug(tmp_path / "real") == project_key_for_directory(tmp_path / "real")
