"""Which names may travel: none that leaves its folder, none that is git's own anywhere."""

import os
import subprocess
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ff_core.handoff.errors import BundleBroken
from ff_core.handoff.names import checked_path, checked_plain, fault, is_git_folder

names = (
    st.lists(st.binary(min_size=1, max_size=9), min_size=1, max_size=4).map(b"/".join).filter(lambda path: fault(path) is None)
)


@pytest.mark.parametrize("name", [b"", b"a/b", b"..", b".x", b"a b", b"\xff", b"x" * 101, b"a\n"])
def test_the_spool_has_plain_names(name: bytes) -> None:
    with pytest.raises(BundleBroken):
        checked_plain(name)


@given(names, st.sampled_from([b"..", b".", b"", b"a\0"]), st.integers(0, 3))
def test_no_name_leaves_its_folder(path: bytes, bad: bytes, at: int) -> None:
    assert checked_path(path) is path
    top = b"/top"
    assert os.path.normpath(top + b"/" + path) == top + b"/" + path
    components = path.split(b"/")
    components.insert(at, bad)
    assert fault(b"/".join(components)) is not None or bad == b"" == components[0] == b""


def test_git_agrees_which_names_are_its_own(tmp_path: Path) -> None:
    ignored = ["\u200b", "\u200c", "\u200f", "\u2010", "\u202a", "\u202e", "\u2069", "\u206a", "\u206f", "\ufeff"]
    candidates = {
        *(
            f"{a}{b}".encode()
            for a in (".git", ".GIT", "git~1", "Git~1", "git~2", ".g\u0131t")
            for b in ("", ".", " ", ". .", ":x", "\\x", "x")
        ),
        *(text.encode() for mark in ignored for text in (f"{mark}.git", f".g{mark}it", f".git{mark}")),
        *(b".git\xff", b"\xff.git", b".gi", b".gitt", b" .git", b"git", b".Kit", ".g\u0130t".encode(), b".git\n", b".git:\nx"),
    }
    subprocess.run(["git", "init", "-q", tmp_path], check=True)
    empty = subprocess.run(
        ["git", "-C", tmp_path, "hash-object", "-w", "--stdin"], input=b"", check=True, capture_output=True
    ).stdout.strip()
    protected = ["git", "-c", "core.protectHFS=true", "-c", "core.protectNTFS=true", "-C", os.fsencode(tmp_path)]
    for name in candidates:
        taken = subprocess.run(
            [*protected, "update-index", "--add", "--cacheinfo", b"100644," + empty + b"," + name + b"/x"],
            check=False,
            capture_output=True,
        )
        assert is_git_folder(name) == (taken.returncode != 0), name
