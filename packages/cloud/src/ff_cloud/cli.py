"""The command ``ff-cloud``."""

import asyncio
import json
import os
import signal
import sys
from collections.abc import Callable, Coroutine
from contextlib import suppress
from pathlib import Path
from typing import Annotated, Any

import typer

from ff_cloud.auth.signing import TokenKeys
from ff_cloud.credentials.setup import credentials_of
from ff_cloud.doctor import examine
from ff_cloud.kit.crypto import Sealer
from ff_cloud.kit.http_server import run_server, settle
from ff_cloud.kit.migrate import migrate as run_migrations
from ff_cloud.kit.postgres import embedded_postgres
from ff_cloud.kit.secrets import Secrets, master_secret
from ff_cloud.kit.telemetry import configure_logging
from ff_cloud.runtime import Say, api_of, database_beside, gateway_of, open_parts, worker_of
from ff_cloud.settings import CloudSettings, load_settings
from ff_cloud.version import VERSION
from ff_cloud.vms import image as vm_image
from ff_core.errors import FFError
from ff_core.world import SystemWorld

app = typer.Typer(no_args_is_help=True, add_completion=False, help="Factory Factory Cloud: the server.")
image_app = typer.Typer(no_args_is_help=True, help="The image that VMs are made from.")
app.add_typer(image_app, name="image")
keys_app = typer.Typer(no_args_is_help=True, help="The keys of this server.")
rotate_app = typer.Typer(no_args_is_help=True, help="Replace a key by a new one, beside a running server or without one.")
app.add_typer(keys_app, name="keys")
keys_app.add_typer(rotate_app, name="rotate")

Host = Annotated[str | None, typer.Option(help="Address to listen on (FF_HOST).")]
Port = Annotated[int | None, typer.Option(help="Port to listen on, 0 takes a free one (FF_PORT).")]
DataDir = Annotated[Path | None, typer.Option(help="Where the server keeps its data (FF_DATA_DIR).")]
AsJson = Annotated[bool, typer.Option("--json", help="Write JSON.")]


def main() -> None:
    """Run the command; an expected error is one line and exit code 1."""
    try:
        app()
    except FFError as error:
        _say(f"error: {error.detail} ({error.code})")
        sys.exit(1)


@app.command()
def serve(host: Host = None, port: Port = None, data_dir: DataDir = None) -> None:
    """Run everything in one process: API, worker and, unless FF_DATABASE_URL is set, PostgreSQL."""
    settings = _settings(host=host, port=port, data_dir=data_dir)

    async def run(stop: asyncio.Event) -> None:
        async with (
            open_parts(settings, SystemWorld(), _say) as parts,
            gateway_of(parts, _say),
            worker_of(parts, _say),
            api_of(parts) as address,
        ):
            _say(f"data       {settings.data_dir}")
            _say(f"model      {settings.model_base_url or 'the default model API'}{_key_note(settings)}")
            _say(f"listening  {address}")
            _say(f"next       ff login --server {address} --signup --email you@example.org")
            settle()
            await stop.wait()
            _say("stopping")

    _run(run)


@app.command()
def api(host: Host = None, port: Port = None, data_dir: DataDir = None) -> None:
    """Run the API alone; any number may serve one FF_DATABASE_URL."""
    settings = _settings(host=host, port=port, data_dir=data_dir)

    async def run(stop: asyncio.Event) -> None:
        async with open_parts(settings, SystemWorld(), _say) as parts, api_of(parts) as address:
            _say(f"listening  {address}")
            settle()
            await stop.wait()

    _run(run)


@app.command()
def worker(data_dir: DataDir = None) -> None:
    """Run a worker alone; any number may work for one FF_DATABASE_URL."""
    settings = _settings(data_dir=data_dir)

    async def run(stop: asyncio.Event) -> None:
        async with open_parts(settings, SystemWorld(), _say) as parts, worker_of(parts, _say):
            _say("working")
            await stop.wait()

    _run(run)


@app.command()
def gateway(data_dir: DataDir = None) -> None:
    """Run the gateway alone, beside the VMs it serves; FF_GATEWAY_URL tells the others where VMs find it."""
    settings = _settings(data_dir=data_dir)

    async def run(stop: asyncio.Event) -> None:
        async with open_parts(settings, SystemWorld(), _say) as parts, gateway_of(parts, _say):
            await stop.wait()

    _run(run)


