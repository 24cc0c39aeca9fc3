"""``ff-cloud keys``: the keys of this server."""

import asyncio

import typer

from ff_cloud.auth.signing import TokenKeys
from ff_cloud.cli.common import DataDir, run, say, settings_with
from ff_cloud.credentials.setup import credentials_of
from ff_cloud.kit.crypto import Sealer
from ff_cloud.kit.secrets import Secrets, master_secret
from ff_cloud.runtime import database_beside
from ff_core.world import SystemWorld

keys_app = typer.Typer(no_args_is_help=True, help="The keys of this server.")
rotate_app = typer.Typer(no_args_is_help=True, help="Replace a key by a new one, beside a running server or without one.")
keys_app.add_typer(rotate_app, name="rotate")


@rotate_app.command("signing")
def keys_rotate_signing(data_dir: DataDir = None) -> None:
    """Sign access tokens with a new key from now on. Nobody is logged out: the old key verifies until its last token ends."""
    settings = settings_with(data_dir=data_dir)

    async def body(_: asyncio.Event) -> None:
        secrets = Secrets(master_secret(settings.secret_key, settings.data_dir))
        async with database_beside(settings) as db:
            keys = TokenKeys(db, Sealer(secrets.sealing_key))
            async with db.system_transaction() as tx:
                kid = await keys.rotate(tx, SystemWorld().now())
        say(f"access tokens are signed with the key {kid} now")

    run(body)


@rotate_app.command("credentials")
def keys_rotate_credentials(data_dir: DataDir = None) -> None:
    """Put users' credentials under a new key: the next derived one, or the newest of FF_CREDENTIAL_KEY_FILE."""
    settings = settings_with(data_dir=data_dir)

    async def body(_: asyncio.Event) -> None:
        secrets = Secrets(master_secret(settings.secret_key, settings.data_dir))
        async with database_beside(settings) as db:
            moved = await credentials_of(settings, db=db, secrets=secrets, world=SystemWorld()).rotate()
        say(f"{moved} credential{'' if moved == 1 else 's'} put under a new key")

    run(body)
