"""What no VM needs any more: containers and volumes without a row, images that nothing is made from. For a command.

The reconciler removes the first by itself; this says what it would do, and does it also where no worker runs.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta

from ff_cloud.kit.db import Database
from ff_cloud.vms.engine.base import Engine, ImageSeen, Observed
from ff_cloud.vms.engine.errors import ImageInUse
from ff_cloud.vms.repository import SystemVmRepository
from ff_cloud.vms.service import images_in_use
from ff_core.ids import VmId
from ff_core.world import World


@dataclass(frozen=True, slots=True)
class Garbage:
    """What may go."""

    orphans: tuple[Observed, ...]
    """Of this deployment, and without a row."""
    images: tuple[ImageSeen, ...]


@dataclass(frozen=True, slots=True)
class Collected:
    """What went. ``bytes_freed`` counts the images' layers, which images that stay may share."""

    orphans: tuple[VmId, ...]
    images: tuple[str, ...]
    images_kept: tuple[str, ...]
    """Something still needs them, such as a container of another deployment on this engine."""
    bytes_freed: int


async def find(*, db: Database, engine: Engine, present: Iterable[str], keep: timedelta, world: World) -> Garbage:
    """Look, and change nothing. ``present`` are the images that new VMs are made from; younger ones than ``keep`` stay too."""
    # In this order: rows are written before containers are made, so what is seen first and has no row later is nobody's.
    seen = await engine.observe_all()
    images = await engine.images()
    async with db.system_transaction() as tx:
        known = {vm.id for vm in await SystemVmRepository(tx).everything()}
        used = await images_in_use(tx)
    orphans = tuple(observed for observed in seen if observed.vm_id not in known)
    return Garbage(orphans, unused(images, used | set(present), made_before=world.now() - keep))


def unused(images: Iterable[ImageSeen], used: set[str], *, made_before: datetime) -> tuple[ImageSeen, ...]:
    """The old ones, none of whose names is used. Pure."""
    return tuple(image for image in images if image.made_at < made_before and not used & {image.id, *image.tags})


async def collect(garbage: Garbage, engine: Engine) -> Collected:
    """Remove it; what is needed after all stays. May be repeated."""
    for observed in garbage.orphans:
        await engine.remove(observed.vm_id)
    gone, kept = [], []
    for image in garbage.images:
        try:
            await engine.remove_image(image.id)
        except ImageInUse:
            kept.append(image)
        else:
            gone.append(image)
    return Collected(
        orphans=tuple(observed.vm_id for observed in garbage.orphans),
        images=tuple(name_of(image) for image in gone),
        images_kept=tuple(name_of(image) for image in kept),
        bytes_freed=sum(image.bytes_total for image in gone),
    )


def name_of(image: ImageSeen) -> str:
    """How people know it."""
    return image.tags[0] if image.tags else image.id
