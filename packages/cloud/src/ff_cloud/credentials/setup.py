"""How a process of the server gets at credentials."""

from ff_cloud.credentials.keyring import Keyring, read_key_file
from ff_cloud.credentials.service import Credentials
from ff_cloud.kit.db import Database
from ff_cloud.kit.secrets import Secrets
from ff_cloud.settings import CloudSettings
from ff_core.world import World


def credentials_of(settings: CloudSettings, *, db: Database, secrets: Secrets, world: World) -> Credentials:
    """Reads the key file where there is one. Raises ``KeyringUnusable``."""
    filed = read_key_file(settings.credential_key_file) if settings.credential_key_file else None
    return Credentials(
        db=db,
        keyring=Keyring(secrets.credential_root, filed),
        world=world,
        server_has_model_key=settings.model_api_key is not None,
    )
