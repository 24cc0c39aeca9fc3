"""How a process of the server gets at mirrors."""

from ff_cloud.credentials.setup import credentials_of
from ff_cloud.gateway.git_hosts import origin_of, parse_hosts
from ff_cloud.kit.db import Database
from ff_cloud.kit.heartbeats import UNHEARD, Pulse
from ff_cloud.kit.secrets import Secrets
from ff_cloud.mirrors.folders import Folders
from ff_cloud.mirrors.policy import Rules
from ff_cloud.mirrors.service import Mirrors
from ff_cloud.settings import CloudSettings
from ff_core.world import World


def mirrors_of(settings: CloudSettings, *, db: Database, secrets: Secrets, world: World, pulse: Pulse = UNHEARD) -> Mirrors:
    """The mirrors below the data directory. Raises ``KeyringUnusable`` and ``SettingsInvalid``."""
    return Mirrors(
        folders=Folders(settings.data_dir.expanduser() / "mirrors", world),
        rules=Rules(
            hosts=parse_hosts(settings.git_hosts),
            github=origin_of(settings.github_url),
            allow_plain_http=settings.allow_plain_http_repos,
            bytes_max=settings.mirror_bytes_max,
            free_bytes_min=settings.disk_free_bytes_min,
        ),
        db=db,
        credentials=credentials_of(settings, db=db, secrets=secrets, world=world),
        world=world,
        pulse=pulse,
    )
