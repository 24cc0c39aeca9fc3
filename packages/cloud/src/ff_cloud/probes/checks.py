"""What readiness asks of each part of a process. A check says who could not be served without it: docs/operations.md."""

import asyncio
from collections.abc import Callable

from sqlalchemy import text

from ff_cloud.kit.db import Database
from ff_cloud.kit.heartbeats import Heartbeats
from ff_cloud.kit.migrate import revisions
from ff_cloud.kit.readiness import Check, Outcome, one
from ff_cloud.kit.tenancy import OWNER_ROLE
from ff_cloud.operations.census import Census
from ff_cloud.vms.engine.base import Engine
from ff_cloud.vms.errors import DockerUnreachable
from ff_core.errors import FFError
from ff_core.world import World

DUE_AGE_S_MAX = 60.0
"""Of the oldest operation that no worker has taken on. A worker looks once a second, so this is a queue, or nobody works."""


_BECOME_OWNER = text("select set_config('role', :role, true)")


def database_check(db: Database) -> Check:
    """It answers, and is migrated as far as this program needs: without it nothing can be served."""
    known = revisions()

    async def look() -> Outcome:
        async with db.login_connection() as connection:
            await connection.execute(_BECOME_OWNER, {"role": OWNER_ROLE})
            at = (await connection.execute(text("select version_num from alembic_version"))).scalar_one_or_none()
        if at == known[-1]:
            return Outcome(ok=True, detail="answers and is up to date")
        if at in known or at is None:
            return Outcome(ok=False, detail=f"is at migration {at}, this program needs {known[-1]}: run `ff-cloud migrate`")
        return Outcome(ok=True, detail="answers; it is newer than this program")

    return one("database", look)


def loops_check(heartbeats: Heartbeats, world: World) -> Check:
    """Every loop does its work. One that fails because Docker is away is no reason to send clients elsewhere."""

    async def look() -> list[tuple[str, Outcome]]:
        now, found = world.now(), []
        for beat in heartbeats.beats():
            complaint = beat.complaint(now)
            required = beat.error != DockerUnreachable.code
            found.append((f"loop {beat.name}", Outcome(complaint is None, complaint or "works", required)))
        return found

    return Check("loops", look)


def operations_check(census: Census) -> Check:
    """What is ordered is taken on by somebody, here or in another worker."""

    async def look() -> Outcome:
        waiting, age_s = census.due
        if age_s > DUE_AGE_S_MAX:
            return Outcome(ok=False, detail=f"{waiting} wait for a worker, the oldest for {age_s:.0f} s")
        return Outcome(ok=True, detail=f"{waiting} wait for a worker")

    return one("operations", look)


def docker_check(engine: Engine, image: str) -> Check:
    """Docker Engine answers and has the image.

    Not required: what runs is reached without it, so streams, prompts, commands and logins go on; only new VMs wait.
    """

    async def look() -> Outcome:
        report = await engine.check(image)
        if not report.image_present:
            return Outcome(ok=False, detail="lacks the image of VMs: run `ff-cloud image build`")
        return Outcome(ok=True, detail="answers")

    return one("docker", look, required=False)


def gateway_check(listens: asyncio.Event, trouble: Callable[[], FFError | None]) -> Check:
    """The gateway listens. Required: without it no agent reaches its model or its repository."""

    async def look() -> Outcome:
        if listens.is_set():
            return Outcome(ok=True, detail="listens")
        error = trouble()
        return Outcome(ok=False, detail=f"does not listen yet: {error.detail}" if error else "does not listen yet")

    return one("gateway", look)
