"""Composition root of the HTTP API: stateless, any number of them may serve one database."""

from fastapi import Depends, FastAPI

from ff_cloud import __doc__ as about
from ff_cloud.admin.service import Admin
from ff_cloud.auth.setup import install_auth
from ff_cloud.authorization.setup import end_browsers, install_authorization
from ff_cloud.closing.service import Closing
from ff_cloud.credentials.setup import credentials_of
from ff_cloud.events.endpoints import Streams
from ff_cloud.events.stream import EventStreams
from ff_cloud.fleet import pool_rules_of, rules_of
from ff_cloud.handoffs.deciding import abandon
from ff_cloud.handoffs.desk import Desk
from ff_cloud.handoffs.endpoints import LARGE
from ff_cloud.handoffs.setup import blobs_of, handoffs_of, pieces_of
from ff_cloud.kit.caller import count_open_route
from ff_cloud.kit.crypto import Sealer
from ff_cloud.kit.db import Database
from ff_cloud.kit.http import equip
from ff_cloud.kit.http_document import document_problems
from ff_cloud.kit.secrets import Secrets
from ff_cloud.kit.telemetry import Telemetry
from ff_cloud.mail.service import Post
from ff_cloud.operations.run import Crash, survive
from ff_cloud.probes.access import MetricsAccess
from ff_cloud.probes.app import install_probes
from ff_cloud.routes import ROUTERS
from ff_cloud.sessions.service import SessionService
from ff_cloud.settings import CloudSettings
from ff_cloud.version import VERSION
from ff_cloud.vms.access import Daemons
from ff_cloud.vms.changes import VmChanges
from ff_cloud.workspaces.awake import Awake
from ff_cloud.workspaces.claims import Claims
from ff_cloud.workspaces.orders import Orders
from ff_cloud.workspaces.service import WorkspaceService
from ff_core.world import World


def make_app(
    *,
    settings: CloudSettings,
    db: Database,
    secrets: Secrets,
    daemons: Daemons,
    image: str,
    world: World,
    telemetry: Telemetry,
    crash: Crash = survive,
) -> FastAPI:
    """The application. Nothing is opened here; what is passed in must stay open while it serves.

    Whoever serves it runs ``app.state.changes`` beside it, and closes ``app.state.claims`` afterwards. ``crash``: what
    happens at the places where a request may die, for tests.
    """
    app = FastAPI(
        title="Factory Factory Cloud",
        version=VERSION,
        description=about or "",
        docs_url=None,
        redoc_url=None,
        dependencies=[Depends(count_open_route)],
    )
    for router in ROUTERS:
        app.include_router(router)
    workspaces = WorkspaceService(
        rules=rules_of(settings, image),
        sealer=Sealer(secrets.sealing_key),
        world=world,
        on_refused=telemetry.metrics.admission.refused,
        on_delete=abandon,
    )
    orders = Orders(db=db, world=world)
    changes = VmChanges(db, world)
    awake = Awake(
        db=db,
        workspaces=workspaces,
        daemons=daemons,
        orders=orders,
        changes=changes,
        world=world,
        wait_s_max=settings.wake_wait_s,
    )
    app.state.database = db
    app.state.secrets = secrets
    app.state.daemons = daemons
    app.state.workspaces = workspaces
    app.state.orders = orders
    app.state.changes = changes
    app.state.awake = awake
    app.state.claims = Claims(db=db, daemons=daemons, image=image, world=world, metrics=telemetry.metrics.pool, crash=crash)
    handoffs, deciding = handoffs_of(settings, workspaces=workspaces, world=world)
    app.state.handoff_desk = Desk(
        db=db,
        handoffs=handoffs,
        deciding=deciding,
        pieces=pieces_of(settings, db=db, blobs=blobs_of(settings), world=world),
        daemons=daemons,
        changes=changes,
        metrics=telemetry.metrics.handoffs,
        world=world,
        wait_s_max=settings.wake_wait_s,
        crash=crash,
    )
    credentials = credentials_of(settings, db=db, secrets=secrets, world=world)
    app.state.credentials = credentials
    app.state.sessions = SessionService(
        db=db,
        workspaces=workspaces,
        awake=awake,
        daemons=daemons,
        require_model_key=credentials.require_model_key,
        world=world,
    )
    streams = EventStreams(db=db, workspaces=workspaces, daemons=daemons, world=world)
    app.state.streams = Streams(streams, telemetry.metrics.events)
    install_probes(app, telemetry=telemetry, access=MetricsAccess(settings.metrics_token, settings.public_url is not None))
    install_auth(app, settings=settings, db=db, secrets=secrets, world=world, end_browsers=end_browsers)
    install_authorization(app, settings=settings, db=db, secrets=secrets, world=world)
    recovery = app.state.recovery
    post = Post(Sealer(secrets.sealing_key), world)
    app.state.closing = Closing(db=db, recovery=recovery, post=post, world=world)
    app.state.admin = Admin(db=db, recovery=recovery, pool=pool_rules_of(settings), image=image, world=world)
    document_problems(app)
    https = (settings.public_url or "").startswith("https:")
    equip(app, world=world, body_bytes_max=settings.body_bytes_max, larger=LARGE, telemetry=telemetry, https=https)
    return app
