"""How a process of the server gets at handoffs."""

from ff_cloud.handoffs.deciding import Deciding
from ff_cloud.handoffs.pieces import Pieces
from ff_cloud.handoffs.service import HandoffRules, HandoffService
from ff_cloud.kit.blobs import Blobs, open_blobs
from ff_cloud.kit.db import Database
from ff_cloud.settings import CloudSettings
from ff_cloud.workspaces.service import WorkspaceService
from ff_core.world import World


def handoff_rules_of(settings: CloudSettings) -> HandoffRules:
    """What the rules of handoffs depend on."""
    return HandoffRules(expires_s=settings.handoff_expires_s, kept_s=settings.handoff_kept_s)


def handoffs_of(settings: CloudSettings, *, workspaces: WorkspaceService, world: World) -> tuple[HandoffService, Deciding]:
    """The rules by which they begin, and by which they are decided."""
    rules = handoff_rules_of(settings)
    handoffs = HandoffService(rules=rules, workspaces=workspaces, world=world)
    return handoffs, Deciding(rules=rules, handoffs=handoffs, world=world)


def blobs_of(settings: CloudSettings) -> Blobs:
    """Where checkpoints are kept, and bundles on their way."""
    return open_blobs(settings.checkpoint_store or settings.data_dir / "checkpoints", endpoint=settings.checkpoint_s3_endpoint)


def pieces_of(settings: CloudSettings, *, db: Database, blobs: Blobs, world: World) -> Pieces:
    """The bundles of this deployment."""
    return Pieces(db=db, blobs=blobs, deployment=settings.deployment_name, world=world)
