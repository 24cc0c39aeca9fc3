"""Projects: which repository is meant by a path, and which project by what somebody typed."""

import pytest

from ff_core.errors import InvalidInput
from ff_core.git.errors import NotARepository
from ff_core.projects.errors import ProjectAmbiguous, ProjectInUse, ProjectNeeded, ProjectUnknown


async def test_a_repository_is_one_project_from_wherever_it_is_pointed_at(desktop):
    path = desktop.repository(files={"deep/er/x.txt": "x"})
    project = await desktop.project(path)
    assert (project.name, project.slug, project.path, project.default_branch) == ("proj", "proj", str(path), "main")
    assert project.repo_url == str(desktop.folder / "proj.git")
    made = await desktop.new()
    (desktop.folder / "link").symlink_to(path)
    for other in (path / "deep" / "er", desktop.folder / "link", made.path):
        assert (await desktop.project(other)).id == project.id
    again = await desktop.project(path, name="Mine", include=(".env",))
    assert (again.id, again.slug, again.name, again.include, again.workspaces) == (project.id, "proj", "Mine", (".env",), 1)
    assert desktop.host.list_projects() == [again]


async def test_slugs_are_unique_and_a_bare_repository_is_one_too(desktop):
    first = await desktop.project(desktop.repository())
    bare = await desktop.project(desktop.folder / "proj.git")
    assert (first.slug, bare.slug, bare.name) == ("proj", "proj-git", "proj")
    third = await desktop.project(desktop.repository("other", origin=False), name="proj")
    assert third.slug == "proj-1"
    made = await desktop.new(project=str(bare.id))
    assert made.path.startswith(bare.worktrees_path)


async def test_the_default_branch_is_the_remotes(desktop):
    path = desktop.repository()
    desktop.git(path, "remote", "set-head", "origin", "main")
    desktop.git(path, "checkout", "-q", "-b", "today")
    assert (await desktop.project(path)).default_branch == "main"


async def test_a_password_in_the_remotes_address_is_not_kept(desktop):
    path = desktop.repository(origin=False)
    desktop.git(path, "remote", "add", "origin", "https://ada:secret@git.example.com/a.git")
    assert (await desktop.project(path)).repo_url == "https://git.example.com/a.git"


async def test_what_is_no_repository(desktop):
    (desktop.folder / "file").touch()
    for path in (desktop.home, desktop.folder / "nothing", desktop.folder / "file"):
        with pytest.raises(NotARepository):
            await desktop.project(path)
    with pytest.raises(InvalidInput, match="absolute"):
        await desktop.project("proj")


async def test_a_hook_of_another_repository_may_have_started_us(desktop, monkeypatch):
    path = desktop.repository()
    desktop.environment["GIT_DIR"] = str(desktop.folder / "proj.git")
    await desktop.restart()
    assert (await desktop.project(path)).path == str(path)


async def test_which_project_is_meant(desktop):
    resolve = desktop.host.projects.resolve
    with pytest.raises(ProjectNeeded):
        await resolve(None, str(desktop.home))
    a, b = desktop.repository("a", origin=False), desktop.repository("b", origin=False)
    first = await desktop.project(a)
    assert (await resolve(None, str(desktop.home))).id == first.id  # the only one
    second = await desktop.project(b, name="second")
    made = await desktop.new(project="a")
    for wanted, cwd in (("a", None), (str(first.id), None), (str(a), None), (None, str(a)), (None, made.path)):
        assert (await resolve(wanted, cwd)).id == first.id
    assert (await resolve("second", str(a))).id == second.id
    with pytest.raises(ProjectNeeded):
        await resolve(None, str(desktop.home))
    with pytest.raises(ProjectUnknown):
        await resolve("third", None)
    await desktop.project(a, name="second")
    with pytest.raises(ProjectAmbiguous, match=str(first.id)):
        await resolve("second", None)


async def test_a_project_goes_when_it_has_no_workspaces_and_its_repository_stays(desktop):
    path = desktop.repository()
    project = await desktop.project(path)
    made = await desktop.new()
    with pytest.raises(ProjectInUse, match="fix it"):
        desktop.host.remove_project(project.id)
    await desktop.host.remove(made.id, force=False, wait_s=10)
    desktop.host.remove_project(project.id)
    assert desktop.host.list_projects() == []
    assert (path / "README.md").exists()
    with pytest.raises(ProjectUnknown):
        desktop.host.remove_project(project.id)
    assert (await desktop.project(path)).id != project.id
