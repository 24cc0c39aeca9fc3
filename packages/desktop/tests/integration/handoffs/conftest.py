"""A remote, a server that follows the contract or breaks, and a desktop."""

import subprocess

import pytest
from handoff_server import HandoffServer
from moving_desk import URL, Desk

from ff_core.testing.serve import serving


@pytest.fixture
def remote(tmp_path):
    """A bare repository with one commit."""
    bare, first = tmp_path / "remote.git", tmp_path / "first"
    run = lambda *words, cwd=tmp_path: subprocess.run(["git", *words], cwd=cwd, check=True, capture_output=True)  # noqa: E731
    run("init", "-q", "--bare", "-b", "main", str(bare))
    run("clone", "-q", str(bare), str(first))
    (first / "a.txt").write_text("a\n")
    (first / ".gitignore").write_text("build/\n")
    run("add", ".", cwd=first)
    run("-c", "user.name=A", "-c", "user.email=a@b", "commit", "-qm", "base", cwd=first)
    run("push", "-q", "origin", "HEAD:main", cwd=first)
    return bare


@pytest.fixture
async def server(tmp_path, remote):
    scripted = HandoffServer(tmp_path / "cloud")
    scripted.remotes = {URL: remote}
    async with serving(scripted.app()) as scripted.url:
        yield scripted


@pytest.fixture
async def desk(tmp_path, server, remote):
    made = Desk(tmp_path / "laptop", server.url, remote)
    await made.open()
    yield made
    await made.close()
