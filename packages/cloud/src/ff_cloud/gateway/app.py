"""Composition root of the gateway: an app of its own, so that VMs reach this and neither the API nor the database."""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Mount, Route
from starlette.types import ASGIApp

from ff_cloud.credentials.setup import credentials_of
from ff_cloud.gateway import model
from ff_cloud.gateway.counting import Counted
from ff_cloud.gateway.door import Door
from ff_cloud.gateway.git import GitGateway
from ff_cloud.gateway.git_caller import Callers
from ff_cloud.gateway.git_hosts import origin_of, parse_hosts
from ff_cloud.gateway.git_relay import upstream_client
from ff_cloud.gateway.github_rest import GitHubGateway
from ff_cloud.gateway.model import ModelGateway
from ff_cloud.gateway.prices import Price
from ff_cloud.gateway.recorder import Recorder
from ff_cloud.gateway.relay import model_client
from ff_cloud.kit.db import Database
from ff_cloud.kit.http_middleware import CatchAll, RequestContext
from ff_cloud.kit.secrets import Secrets
from ff_cloud.kit.telemetry import Telemetry
from ff_cloud.settings import CloudSettings
from ff_core.world import World


@asynccontextmanager
async def open_gateway(
    *, settings: CloudSettings, db: Database, secrets: Secrets, world: World, telemetry: Telemetry
) -> AsyncIterator[ASGIApp]:
    """The app, with its pools and its writer of usage, for the length of the block. Raises ``KeyringUnusable``."""
    credentials = credentials_of(settings, db=db, secrets=secrets, world=world)
    door = Door(db=db, token_key=secrets.gateway_token_key, credentials=credentials)
    prices = {name: Price(*pair) for name, pair in settings.model_prices.items()}
    recorder = Recorder(db=db, world=world, prices=prices, pulse=telemetry.heartbeats.pulse("usage", every_s=None))
    async with model_client() as http, upstream_client() as outside, recorder.recording():
        models = ModelGateway(
            door=door,
            http=http,
            recorder=recorder,
            base_url=settings.model_base_url,
            server_key=settings.model_api_key,
        )
        callers = Callers(door)
        git = GitGateway(
            hosts=parse_hosts(settings.git_hosts), github=origin_of(settings.github_url), callers=callers, http=outside
        )
        github = GitHubGateway(api_url=settings.github_api_url, callers=callers, http=outside)
        others = [*git.routes(), *github.routes()]
        yield make_gateway(models=models, others=others, world=world, telemetry=telemetry)


def make_gateway(
    *, models: ASGIApp, others: Sequence[BaseRoute] = (), world: World, telemetry: Telemetry | None = None
) -> ASGIApp:
    """The app. Nothing is opened here."""
    telemetry = telemetry or Telemetry.build(world)
    routes = [Mount(model.PREFIX, models), Route("/api/hello", _hello, methods=["HEAD"]), *others]
    app = Counted(CatchAll(Starlette(routes=routes)), telemetry.metrics.gateway)
    return RequestContext(app, world=world, tracing=telemetry.tracing)


async def _hello(_request: Request) -> Response:
    """Agents ask the host they were given whether it is there."""
    return Response()
