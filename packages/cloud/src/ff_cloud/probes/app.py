"""The probes as an app of their own, for ``FF_METRICS_PORT``: the only door of a process that serves nothing else."""

from fastapi import FastAPI
from starlette.types import ASGIApp

from ff_cloud.kit import http_problems
from ff_cloud.kit.http_middleware import CatchAll, RequestContext
from ff_cloud.kit.telemetry import Telemetry
from ff_cloud.probes.access import MetricsAccess
from ff_cloud.probes.endpoints import router
from ff_core.world import World


def make_probes(*, telemetry: Telemetry, access: MetricsAccess, world: World) -> ASGIApp:
    """The app. Nothing is opened here. Its requests are not counted: they are asked by those who count."""
    app = FastAPI(openapi_url=None)
    install_probes(app, telemetry=telemetry, access=access)
    app.include_router(router)
    http_problems.install(app)
    return RequestContext(CatchAll(app), world=world)


def install_probes(app: FastAPI, *, telemetry: Telemetry, access: MetricsAccess) -> None:
    """What the router needs of an app."""
    app.state.telemetry = telemetry
    app.state.metrics_access = access
