"""``ff project``: the repositories of this machine that workspaces are made from."""

from pathlib import Path
from typing import Annotated

import typer

from ff_core.contract.base import dump
from ff_core.contract.local import NewProject, ProjectView
from ff_core.errors import NotFound
from ff_desktop.cli.choosing import request_of
from ff_desktop.cli.shell import JsonFlag, command, shell_of
from ff_desktop.errors import Ambiguous

project = typer.Typer(no_args_is_help=True, rich_markup_mode=None, help="Repositories of this machine, to make workspaces from.")


@project.command("add")
@command
def add(
    context: typer.Context,
    path: Annotated[str, typer.Argument(metavar="PATH", help="A git repository, or a folder in one.", show_default=False)],
    name: Annotated[str | None, typer.Option(help="What to call it. [default: its folder]")] = None,
    include: Annotated[
        list[str] | None,
        typer.Option(
            metavar="PATTERN", help="Ignored files that travel to the cloud with a workspace, as in .gitignore; may be repeated."
        ),
    ] = None,
    _json: JsonFlag = False,
) -> None:
    """Know a repository. The same one again brings what is known of it up to date."""
    shell = shell_of(context)
    there = str(Path(path).expanduser().absolute())
    added = shell.desktop.local().add_project(request_of(NewProject, path=there, name=name, include=tuple(include or ())))
    shell.screen.object(added)
    shell.screen.say(f"{added.name} is {added.path}, default branch {added.default_branch}. Next: ff new NAME")


@project.command("ls")
@command
def ls(context: typer.Context, _json: JsonFlag = False) -> None:
    """List projects."""
    shell = shell_of(context)
    found = shell.desktop.local().projects() if shell.desktop.settings.has_local_state else []
    shell.screen.object({"items": [dump(one) for one in found]})
    rows = [(one.name, one.path, one.default_branch, one.repo_url or "", str(one.workspaces), str(one.id)) for one in found]
    shell.screen.table(("NAME", "PATH", "BRANCH", "REPOSITORY", "WORKSPACES", "ID"), rows)
    if not found:
        shell.screen.note("No projects. Add a repository: ff project add PATH")


@project.command("rm")
@command
def rm(
    context: typer.Context,
    name: Annotated[str, typer.Argument(metavar="NAME", help="The project's name, path or id.", show_default=False)],
    _json: JsonFlag = False,
) -> None:
    """Forget a project. Its repository stays as it is; refused while it has workspaces."""
    shell = shell_of(context)
    backend = shell.desktop.local()
    chosen = _chosen(backend.projects(), name)
    backend.remove_project(chosen.id)
    shell.screen.object({"removed": str(chosen.id)})
    shell.screen.say(f"{chosen.name} is forgotten; {chosen.path} is as it was.")


def _chosen(known: list[ProjectView], name: str) -> ProjectView:
    path = str(Path(name).expanduser().resolve())
    found = [one for one in known if name in {str(one.id), one.name, one.slug} or one.path == path]
    if not found:
        raise NotFound(f"There is no project {name!r}; `ff project ls` lists them.")
    if len(found) > 1:
        ids = ", ".join(str(one.id) for one in found)
        raise Ambiguous(f"{len(found)} projects are named {name!r}; use an id: {ids}.")
    return found[0]
