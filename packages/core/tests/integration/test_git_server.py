"""The shipped git server serves real git: clone, push, credentials, size."""

import asyncio
import os
import signal
import sys

import pytest

from ff_core.git.run import Git
from ff_core.testing.git_server import GitServer

ME = {"user.name": "T", "user.email": "t@example.invalid"}


async def test_push_and_clone_of_a_large_pack(tmp_path):
    (tmp_path / "root").mkdir()
    async with GitServer(tmp_path / "root") as server:
        url = await server.create("team/app", {"README.md": "hi\n"})
        git = Git(tmp_path, config=ME, protocols=("http",))
        await git.text("clone", "-q", url, "one")
        work = Git(tmp_path / "one", config=ME, protocols=("http",))
        (tmp_path / "one/big").write_bytes(os.urandom(12_000_000))  # beyond postBuffer: sent in chunks
        await work.text("add", ".")
        await work.text("commit", "-qm", "big")
        await work.text("push", "-q", "origin", "main")
        await git.text("clone", "-q", url, "two")
        assert (tmp_path / "two/big").read_bytes() == (tmp_path / "one/big").read_bytes()
        await server.commit("team/app", {"more": "x"})
        assert await Git(tmp_path / "two", protocols=("http",)).text("ls-remote", "origin", "main") != ""
        await Git(tmp_path / "two", config=ME, protocols=("http",)).text("pull", "-q")
        assert (tmp_path / "two/more").read_text() == "x"


async def test_a_name_can_not_leave_the_root(tmp_path):
    async with GitServer(tmp_path) as server:
        for name in ("../x", "/x", "a/../b", "", ".git"):
            with pytest.raises(ValueError, match="not a repository name"):
                await server.create(name)


async def test_as_a_program_it_prints_its_address_first(tmp_path):
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "ff_core.testing.git_server", "--root", str(tmp_path), "--create", "demo"),
        env={**os.environ, "GIT_SERVER_CREDENTIAL": "u:t0ken"},
        stdout=asyncio.subprocess.PIPE,
    )
    try:
        url = (await asyncio.wait_for(process.stdout.readline(), 20)).decode().strip()
        git = Git(tmp_path, protocols=("http",))
        assert (await git.run("ls-remote", f"{url}/demo.git")).exit_code == 128
        with_token = url.replace("://", "://u:t0ken@")
        assert "refs/heads/main" in await git.text("ls-remote", f"{with_token}/demo.git")
    finally:
        process.send_signal(signal.SIGTERM)
        assert await asyncio.wait_for(process.wait(), 10) == 0
