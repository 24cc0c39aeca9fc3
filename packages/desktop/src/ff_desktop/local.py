"""The backend that is this machine, through ``ff serve``, with what only a desktop has: projects."""

from collections.abc import Callable, Iterator

from ff_core.contract.events import Event
from ff_core.contract.local import ImportReport, ImportRequest, NewLocalWorkspace, NewProject, ProjectView
from ff_core.contract.page import Page
from ff_core.contract.workspace import WorkspaceView
from ff_core.errors import FFError
from ff_core.ids import ProjectId, WorkspaceId
from ff_core.world import World
from ff_desktop.connection import Connection
from ff_desktop.http_backend import HttpBackend

IMPORT_TIMEOUT_S = 240.0
"""A large database is copied and read, and git asked about every folder."""


class LocalBackend(HttpBackend):
    """See ``ff_desktop.backend.Backend`` and ``Projects``. ``revive`` has ``ff serve`` started again when it is gone."""

    def __init__(
        self, connection: Connection, *, world: World, sleep: Callable[[float], None], revive: Callable[[], object]
    ) -> None:
        super().__init__(connection, world=world, sleep=sleep)
        self._revive = revive

    def create(self, spec: NewLocalWorkspace) -> WorkspaceView:
        """See ``Projects``."""
        key = str(self._world.new_id())
        return self.connection.ask("POST", "/v1/workspaces", WorkspaceView, body=spec, idempotency_key=key)

    def projects(self) -> list[ProjectView]:
        """See ``Projects``."""
        return list(self.pages("/v1/projects", Page[ProjectView], {}))

    def add_project(self, new: NewProject) -> ProjectView:
        """See ``Projects``."""
        return self.connection.ask("POST", "/v1/projects", ProjectView, body=new)

    def remove_project(self, project: ProjectId) -> None:
        """See ``Projects``."""
        self.connection.call("DELETE", f"/v1/projects/{project}")

    def import_from(self, request: ImportRequest) -> ImportReport:
        """See ``Projects``."""
        return self.connection.ask("POST", "/v1/import", ImportReport, body=request, answer_timeout_s=IMPORT_TIMEOUT_S)

    def events(self, workspace: WorkspaceId, *, after: int, lost: Callable[[str], None]) -> Iterator[Event]:
        """See ``Backend``. A server that was stopped is started again, as by any other command."""

        def lost_and_revived(reason: str) -> None:
            lost(reason)
            try:
                self._revive()
            except FFError as error:
                lost(error.detail)

        return super().events(workspace, after=after, lost=lost_and_revived)
