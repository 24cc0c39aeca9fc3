"""``make demo``: the story a stranger sees, run as he runs it, but for the set-up that ``make test`` has done already."""

import asyncio
import os
import sys
from pathlib import Path

import pytest

pytestmark = [pytest.mark.docker, pytest.mark.claude, pytest.mark.timeout(300)]


async def test_the_demo_ends_well_and_leaves_nothing() -> None:
    script = Path(__file__).parents[2] / "scripts" / "demo.py"
    environment = {name: value for name, value in os.environ.items() if name != "ANTHROPIC_API_KEY"}
    process = await asyncio.create_subprocess_exec(
        sys.executable, str(script), env=environment, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
    )
    assert process.stdout is not None
    said = (await asyncio.wait_for(process.stdout.read(), 280)).decode()
    assert await process.wait() == 0, said
    assert said.rstrip().endswith("demo: ok")
    assert "SCRIPTED" in said
    left = await asyncio.create_subprocess_exec(
        "docker", "ps", "-aq", "--filter", "name=ff-demo-", stdout=asyncio.subprocess.PIPE
    )
    assert (await left.communicate())[0] == b""
