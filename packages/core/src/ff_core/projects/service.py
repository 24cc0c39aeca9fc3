"""The projects of this desktop, by their rules."""

import asyncio
from collections.abc import Mapping
from pathlib import Path

from ff_core.contract.local import NewProject
from ff_core.errors import FFError, InvalidInput
from ff_core.git import local
from ff_core.ids import ProjectId
from ff_core.projects import naming
from ff_core.projects import repository as rows
from ff_core.projects.errors import ProjectAmbiguous, ProjectInUse, ProjectNeeded, ProjectUnknown
from ff_core.projects.repository import Project
from ff_core.store.engine import Store
from ff_core.workspaces import repository as workspaces
from ff_core.world import World


class Projects:
    """Rules over the rows; ``environment`` is the user's."""

    def __init__(self, store: Store, world: World, environment: Mapping[str, str]) -> None:
        self._store, self._world, self._environment = store, world, environment

    async def add(self, new: NewProject) -> Project:
        """Know the repository at (or around) a path. The same repository again is the same project, brought up to date.

        Raises ``InvalidInput`` for a path that is not absolute, ``NotARepository``, or what git says.
        """
        path = Path(new.path)
        if not path.is_absolute() or "\0" in new.path:
            raise InvalidInput("The path of a project must be absolute.")
        found = await local.find(path, self._environment)
        top = await asyncio.to_thread(found.path.resolve)
        with self._store.transaction() as tx:
            known = rows.at(tx, top)
            project = Project(
                id=known.id if known else ProjectId(self._world.new_id()),
                name=new.name or (known.name if known else top.name.removesuffix(".git") or "project"),
                slug=known.slug if known else naming.free(naming.slug(new.name or top.name) or "project", rows.slugs(tx)),
                path=top,
                default_branch=found.default_branch,
                repo_url=found.origin,
                include=tuple(new.include or (known.include if known else ())),
                created_at=known.created_at if known else self._world.now(),
            )
            rows.renew(tx, project) if known else rows.insert(tx, project)
        return project

    def all(self) -> list[Project]:
        """All projects, oldest first."""
        return rows.all_of(self._store)

    def get(self, project_id: ProjectId) -> Project:
        """A project. Raises ``ProjectUnknown``."""
        found = rows.find(self._store, project_id)
        if found is None:
            raise ProjectUnknown
        return found

    def remove(self, project_id: ProjectId) -> None:
        """Forget a project; its repository is left as it is. Raises ``ProjectUnknown``, ``ProjectInUse``."""
        project = self.get(project_id)
        with self._store.transaction() as tx:
            names = [workspace.name for workspace in workspaces.of_project(tx, project_id)]
            if names:
                raise ProjectInUse(f"The project {project.name} has workspaces ({', '.join(names[:5])}); remove them first.")
            workspaces.leave_project(tx, project_id)
            rows.delete(tx, project_id)

    async def resolve(self, wanted: str | None, cwd: str | None) -> Project:
        """The project of that id, name, slug or path; without ``wanted`` that of the folder ``cwd``, else the only one.

        Raises ``ProjectUnknown``, ``ProjectAmbiguous``, ``ProjectNeeded``.
        """
        known = self.all()
        if wanted is not None:
            return await self._named(known, wanted)
        here = None if cwd is None else await self._around(known, Path(cwd))
        if here is not None:
            return here
        if len(known) == 1:
            return known[0]
        raise ProjectNeeded

    async def _named(self, known: list[Project], wanted: str) -> Project:
        found = [project for project in known if wanted in {str(project.id), project.name, project.slug, str(project.path)}]
        if not found and Path(wanted).is_absolute():
            around = await self._around(known, Path(wanted))
            found = [] if around is None else [around]
        if not found:
            raise ProjectUnknown(f"There is no project {wanted!r}; `ff project ls` lists them.")
        if len(found) > 1:
            ids = ", ".join(str(project.id) for project in found)
            raise ProjectAmbiguous(f"{len(found)} projects are named {wanted!r}; use an id: {ids}.")
        return found[0]

    async def _around(self, known: list[Project], folder: Path) -> Project | None:
        if not known or not folder.is_absolute():
            return None
        try:
            repository = await local.find(folder, self._environment)
        except FFError:
            return None
        top = await asyncio.to_thread(repository.path.resolve)
        return next((project for project in known if project.path == top), None)
