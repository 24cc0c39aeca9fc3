"""All routers of the API."""

from ff_cloud.admin.endpoints import router as admin
from ff_cloud.audit.endpoints import router as audit
from ff_cloud.authorization.mail_pages import router as mail_pages
from ff_cloud.closing.endpoints import router as closing
from ff_cloud.credentials.endpoints import router as credentials
from ff_cloud.events.endpoints import router as events
from ff_cloud.gateway.endpoints import router as usage
from ff_cloud.handoffs.endpoints import router as handoffs
from ff_cloud.operations.endpoints import router as operations
from ff_cloud.probes.endpoints import router as probes
from ff_cloud.sessions.endpoints import router as sessions
from ff_cloud.workspaces.endpoints import router as workspaces
from ff_cloud.workspaces.limits_endpoints import router as limits

# A request tries them in this order: those first whose answers are waited for.
ROUTERS = (
    workspaces,
    sessions,
    events,
    operations,
    handoffs,
    probes,
    admin,
    closing,
    limits,
    mail_pages,
    credentials,
    usage,
    audit,
)
