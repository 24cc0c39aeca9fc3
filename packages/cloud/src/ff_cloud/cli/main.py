"""The commands that serve, and those that look after what serves."""

import asyncio
import json
import os
import sys
from pathlib import Path
from typing import Annotated

import typer

from ff_cloud.cli.common import AsJson, DataDir, Host, Port, run, say, settings_with
from ff_cloud.cli.keys import keys_app
from ff_cloud.cli.vms import vms_app
from ff_cloud.doctor import examine
from ff_cloud.kit.http_server import settle
from ff_cloud.kit.migrate import migrate as run_migrations
from ff_cloud.kit.postgres import embedded_postgres
from ff_cloud.runtime import api_of, gateway_of, open_parts, probes_of, worker_of
from ff_cloud.settings import CloudSettings
from ff_cloud.version import VERSION
from ff_cloud.vms import image as vm_image
from ff_core.errors import FFError
from ff_core.world import SystemWorld

app = typer.Typer(no_args_is_help=True, add_completion=False, help="Factory Factory Cloud: the server.")
image_app = typer.Typer(no_args_is_help=True, help="The image that VMs are made from.")
app.add_typer(image_app, name="image")
app.add_typer(keys_app, name="keys")
app.add_typer(vms_app, name="vms")


def main() -> None:
    """Run the command; an expected error is one line and exit code 1."""
    try:
        app()
    except FFError as error:
        say(f"error: {error.detail} ({error.code})")
        sys.exit(1)


@app.command()
def serve(host: Host = None, port: Port = None, data_dir: DataDir = None) -> None:
    """Run everything in one process: API, worker and, unless FF_DATABASE_URL is set, PostgreSQL."""
    settings = settings_with(host=host, port=port, data_dir=data_dir)

    async def body(stop: asyncio.Event) -> None:
        async with (
            open_parts(settings, SystemWorld(), say) as parts,
            gateway_of(parts, say),
            worker_of(parts, say),
            api_of(parts) as address,
            probes_of(parts, say),
        ):
            say(f"data       {settings.data_dir}")
            say(f"model      {settings.model_base_url or 'the default model API'}{_key_note(settings)}")
            say(f"listening  {address}")
            say(f"next       ff login --server {address} --signup --email you@example.org")
            settle()
            await stop.wait()
            say("stopping")

    run(body)


@app.command()
def api(host: Host = None, port: Port = None, data_dir: DataDir = None) -> None:
    """Run the API alone; any number may serve one FF_DATABASE_URL."""
    settings = settings_with(host=host, port=port, data_dir=data_dir)

    async def body(stop: asyncio.Event) -> None:
        async with (
            open_parts(settings, SystemWorld(), say) as parts,
            api_of(parts) as address,
            probes_of(parts, say),
        ):
            say(f"listening  {address}")
            settle()
            await stop.wait()

    run(body)


@app.command()
def worker(data_dir: DataDir = None) -> None:
    """Run a worker alone; any number may work for one FF_DATABASE_URL."""
    settings = settings_with(data_dir=data_dir)

    async def body(stop: asyncio.Event) -> None:
        async with open_parts(settings, SystemWorld(), say) as parts, worker_of(parts, say), probes_of(parts, say):
            say("working")
            await stop.wait()

    run(body)


@app.command()
def gateway(data_dir: DataDir = None) -> None:
    """Run the gateway alone, beside the VMs it serves; FF_GATEWAY_URL tells the others where VMs find it."""
    settings = settings_with(data_dir=data_dir)

    async def body(stop: asyncio.Event) -> None:
        async with open_parts(settings, SystemWorld(), say) as parts, gateway_of(parts, say), probes_of(parts, say):
            await stop.wait()

    run(body)


@app.command()
def migrate(data_dir: DataDir = None) -> None:
    """Bring the database to the newest revision. Needs a login that may own the tables."""
    settings = settings_with(data_dir=data_dir)

    async def body(_: asyncio.Event) -> None:
        if settings.database_url is not None:
            applied = await asyncio.to_thread(run_migrations, settings.database_url.get_secret_value())
        else:
            async with embedded_postgres(settings.data_dir / "postgres") as postgres:
                applied = await asyncio.to_thread(run_migrations, postgres.url())
        say(f"applied {', '.join(applied)}" if applied else "nothing to do: the database is up to date")

    run(body)


@app.command()
def doctor(as_json: AsJson = False, data_dir: DataDir = None) -> None:
    """Look at every part the server needs and say what to do about those that are not well. Exit code 1 if any is not."""
    settings = settings_with(data_dir=data_dir)
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
    settings = settings_with()
    built = asyncio.run(
        vm_image.build(
            vm_image.find_root(root or Path.cwd()),
            extra_ca=vm_image.read_extra_ca(extra_ca, os.environ),
            docker_url=settings.docker_host,
            proxies={name: os.environ[name] for name in vm_image.PROXY_VARIABLES if name in os.environ},
            progress=lambda line: say(f"  {line}"),
        )
    )
    if as_json:
        print(json.dumps({"tag": built.tag, "bytes": built.bytes_total, "fresh": built.fresh}))
    else:
        done = "built" if built.fresh else "unchanged, nothing to build"
        print(f"{built.tag}  {built.bytes_total / 1e6:.0f} MB  {done}")


def _version(wanted: bool) -> None:
    if wanted:
        print(VERSION)
        raise typer.Exit


@app.callback()
def _options(
    _: Annotated[bool, typer.Option("--version", callback=_version, is_eager=True, help="Say the version.")] = False,
) -> None:
    pass


def _key_note(settings: CloudSettings) -> str:
    return "" if settings.model_api_key else "; each user sets a key: ff credential set anthropic_api_key"
