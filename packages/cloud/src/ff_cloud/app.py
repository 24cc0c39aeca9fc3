"""Composition root of the HTTP API: stateless, any number of them may serve one database."""

from fastapi import FastAPI

from ff_cloud import __doc__ as about
from ff_cloud.auth.setup import install_auth
from ff_cloud.events.endpoints import Streams
from ff_cloud.events.stream import EventStreams
from ff_cloud.kit.crypto import Sealer
from ff_cloud.kit.db import Database
from ff_cloud.kit.http import equip
from ff_cloud.kit.secrets import Secrets
from ff_cloud.routes import ROUTERS
from ff_cloud.sessions.service import SessionService
from ff_cloud.settings import CloudSettings
from ff_cloud.version import VERSION
from ff_cloud.vms.access import Daemons
from ff_cloud.workspaces.service import Rules, WorkspaceService
from ff_core.world import World


def make_app(*, settings: CloudSettings, db: Database, secrets: Secrets, daemons: Daemons, world: World) -> FastAPI:
    """The application. Nothing is opened here; what is passed in must stay open while it serves."""
    app = FastAPI(title="Factory Factory Cloud", version=VERSION, description=about or "", docs_url=None, redoc_url=None)
    rules = Rules(
        workspaces_max=settings.workspaces_max,
        allow_plain_http=settings.allow_plain_http_repos,
        provision_deadline_s=settings.provision_deadline_s,
        terminate_deadline_s=settings.terminate_deadline_s,
    )
    workspaces = WorkspaceService(rules=rules, sealer=Sealer(secrets.sealing_key), world=world)
    app.state.database = db
    app.state.secrets = secrets
    app.state.daemons = daemons
    app.state.workspaces = workspaces
    app.state.sessions = SessionService(db=db, workspaces=workspaces, daemons=daemons, world=world)
    app.state.streams = Streams(EventStreams(db=db, workspaces=workspaces, daemons=daemons, world=world))
    install_auth(app, settings=settings, db=db, secrets=secrets, world=world)
    for router in ROUTERS:
        app.include_router(router)
    equip(app, world=world, body_bytes_max=settings.body_bytes_max)
    return app
