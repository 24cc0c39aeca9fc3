"""All workspaces of the user: those that live on this machine, and those in the cloud."""

from collections.abc import Callable
from dataclasses import dataclass
from uuid import UUID

from ff_core.contract.places import Location
from ff_core.contract.problem import RemoteProblem
from ff_core.contract.workspace import WorkspaceStatus, WorkspaceView
from ff_core.errors import FFError, NotFound
from ff_core.ids import WorkspaceId
from ff_desktop.backend import Backend
from ff_desktop.cloud import CloudBackend
from ff_desktop.errors import Ambiguous, NotLoggedIn, ServerUnreachable
from ff_desktop.local import LocalBackend

NOT_LOGGED_IN = "Not logged in, so only this machine is shown. To see the cloud: ff login --server URL"


@dataclass(frozen=True)
class Found:
    """A workspace, and whom to ask about it."""

    workspace: WorkspaceView
    backend: Backend
    here: bool
    """It is this machine's: it lives here, or what was kept of it is all there is."""
    kept: WorkspaceView | None = None
    """Of one that was sent to the cloud: this machine's old copy."""


@dataclass(frozen=True)
class Listed:
    """What could be seen, and remarks on what could not."""

    items: tuple[WorkspaceView, ...]
    notes: tuple[str, ...]


class Places:
    """``local`` gives this machine's backend, or None where there never was a project; ``cloud`` the server's.

    ``cloud`` is told whether to be patient, and raises ``NotLoggedIn``. What is found here is found without the network.
    """

    def __init__(self, local: Callable[[], LocalBackend | None], cloud: Callable[[bool], CloudBackend]) -> None:
        self._local, self._cloud = local, cloud

    def find(self, name: str) -> Found:
        """The workspace of that id or name: one that lives here, else one in the cloud.

        Raises ``NotFound``; ``Ambiguous``; for what is not here ``NotLoggedIn`` and ``ServerUnreachable``, which say what can be
        done without the cloud.
        """
        name = name.strip()
        local = self._local()
        known = [] if local is None else _named(local, name)
        here = [workspace for workspace in known if workspace.location is Location.DESKTOP]
        if here and local is not None:
            return Found(_only(here, name), local, here=True)
        if known and local is not None:
            return self._departed(_only(known, name), name, local)
        return self._in_cloud(name, alone=local is None)

    def all(self) -> Listed:
        """Every workspace, those of this machine first. What the cloud can't tell is a note, where there is more to show."""
        local = self._local()
        mine = [] if local is None else list(local.workspaces())
        try:
            theirs = list(self._cloud(not mine).workspaces())
        except NotLoggedIn:
            if local is None:
                raise
            complete = mine and all(workspace.location is Location.DESKTOP for workspace in mine)
            return Listed(tuple(mine), () if complete else (NOT_LOGGED_IN,))
        except FFError as error:
            if local is None:
                raise
            note = f"Only what this machine knows is shown: {error.detail}"
            return Listed(tuple(mine), (note,))
        here = [workspace for workspace in mine if workspace.location is Location.DESKTOP]
        ids = {workspace.id for workspace in here}
        return Listed((*here, *(workspace for workspace in theirs if workspace.id not in ids)), ())

    def _departed(self, kept: WorkspaceView, name: str, local: LocalBackend) -> Found:
        """One that was sent to the cloud: the cloud has it, this machine an old copy."""
        try:
            cloud = self._cloud(True)
            return Found(find_workspace(cloud, name), cloud, here=False, kept=kept)
        except NotFound:
            return Found(kept, local, here=True)
        except NotLoggedIn as error:
            raise NotLoggedIn(f"{kept.name} lives in the cloud; log in to reach it: ff login --server URL") from error
        except ServerUnreachable as error:
            where = f" Its folder as it was sent is {kept.path}; to go on there without the cloud: ff pull {kept.id} --force"
            raise ServerUnreachable(f"{kept.name} lives in the cloud, which can't be asked. {error.detail}{where}") from error

    def _in_cloud(self, name: str, *, alone: bool) -> Found:
        try:
            cloud = self._cloud(True)
            return Found(find_workspace(cloud, name), cloud, here=False)
        except NotLoggedIn as error:
            if alone:
                raise
            words = f"There is no workspace {name!r} on this machine; to look in the cloud, log in: ff login --server URL"
            raise NotLoggedIn(words) from error
        except ServerUnreachable as error:
            if alone:
                raise
            words = f"There is no workspace {name!r} on this machine, and the cloud can't be asked. {error.detail}"
            raise ServerUnreachable(words) from error


def find_workspace(backend: Backend, name: str) -> WorkspaceView:
    """The workspace of that id or name in one place. Raises ``NotFound``, ``Ambiguous``."""
    name = name.strip()
    found = _named(backend, name)
    if not found:
        raise NotFound(f"You have no workspace {name!r}; `ff ls` lists them.")
    return _only(found, name)


def _named(backend: Backend, name: str) -> list[WorkspaceView]:
    uuid = _as_uuid(name)
    if uuid is not None:
        try:
            workspace = backend.workspace(WorkspaceId(uuid))
        except RemoteProblem as error:
            if error.problem.status != NotFound.status:
                raise
        else:
            return [workspace]
    return [workspace for workspace in backend.workspaces(name=name) if workspace.status is not WorkspaceStatus.ARCHIVED]


def _only(found: list[WorkspaceView], name: str) -> WorkspaceView:
    if len(found) > 1:
        ids = ", ".join(str(workspace.id) for workspace in found)
        raise Ambiguous(f"{len(found)} workspaces are named {name!r}; use an id: {ids}.")
    return found[0]


def _as_uuid(text: str) -> UUID | None:
    """The UUID that ``text`` spells in its usual form, else None."""
    try:
        return UUID(text) if len(text) == 36 else None
    except ValueError:
        return None
