"""Moves of other shapes of workspaces, of two laptops, and with a fixer at work; everything real but the model."""

from pathlib import Path

import pytest
from api_user import new_id
from laptop import email_of, laptop, project, seen_there, worktree
from nasty import Repo, base_files, seen_here
from stack import Stack

pytestmark = [pytest.mark.docker, pytest.mark.claude, pytest.mark.asyncio(loop_scope="session"), pytest.mark.timeout(240)]


async def test_sparse_detached_empty_and_without_a_remote(stack: Stack, tmp_path: Path) -> None:
    """The other shapes a workspace may have, all sent with one command: the lunch case."""
    url = await stack.git.create(f"shapes-{new_id().hex[-8:]}", base_files() | {"docs/a.md": "a\n", "docs/b.md": "b\n"})
    async with laptop(stack, tmp_path / "laptop") as home:
        await project(home, url, "shapes")
        sparse = await worktree(home, "sparse", "--project", "shapes")
        sparse.git("sparse-checkout", "set", "docs")
        sparse.write("docs/a.md", "edited\n")
        detached = await worktree(home, "detached", "--project", "shapes")
        detached.git("checkout", "-q", "--detach")
        detached.write("on-no-branch.txt", "x\n")
        detached.commit("On no branch")
        for name in ("empty", "alone"):
            folder = home.home / name
            Repo(home.home).git("init", "-q", str(folder))
            if name == "alone":
                Repo(folder).write("a.txt", "alone\n")
                Repo(folder).commit("Alone")
            await home.ff("project", "add", str(folder))
        empty = await worktree(home, "empty", "--project", "empty")
        empty.write("first.txt", "staged before any commit\n")
        empty.git("add", "first.txt")
        alone = await worktree(home, "alone", "--project", "alone")
        alone.write("b.txt", "untracked\n")

        repos = {"sparse": sparse, "detached": detached, "empty": empty, "alone": alone}
        here = {name: seen_here(repo.path) for name, repo in repos.items()}
        await home.ff("send", *repos, "--yes", limit_s=150)
        for name in repos:
            there = await seen_there(home, name)
            assert there == here[name], name
        await home.ff("exec", "empty", "--", "git", "-c", "user.name=C", "-c", "user.email=c@e", "commit", "-qm", "First")
        there = await seen_there(home, "empty")
        await home.ff("pull", "empty", limit_s=150)
        assert seen_here(empty.path) == there


async def test_both_sides_are_kept_and_only_one_laptop_owns(stack: Stack, tmp_path: Path) -> None:
    url = await stack.git.create(f"two-{new_id().hex[-8:]}", base_files())
    async with laptop(stack, tmp_path / "first") as first, laptop(stack, tmp_path / "second", await email_of(first)) as second:
        await project(first, url, "project")
        await project(second, url, "project")
        repo = await worktree(first, "shared")
        repo.write("both.txt", "of the first laptop\n")
        await first.ff("send", "shared", "--yes")
        # Local edits after the send, then a pull: both versions are there.
        repo.write("both.txt", "edited here meanwhile\n")
        await first.ff("exec", "shared", "--", "sh", "-c", "echo of the cloud > both.txt")
        said = await first.ff("pull", "shared")
        landed = Path((await first.json("status", "shared"))["workspace"]["path"])
        assert landed != repo.path
        assert (repo.path / "both.txt").read_text() == "edited here meanwhile\n"
        assert (landed / "both.txt").read_text() == "of the cloud\n"
        assert "merge" in said
        # The second laptop sees it in the cloud and takes it; the first can't write to it any more.
        await first.ff("send", "shared", "--yes")
        assert "shared" in await second.ff("ls")
        await second.ff("pull", "shared")
        where = Path((await second.json("status", "shared"))["workspace"]["path"])
        assert (where / "both.txt").read_text() == "of the cloud\n"
        refused = await first.ff("say", "shared", "%say hello", code=5)
        assert "lives on" in refused
        await first.ff("send", "shared", "--yes", code=5)


async def test_a_fixer_is_waited_for_or_stopped_both_ways(stack: Stack, tmp_path: Path) -> None:
    url = await stack.git.create(f"fixer-{new_id().hex[-8:]}", base_files())
    async with laptop(stack, tmp_path / "laptop") as home:
        await project(home, url, "project")
        await worktree(home, "fixed")
        begin = ("say", "fixed", "%stream 6000 60", "--new", "--workflow", "ratchet", "--session", "Ratchet")
        await home.ff(*begin)
        assert "wait or stop the fixer" in await home.ff("send", "fixed", "--yes", code=5)
        await home.ff("stop", "fixed")
        await home.ff("send", "fixed", "--yes")
        await home.ff("say", "fixed", "%stream 6000 60", "--session", "Ratchet")
        assert "wait or stop the fixer" in await home.ff("pull", "fixed", code=5)
        await home.ff("stop", "fixed")
        await home.ff("pull", "fixed")
