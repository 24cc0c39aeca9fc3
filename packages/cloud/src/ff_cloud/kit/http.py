"""What every HTTP app of the server has: problem documents, request ids, limits; and the doors to its parts."""

from collections.abc import Sequence
from typing import Annotated, cast

from fastapi import Depends, FastAPI, Request

from ff_cloud.kit import http_problems
from ff_cloud.kit.db import Database
from ff_cloud.kit.http_metrics import counting
from ff_cloud.kit.http_middleware import BodyLimit, CatchAll, LargeBody, RequestContext, SecurityHeaders
from ff_cloud.kit.telemetry import Telemetry
from ff_core.world import World


def equip(
    app: FastAPI,
    *,
    world: World,
    body_bytes_max: int,
    larger: Sequence[LargeBody] = (),
    telemetry: Telemetry | None = None,
    https: bool = False,
) -> None:
    """Add error handlers and middlewares. Call it once, after routes and other middlewares were added and before serving.

    ``https`` says that clients reach the app over HTTPS only, as behind a proxy that ends it; ``larger`` are the exceptions from
    ``body_bytes_max``.
    """
    telemetry = telemetry or Telemetry.build(world)
    http_problems.install(app)
    # The one added last is outermost.
    app.add_middleware(BodyLimit, bytes_max=body_bytes_max, larger=larger)
    app.add_middleware(CatchAll)
    app.add_middleware(SecurityHeaders, https=https)
    answered = counting(app, telemetry.metrics.http)
    app.add_middleware(RequestContext, world=world, tracing=telemetry.tracing, answered=answered)


async def _database(request: Request) -> Database:
    return cast(Database, request.app.state.database)


Db = Annotated[Database, Depends(_database)]
"""The database, which the composition root put at ``app.state.database``."""
