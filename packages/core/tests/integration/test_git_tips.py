"""Which commits a remote and this repository have in common."""

import os

import pytest

from ff_core.git.errors import RepoNotFound, RepoUnreachable
from ff_core.git.local import users_git
from ff_core.git.tips import known_commits, remote_tips


@pytest.fixture
async def clone(server, tmp_path):
    url = await server.create("proj", {"a.txt": "a\n"})
    git = users_git(tmp_path, dict(os.environ))
    await git.text("clone", "--quiet", url, "clone")
    return git.at(tmp_path / "clone")


async def test_tips_of_the_remote_that_are_here(clone, server):
    head = await clone.text("rev-parse", "HEAD")
    await clone.text("-c", "user.name=A", "-c", "user.email=a@b", "tag", "-a", "-m", "v", "v1")
    await clone.text("push", "--quiet", "origin", "v1")
    assert await remote_tips(clone) == (head,)
    # What others pushed is not here, so nothing can be built on it.
    await server.commit("proj", {"b.txt": "b\n"})
    assert await remote_tips(clone) == (head,)
    await clone.text("fetch", "--quiet")
    assert set(await remote_tips(clone)) == {head, await clone.text("rev-parse", "origin/main")}


async def test_a_remote_that_can_not_be_asked(clone):
    await clone.text("remote", "set-url", "origin", "http://127.0.0.1:9/gone.git")
    with pytest.raises(RepoUnreachable):
        await remote_tips(clone)
    await clone.text("remote", "remove", "origin")
    with pytest.raises(RepoNotFound):
        await remote_tips(clone)


async def test_what_is_known_here(clone, tmp_path):
    head = await clone.text("rev-parse", "HEAD")
    for number in range(3):
        words = ("-c", "user.name=A", "-c", "user.email=a@b", "commit", "--quiet", "--allow-empty", "-m", str(number))
        await clone.text(*words)
    recent = (await clone.text("rev-list", "HEAD")).split()
    assert await known_commits(clone, "main", limit=9) == tuple(recent)
    assert await known_commits(clone, None, limit=9) == (recent[0], head)
    assert await known_commits(clone, "nope", limit=1) == (recent[0],)
    await clone.at(tmp_path).text("clone", "--quiet", "--depth=1", f"file://{tmp_path}/clone", "shallow")
    assert await known_commits(clone.at(tmp_path / "shallow"), "main", limit=9) == ()
