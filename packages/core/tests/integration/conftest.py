"""What tests of checkouts need: repositories to clone, and a folder for a workspace and its user."""

import os
import shutil
import tempfile
from pathlib import Path

import pytest

from ff_core.testing.git_server import GitServer


@pytest.fixture
async def server(tmp_path):
    (tmp_path / "served").mkdir()
    async with GitServer(tmp_path / "served") as server:
        yield server


@pytest.fixture
def root():
    root = Path(tempfile.mkdtemp(prefix="ff-ws-"))  # pytest's own folders can't be entered by another user
    root.chmod(0o755)
    (root / "home").mkdir()
    if os.geteuid() == 0:
        os.chown(root / "home", 1000, 1000)
    yield root
    shutil.rmtree(root)
