"""Any workspace comes out of its bundle as it went in: whole, and on top of what the remote has."""

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from handoff_trees import Ground, changes, files, words
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ff_core.errors import FFError

EXAMPLES = 25 * max(1, int(os.environ.get("FF_SOAK_S", "0")) // 20)
SLOW = {"deadline": None, "suppress_health_check": list(HealthCheck)}
ALLOWED = {"unmerged_index", "tracked_file_unreadable"}
"""Why such a workspace may be refused."""


@contextmanager
def ground(monkeypatch: pytest.MonkeyPatch, *, remote: bool = True) -> Iterator[Ground]:
    place = Path(tempfile.mkdtemp(prefix="ff-handoff-"))
    try:
        made = Ground(place, remote=remote)
        monkeypatch.setenv("HOME", str(made.home))
        yield made
    finally:
        shutil.rmtree(place)


@settings(max_examples=EXAMPLES, **SLOW)
@given(
    changes=changes,
    remote=st.sampled_from([True, True, True, False]),
    begun=st.sampled_from([True, True, True, False]),
    refs=st.sampled_from(["branch", "all"]),
)
def test_what_was_packed_is_what_there_is(changes: list, remote: bool, begun: bool, refs: str) -> None:
    with pytest.MonkeyPatch.context() as monkeypatch, ground(monkeypatch, remote=remote) as here:
        if begun:
            here.begin()
        for step in changes:
            here.step(step)
        before, tree = words(here, here.ws), files(here.ws)
        try:
            packed = here.pack(refs=refs, whole=True, credentials=True)
        except FFError as error:
            assert error.code in ALLOWED, error
            return
        arrived = here.unpack(packed, "whole")
        compare(here, "whole", before, tree, packed)
        assert arrived.fingerprint == packed.fingerprint
        if remote and here.have():
            packed = here.pack(refs=refs, have=here.have(), credentials=True)
            base = here.clone("base")
            here.unpack(packed, "delta", base=base)
            shutil.rmtree(base)
            compare(here, "delta", before, tree, packed)
        assert words(here, here.ws) == before
        assert files(here.ws) == tree


def compare(here: Ground, name: str, before: dict, tree: dict, packed) -> None:
    """Git's words and every byte are as they were, but for what was left behind."""
    there = here.unpacked(name)
    left = {each.path: each.reason for each in packed.contents.left_behind}
    assert set(left.values()) <= {"ignored", "special", "worktree"}
    after, found = words(here, there), files(there)
    tree, found = (without_git(before["index"], side) for side in (tree, found))
    stayed = {path for path in tree if path not in found}
    assert stayed <= {path for path in tree if is_left(here, path, left)}, left
    emptied = {path for path in found if any(each.startswith(path + b"/") for each in stayed)}
    assert {path: what for path, what in tree.items() if path in found} == {
        path: what for path, what in found.items() if path not in emptied
    }
    expected = b"\0".join(
        record
        for record in before["status"].split(b"\0")
        if not (record.startswith(b"? ") and is_left(here, record[2:].rstrip(b"/"), left))
    )
    assert after | {"status": b""} == before | {"status": b""}
    assert after["status"] == expected
    assert b"missing" not in here.git("fsck", cwd=there, check=False, home=here.root / "nobody")


def without_git(index: bytes, found: dict) -> dict:
    """Git's own part of submodules is where it is by the place."""
    dots = [record.partition(b"\t")[2] + b"/.git" for record in index.split(b"\0") if record[2:8] == b"160000"]
    return {path: what for path, what in found.items() if not any(path == dot or path.startswith(dot + b"/") for dot in dots)}


def is_left(here: Ground, path: bytes, left: dict[str, str]) -> bool:
    from ff_core.git.exact.words import shown  # noqa: PLC0415

    parts = path.split(b"/")
    return shown(path) in left or any(shown(b"/".join(parts[:count]) + b"/")[:300] in left for count in range(1, len(parts) + 1))
