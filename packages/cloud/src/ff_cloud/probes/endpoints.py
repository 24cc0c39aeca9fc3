"""The probes over HTTP: ``/healthz``, ``/readyz``, ``/metrics``."""

import asyncio
from typing import Annotated, cast

from fastapi import APIRouter, Depends, Request, Response

from ff_cloud.kit.metrics import CONTENT_TYPE
from ff_cloud.kit.readiness import ReadinessView
from ff_cloud.kit.telemetry import Telemetry
from ff_cloud.probes.access import MetricsAccess
from ff_cloud.version import VERSION

router = APIRouter(tags=["probes"])


async def _telemetry(request: Request) -> Telemetry:
    return cast(Telemetry, request.app.state.telemetry)


async def _allowed(request: Request) -> None:
    access = cast(MetricsAccess, request.app.state.metrics_access)
    peer = None if request.client is None else request.client.host
    access.require(peer, request.headers)


TheTelemetry = Annotated[Telemetry, Depends(_telemetry)]


@router.get("/healthz")
async def healthz() -> dict[str, str]:
    """The process lives."""
    return {"status": "ok", "version": VERSION}


@router.get("/readyz", responses={503: {"model": ReadinessView, "description": "A part that is required is not well"}})
async def readyz(telemetry: TheTelemetry, response: Response) -> ReadinessView:
    """The process can do its work; a part that is not well is named. Asked as often as you like: an answer is up to 1 s old."""
    report = await telemetry.readiness.report()
    if report.status == "unready":
        response.status_code = 503
    return report


@router.get("/metrics", dependencies=[Depends(_allowed)], include_in_schema=False)
async def metrics(telemetry: TheTelemetry) -> Response:
    """All numbers of this process, for Prometheus."""
    return Response(await asyncio.to_thread(telemetry.metrics.exposition), media_type=CONTENT_TYPE)