@app.command()
def migrate(data_dir: DataDir = None) -> None:
    """Bring the database to the newest revision. Needs a login that may own the tables."""
    settings = _settings(data_dir=data_dir)

    async def run(_: asyncio.Event) -> None:
        if settings.database_url is not None:
            applied = await asyncio.to_thread(run_migrations, settings.database_url.get_secret_value())
        else:
            async with embedded_postgres(settings.data_dir / "postgres") as postgres:
                applied = await asyncio.to_thread(run_migrations, postgres.url())
        _say(f"applied {', '.join(applied)}" if applied else "nothing to do: the database is up to date")

    _run(run)


@app.command()
def doctor(as_json: AsJson = False, data_dir: DataDir = None) -> None:
    """Look at every part the server needs and say what to do about those that are not well. Exit code 1 if any is not."""
    settings = _settings(data_dir=data_dir)
    findings = asyncio.run(examine(settings))
    if as_json:
        print(json.dumps([{"part": found.part, "ok": found.ok, "message": found.message} for found in findings]))
    else:
        for found in findings:
            print(f"{'ok  ' if found.ok else 'FAIL'}  {found.part:<10} {found.message}")
    if not all(found.ok for found in findings):
        raise typer.Exit(1)


@image_app.command("build")
def image_build(
    root: Annotated[Path | None, typer.Option(help="Source tree; the one around this directory.")] = None,
    extra_ca: Annotated[Path | None, typer.Option(help="PEM file of further authorities to trust (FF_EXTRA_CA).")] = None,
    as_json: AsJson = False,
) -> None:
    """Build the image, unless one of exactly this content exists."""
    settings = _settings()
    built = asyncio.run(
        vm_image.build(
            vm_image.find_root(root or Path.cwd()),
            extra_ca=vm_image.read_extra_ca(extra_ca, os.environ),
            docker_url=settings.docker_host,
            proxies={name: os.environ[name] for name in vm_image.PROXY_VARIABLES if name in os.environ},
            progress=lambda line: _say(f"  {line}"),
        )
    )
    if as_json:
        print(json.dumps({"tag": built.tag, "bytes": built.bytes_total, "fresh": built.fresh}))
    else:
        done = "built" if built.fresh else "unchanged, nothing to build"
        print(f"{built.tag}  {built.bytes_total / 1e6:.0f} MB  {done}")


@rotate_app.command("signing")
def keys_rotate_signing(data_dir: DataDir = None) -> None:
    """Sign access tokens with a new key from now on. Nobody is logged out: the old key verifies until its last token ends."""
    settings = _settings(data_dir=data_dir)

    async def run(_: asyncio.Event) -> None:
        secrets = Secrets(master_secret(settings.secret_key, settings.data_dir))
        async with database_beside(settings) as db:
            keys = TokenKeys(db, Sealer(secrets.sealing_key))
            async with db.system_transaction() as tx:
                kid = await keys.rotate(tx, SystemWorld().now())
        _say(f"access tokens are signed with the key {kid} now")

    _run(run)


@rotate_app.command("credentials")
def keys_rotate_credentials(data_dir: DataDir = None) -> None:
    """Put users' credentials under a new key: the next derived one, or the newest of FF_CREDENTIAL_KEY_FILE."""
    settings = _settings(data_dir=data_dir)

    async def run(_: asyncio.Event) -> None:
        secrets = Secrets(master_secret(settings.secret_key, settings.data_dir))
        async with database_beside(settings) as db:
            moved = await credentials_of(settings, db=db, secrets=secrets, world=SystemWorld()).rotate()
        _say(f"{moved} credential{'' if moved == 1 else 's'} put under a new key")

    _run(run)


def _version(wanted: bool) -> None:
    if wanted:
        print(VERSION)
        raise typer.Exit


@app.callback()
def _options(
    _: Annotated[bool, typer.Option("--version", callback=_version, is_eager=True, help="Say the version.")] = False,
) -> None:
    pass


def _settings(**overrides: Any) -> CloudSettings:
    settings = load_settings(**overrides)
    configure_logging(settings.log_format)
    return settings


def _key_note(settings: CloudSettings) -> str:
    return "" if settings.model_api_key else "; each user sets a key: ff credential set anthropic_api_key"


_say: Say = lambda line: print(line, file=sys.stderr, flush=True)  # noqa: E731


def _run(body: Callable[[asyncio.Event], Coroutine[Any, Any, None]]) -> None:
    """Run ``body`` with an event that SIGINT or SIGTERM sets; a second signal ends the process at once."""

    async def main_task() -> None:
        stop = asyncio.Event()
        task = asyncio.current_task()
        loop = asyncio.get_running_loop()

        def on_signal() -> None:
            if stop.is_set() and task is not None:
                task.cancel()
            stop.set()

        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, on_signal)
        await body(stop)

    with suppress(asyncio.CancelledError):
        run_server(main_task())


if __name__ == "__main__":
    main()
