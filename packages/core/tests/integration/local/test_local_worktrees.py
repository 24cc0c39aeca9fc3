"""Worktrees over real repositories: on which branch they are, from where they begin, what is left of those that fail."""

import asyncio
from pathlib import Path

import pytest

from ff_core.contract.workspace import WorkspaceStatus
from ff_core.git.errors import BranchNotFound, NotARepository
from ff_core.projects.errors import BranchCheckedOut
from ff_core.projects.worktrees import Wanted, Worktrees

FAILED = WorkspaceStatus.FAILED


def head(desktop, workspace):
    return desktop.git(Path(workspace.path), "rev-parse", "HEAD")


def current(desktop, workspace):
    return desktop.git(Path(workspace.path), "symbolic-ref", "--short", "HEAD")


async def test_a_new_workspace_begins_at_what_the_remote_has_now_in_its_place_under_its_name(desktop):
    project = await desktop.project(desktop.repository())
    theirs = desktop.push_from_elsewhere()
    made = await desktop.new("Fix the lögin")
    assert made.path == f"{project.worktrees_path}/workspace-{made.id}"
    assert (made.branch, current(desktop, made)) == ("ada-lovelace/fix-the-login",) * 2
    assert head(desktop, made) == theirs
    assert desktop.git(Path(made.path), "status", "--porcelain") == ""
    with pytest.raises(Exception, match="exit status"):  # it follows nothing
        desktop.git(Path(made.path), "rev-parse", "--abbrev-ref", "@{upstream}")
    assert (await desktop.new("fix the login")).branch == "ada-lovelace/fix-the-login-1"


async def test_the_users_name_at_github_comes_first(desktop):
    desktop.program("gh", 'test "$1 $2" = "api user" && echo AdaL')
    await desktop.project(desktop.repository())
    assert (await desktop.new()).branch == "adal/fix-it"


async def test_no_hook_runs(desktop):
    path = desktop.repository()
    hooks = path / ".git" / "hooks"
    for name in ("post-checkout", "reference-transaction"):
        (hooks / name).write_text(f"#!/bin/sh\ntouch {desktop.folder}/ran\nexit 1\n")
        (hooks / name).chmod(0o755)
    await desktop.project(path)
    await desktop.new()
    assert not (desktop.folder / "ran").exists()


async def test_without_the_remote_it_begins_here_and_says_so(desktop):
    path = desktop.repository()
    await desktop.project(path)
    (desktop.folder / "proj.git").rename(desktop.folder / "away")
    ours = desktop.commit(path, {"ours.txt": "ours"})
    made = await desktop.new()
    assert head(desktop, made) == ours
    assert "could not be asked" in desktop.said(made, "worktree")


async def test_a_remote_that_is_silent_is_waited_for_no_longer_than_said(desktop):
    path = desktop.repository(origin=False)
    desktop.git(path, "remote", "add", "origin", "ssh://nowhere.invalid/x")
    project = await desktop.project(path)
    worktrees = Worktrees({**desktop.environment, "GIT_SSH_COMMAND": "sleep 60; :"}, fetch_timeout_s=0.3)
    said = []
    async with asyncio.timeout(10):
        row = desktop.host.projects.get(project.id)
        await worktrees.make(row, desktop.folder / "made", Wanted("x", "ada", "f"), said.append)
    assert "did not answer within 0.3 s" in said[0]


async def test_an_empty_repository_gives_a_branch_that_begins_with_its_first_commit(desktop):
    path = desktop.folder / "empty"
    desktop.git(desktop.folder, "init", "-q", "-b", "main", str(path))
    await desktop.project(path)
    made = await desktop.new()
    assert current(desktop, made) == made.branch
    assert (await desktop.host.repository(made.id)).head is None
    desktop.commit(Path(made.path), {"first.txt": "1"})
    assert desktop.git(path, "log", "--format=%s", made.branch) == "more"
    assert (await desktop.new("another")).branch == "ada-lovelace/another"


async def test_another_base(desktop):
    await desktop.project(desktop.repository())
    theirs = desktop.push_from_elsewhere(branch="release/2")
    made = await desktop.new(base="release/2")
    assert head(desktop, made) == theirs
    failed = await desktop.new("x", base="nope", status=FAILED)
    assert failed.error.code == BranchNotFound.code


async def test_going_on_with_a_branch_of_the_remote(desktop):
    path = desktop.repository()
    await desktop.project(path)
    theirs = desktop.push_from_elsewhere(branch="feature")
    made = await desktop.new(branch="feature")
    assert (made.branch, head(desktop, made)) == ("feature", theirs)
    assert desktop.git(Path(made.path), "rev-parse", "--abbrev-ref", "@{upstream}") == "origin/feature"


async def test_going_on_with_a_branch_that_is_behind_its_remote_or_has_left_it(desktop):
    path = desktop.repository()
    await desktop.project(path)
    for name in ("behind", "apart"):
        desktop.git(path, "branch", name)
    theirs = {name: desktop.push_from_elsewhere(branch=name) for name in ("behind", "apart")}
    desktop.git(path, "checkout", "-q", "apart")
    ours = desktop.commit(path, {"ours.txt": "ours"})
    desktop.git(path, "checkout", "-q", "main")
    assert head(desktop, await desktop.new("a", branch="behind")) == theirs["behind"]
    apart = await desktop.new("b", branch="apart")
    assert head(desktop, apart) == ours
    assert "left as it is here" in desktop.said(apart, "worktree")


async def test_a_branch_that_is_checked_out_is_refused(desktop):
    path = desktop.repository()
    await desktop.project(path)
    first = await desktop.new()
    for branch, where in (("main", str(path)), (first.branch, first.path)):
        failed = await desktop.new("x", branch=branch, status=FAILED)
        assert failed.error.code == BranchCheckedOut.code
        assert where in failed.error.message


async def test_what_fails_leaves_neither_folder_nor_branch(desktop):
    path = desktop.repository(files={"a.txt": "a", ".gitattributes": "*.txt filter=broken\n"})
    desktop.git(path, "config", "filter.broken.smudge", "false")
    desktop.git(path, "config", "filter.broken.required", "true")
    await desktop.project(path)
    failed = await desktop.new(status=FAILED)
    assert failed.error.code == "git_failed"
    assert desktop.git(path, "branch", "--format=%(refname:short)") == "main"
    assert desktop.git(path, "worktree", "list", "--porcelain").count("worktree ") == 1
    assert list((desktop.folder / "data" / "worktrees" / "proj").iterdir()) == []


async def test_several_at_once_get_branches_of_their_own(desktop):
    await desktop.project(desktop.repository())
    made = await asyncio.gather(*(desktop.new("same") for _ in range(3)))
    assert {each.branch for each in made} == {f"ada-lovelace/same{suffix}" for suffix in ("", "-1", "-2")}


async def test_a_repository_that_is_gone(desktop):
    path = desktop.repository()
    await desktop.project(path)
    path.rename(desktop.folder / "moved")
    failed = await desktop.new(status=FAILED)
    assert failed.error.code == NotARepository.code
