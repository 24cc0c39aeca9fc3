"""All addresses of ``ff serve``, in one list (``ff_core.contract.local`` has them as a table)."""

from collections.abc import Callable

from starlette.routing import BaseRoute

from ff_core.host import Host
from ff_desktop.serving.control_endpoints import ControlEndpoints
from ff_desktop.serving.import_endpoints import ImportEndpoints
from ff_desktop.serving.project_endpoints import ProjectEndpoints
from ff_desktop.serving.session_endpoints import SessionEndpoints
from ff_desktop.serving.workspace_endpoints import WorkspaceEndpoints


def routes(host: Host, stop: Callable[[], None]) -> list[BaseRoute]:
    """Those of this machine's workspaces. What else ``ff serve`` does, adds its own to the list (``process.serve``)."""
    return [
        *ControlEndpoints(host, stop).routes(),
        *ProjectEndpoints(host).routes(),
        *ImportEndpoints(host).routes(),
        *WorkspaceEndpoints(host).routes(),
        *SessionEndpoints(host).routes(),
    ]
