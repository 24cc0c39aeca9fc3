"""The door put together: routes, errors, who may call."""

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp

from ff_core.daemon.auth import Auth
from ff_core.daemon.endpoints import Endpoints
from ff_core.daemon.execution import Execution
from ff_core.daemon.following import HEARTBEAT_S
from ff_core.daemon.problems import on_bug, on_error, on_http_exception
from ff_core.daemon.settings import DaemonSettings
from ff_core.engine import Engine
from ff_core.errors import FFError


def make_app(engine: Engine, execution: Execution, settings: DaemonSettings, *, heartbeat_s: float = HEARTBEAT_S) -> ASGIApp:
    """The daemon as an ASGI application; ``engine`` and ``execution`` are closed by whoever made them."""
    app = Starlette(
        routes=Endpoints(engine, execution, settings, heartbeat_s=heartbeat_s).routes(),
        exception_handlers={FFError: on_error, HTTPException: on_http_exception, Exception: on_bug},
    )
    app.router.redirect_slashes = False
    return Auth(app, settings)
