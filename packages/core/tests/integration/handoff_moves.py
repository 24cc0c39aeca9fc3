"""What tests of exact moves do again and again: begin a workspace, move it, be refused."""

from pathlib import Path
from uuid import UUID

import pytest
from handoff_trees import Ground, files, ignored, words

from ff_core.errors import FFError
from ff_core.handoff.fingerprint import differences
from ff_core.handoff.orders import Survey
from ff_core.handoff.pack import survey

LFS = b"version https://git-lfs.github.com/spec/v1\noid sha256:" + b"a" * 64 + b"\nsize 12345\n"
SESSION = UUID("01890000-0000-7000-8000-000000000001")
PROVIDER = "3f2b8c1e-0000-4000-8000-00000000abcd"
TIMEOUT_S = 60.0


def begin(ground: Ground) -> None:
    """Something committed and pushed, something committed, something changed."""
    (ground.ws / "a").write_text("one\n")
    (ground.ws / "d").mkdir()
    (ground.ws / "d" / "b").write_text("b\n")
    ground.git("add", ".")
    ground.git("commit", "-q", "-m", "first")
    ground.git("push", "-q", "-u", "origin", "main")
    (ground.ws / "a").write_text("two\n")
    ground.git("commit", "-q", "-am", "second")


def moves(ground: Ground, *, both: bool = True, **more) -> Path:
    """It comes out as it went in, whole and as a delta; where it is."""
    before, tree = words(ground, ground.ws), files(ground.ws)
    names = []
    for whole in (True, False) if both else (True,):
        packed = ground.pack(whole=whole, have=() if whole else ground.have(), **more)
        name = "whole" if whole else "delta"
        base = None if whole else ground.clone("base")
        arrived = ground.unpack(packed, name, base=base)
        assert arrived.fingerprint == packed.fingerprint
        assert differences(arrived.fingerprint, packed.fingerprint) == ()
        there = ground.unpacked(name)
        assert words(ground, there) == before
        assert bare(files(there)) == bare(tree)
        assert ground.git("fsck", cwd=there, home=ground.root / "nobody") is not None
        names.append(there)
    assert words(ground, ground.ws) == before
    assert files(ground.ws) == tree
    return names[-1]


def bare(found: dict[bytes, tuple]) -> dict[bytes, tuple]:
    """Without what git itself has in submodules: there it is a matter of the place."""
    return {path: what for path, what in found.items() if b"/.git/" not in path and not path.endswith(b"/.git")}


def code_of(ground: Ground, **more) -> str:
    with pytest.raises(FFError) as caught:
        ground.pack(**more)
    refused = survey(Survey(repository=ground.ws, config_dir=ground.home, **more), ignored).refusals
    assert refused[0].code == caught.value.code
    assert refused[0].message == caught.value.detail
    return caught.value.code
