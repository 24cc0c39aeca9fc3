"""Clouds of a test's own, and what containers need."""

import asyncio
import shutil
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from api_user import User
from handing import Made, make_bundle
from here import Enter, Here
from sqlalchemy import text

from ff_cloud.kit.db import Database
from ff_cloud.testing.cloud import whole_cloud
from ff_cloud.testing.server import scratch_folder
from ff_cloud.testing.vm_image import image_running
from ff_cloud.testing.vm_network import VmNetwork, vm_network


@pytest.fixture(scope="module")
def image() -> Iterator[str]:
    """One whose containers sleep."""
    with image_running(["sleep", "infinity"]) as tag:
        yield tag


@pytest.fixture
async def network() -> AsyncIterator[VmNetwork]:
    """For VMs, and the name of a deployment of the test's own."""
    async with vm_network() as made:
        yield made


@pytest.fixture
def folder() -> Iterator[Path]:
    """One that other users may pass through."""
    place = scratch_folder("ff-here-")
    yield place
    shutil.rmtree(place, ignore_errors=True)


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    """A bundle of a workspace that no server knows."""
    return asyncio.run(make_bundle(tmp_path_factory.mktemp("made")))


@pytest.fixture
def here(db: Database, folder: Path) -> Enter:
    """Enter it with settings; ``workers`` may be 0."""

    @asynccontextmanager
    async def enter(**settings: Any) -> AsyncIterator[Here]:
        async with whole_cloud(db, folder, **settings) as (cloud, engine, url), User.sign_up(url) as user:
            async with db.system_transaction() as tx:
                await tx.execute(text("update users set plan = 'team' where email = :email"), {"email": user.email})
            yield Here(cloud, engine, url, user)

    return enter
