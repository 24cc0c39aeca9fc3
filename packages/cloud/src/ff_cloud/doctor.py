"""Looks at every part the server needs, leaves nothing behind, and says what to do about those that are not well."""

import asyncio
import os
import secrets
from contextlib import suppress
from dataclasses import dataclass

from ff_cloud.kit.migrate import pending
from ff_cloud.kit.postgres_binaries import find_binaries
from ff_cloud.runtime import image_of
from ff_cloud.settings import CloudSettings
from ff_cloud.vms.engine.docker import docker_engine
from ff_cloud.vms.engine.options import EngineOptions
from ff_core.errors import FFError


@dataclass(frozen=True, slots=True)
class Finding:
    """How one part is, and the next step when it is not well."""

    part: str
    ok: bool
    message: str


async def examine(settings: CloudSettings) -> list[Finding]:
    """One finding per part."""
    return [_data(settings), await _database(settings), *await _docker(settings), _model(settings)]


def _data(settings: CloudSettings) -> Finding:
    place = settings.data_dir
    existing = next(path for path in (place, *place.parents) if path.exists())
    if not os.access(existing, os.W_OK):
        return Finding("data", ok=False, message=f"{existing} is not writable; set FF_DATA_DIR to a directory that is.")
    return Finding("data", ok=True, message=str(place))


async def _database(settings: CloudSettings) -> Finding:
    try:
        if settings.database_url is None:
            return Finding("database", ok=True, message=f"embedded, programs in {find_binaries()}")
        missing = await asyncio.to_thread(pending, settings.database_url.get_secret_value())
    except FFError as error:
        return Finding("database", ok=False, message=error.detail)
    if missing:
        return Finding("database", ok=False, message=f"lacks {len(missing)} migration(s): run `ff-cloud migrate`.")
    return Finding("database", ok=True, message="reachable and up to date")


async def _docker(settings: CloudSettings) -> list[Finding]:
    image = image_of(settings)
    try:
        options = EngineOptions.of(settings)
        async with docker_engine(settings.deployment_name, url=settings.docker_host, options=options) as engine:
            report = await engine.check(image)
    except FFError as error:
        return [Finding("docker", ok=False, message=error.detail)]
    present = f"{image} is there" if report.image_present else f"{image} is missing: run `ff-cloud image build`."
    return [
        Finding("docker", ok=True, message=f"Engine {report.version}, API {report.api_version}"),
        Finding("image", ok=report.image_present, message=present),
        *(await _machine(settings, image) if report.image_present else []),
    ]


async def _machine(settings: CloudSettings, image: str) -> list[Finding]:
    """What this machine can do for VMs, tried in a deployment of the doctor's own, which is removed again.

    What an operator left to us (``auto``) and does not work here is told, but is no failure.
    """
    rehearsal = f"doctor-{secrets.token_hex(4)}"
    async with docker_engine(rehearsal, url=settings.docker_host, options=EngineOptions.of(settings)) as engine:
        try:
            able, open_to = await engine.abilities(image)
        except FFError as error:
            return [Finding("vms", ok=False, message=error.detail)]
        finally:
            with suppress(FFError):
                await engine.clear()
    if settings.vm_egress == "off":
        open_to = "FF_VM_EGRESS asks for that."
    connected = "the server itself" if able.direct else f"the Docker Engine, which takes longer: {able.lacks['direct']}"
    runtime = able.runtime or f"the Docker Engine's default: {able.lacks['runtime']}"
    return [
        Finding("network", ok=True, message=f"VMs are connected by {connected}"),
        Finding("runtime", ok=True, message=runtime),
        Finding(
            "disks", ok=True, message="limited" if able.quota else f"NOT limited, one VM can fill them: {able.lacks['quota']}"
        ),
        Finding(
            "egress", ok=True, message=f"private networks are OPEN to VMs: {open_to}" if open_to else "public addresses only"
        ),
    ]


def _model(settings: CloudSettings) -> Finding:
    where = settings.model_base_url or "the default model API"
    if settings.model_api_key is None:
        return Finding("model", ok=False, message=f"no key for {where}: set FF_MODEL_API_KEY or ANTHROPIC_API_KEY.")
    return Finding("model", ok=True, message=f"a key for {where} is set")
