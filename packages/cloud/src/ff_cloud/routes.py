"""All routers of the API, and the two probes."""

from fastapi import APIRouter

from ff_cloud.events.endpoints import router as events
from ff_cloud.kit.http import Db
from ff_cloud.operations.endpoints import router as operations
from ff_cloud.sessions.endpoints import router as sessions
from ff_cloud.version import VERSION
from ff_cloud.workspaces.endpoints import router as workspaces

probes = APIRouter(tags=["probes"])


@probes.get("/healthz")
async def healthz() -> dict[str, str]:
    """The process lives."""
    return {"status": "ok", "version": VERSION}


@probes.get("/readyz")
async def readyz(db: Db) -> dict[str, str]:
    """The process can do its work: the database answers."""
    async with db.system_transaction():
        pass
    return {"status": "ready"}


ROUTERS = (probes, workspaces, sessions, events, operations)
