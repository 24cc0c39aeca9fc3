"""Status counts, from real working trees."""

import pytest

from ff_core.git.errors import GitFailed
from ff_core.git.run import Git
from ff_core.git.status import GitStatus, parse_status, status


@pytest.fixture
async def git(tmp_path):
    git = Git(tmp_path, config={"user.name": "T", "user.email": "t@example.invalid"})
    await git.text("init", "-q", "-b", "main")
    return git


async def test_before_the_first_commit(git, tmp_path):
    (tmp_path / "new\nline 🦊").touch()
    seen = await status(git)
    assert (seen.branch, seen.head, seen.untracked) == ("main", None, 1)
    assert not seen.clean


async def test_every_kind_of_change(git, tmp_path):
    for name in "abcd":
        (tmp_path / name).write_text(name * 100)
    await git.text("add", ".")
    await git.text("commit", "-qm", "one")
    await git.text("branch", "base")
    await git.text("branch", "-q", "--set-upstream-to=base")
    (tmp_path / "e").touch()
    await git.text("add", "e")
    await git.text("commit", "-qm", "two")
    assert (await status(git)).clean
    (tmp_path / "a").write_text("staged")
    await git.text("add", "a")
    (tmp_path / "a").write_text("and changed again")
    (tmp_path / "b").unlink()
    await git.text("mv", "c", "moved")
    (tmp_path / "u1").touch()
    (tmp_path / "u2").touch()
    head = await git.text("rev-parse", "HEAD")
    assert await status(git) == GitStatus(
        branch="main",
        head=head,
        upstream="base",
        ahead=1,
        behind=0,
        staged=3,  # a; c gone and moved new
        unstaged=2,  # a, b
        untracked=2,
        conflicted=0,
    )


async def test_conflicts_and_a_detached_head(git, tmp_path):
    file = tmp_path / "a"
    for branch, text in (("main", "one"), ("other", "two"), ("third", "three")):
        await git.run("checkout", "-q", "-B", branch, *(["main"] if branch != "main" else []))
        file.write_text(text)
        await git.text("add", "a")
        await git.text("commit", "-qm", branch)
    await git.text("checkout", "-q", "--detach")
    assert (await git.run("merge", "other")).exit_code == 1
    seen = await status(git)
    assert (seen.branch, seen.conflicted) == (None, 1)


def test_a_rename_record_has_two_paths():
    record = b"# branch.oid (initial)\0# branch.head x\0" + b"2 R. N... 1 1 1 a b R100 new\0? old\0? real\0"
    seen = parse_status(record)
    assert (seen.staged, seen.untracked) == (1, 1)


async def test_no_repository_is_an_error(tmp_path):
    with pytest.raises(GitFailed, match="not a git repository"):
        await status(Git(tmp_path))
