"""What is done about refs and stash entries that come into a repository where others are."""

from ff_core.git.exact.join import merged_stash, plan_refs
from ff_core.git.exact.state import RefState, StashState

A, B, C = ("a" * 40, "b" * 40, "c" * 40)


def refs(**oids: str) -> list[RefState]:
    return [RefState(name=f"refs/heads/{name}", oid=oid) for name, oid in oids.items()]


def entry(commit: str, message: str = "m") -> StashState:
    return StashState(commit=commit, who="A <a@b>", when="1 +0000", message=message)


def test_refs_are_made_moved_or_kept_beside():
    here = {b"refs/heads/mine": A, b"refs/heads/other": A, b"refs/heads/same": A, b"refs/heads/folder/x": A}
    coming = [
        *refs(mine=B, other=B, same=A, new=C, folder=B),
        RefState(name="refs/heads/same/below", oid=B),
        RefState(name="refs/tags/v1", oid=C),
        RefState(name="refs/heads/none", oid=None),
        RefState(name="refs/remotes/origin/x", oid=C),
        RefState(name="refs/stash", oid=C),
    ]
    plan = plan_refs(coming, here, movable={b"refs/heads/mine": A, b"refs/heads/other": C}, aside=b"W")
    assert plan.written == ((b"refs/heads/mine", B), (b"refs/heads/new", C), (b"refs/tags/v1", C))
    assert plan.aside == (
        (b"refs/heads/other", b"refs/ff/W/heads/other", B),
        (b"refs/heads/folder", b"refs/ff/W/heads/folder", B),
        (b"refs/heads/same/below", b"refs/ff/W/heads/same/below", B),
    )


def test_no_stash_entry_is_lost():
    first, second, third = entry(A), entry(B), entry(C)
    # It was what the other side began with: it becomes what the other side has.
    assert merged_stash([first], [first], [second], replaces=True) == [second]
    # Otherwise nothing goes, and what is known by its commit comes once.
    assert merged_stash([first], [first], [first, second], replaces=False) == [first, second]
    # What the user stashed while this went on stays on top, also when an interrupted try wrote a part.
    assert merged_stash([first], [first, second, third], [second], replaces=True) == [second, third]
    assert merged_stash([], [], [], replaces=True) == []
