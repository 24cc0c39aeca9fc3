"""The real ``ff`` against the real server: what a person types."""

import asyncio
import json
import signal
from pathlib import Path

import pytest
from api_user import PASSWORD, new_id
from stack import Stack
from terminal import Terminal

pytestmark = [pytest.mark.docker, pytest.mark.claude, pytest.mark.asyncio(loop_scope="session")]


async def test_a_day_at_the_terminal(stack: Stack, tmp_path: Path) -> None:
    home = Terminal(tmp_path)
    email = f"{new_id().hex[-12:]}@example.com"
    assert "ff login" in await home.ff("ls", code=3)
    login = ("login", "--server", stack.url, "--email", email, "--password-stdin")
    await home.ff(*login, "--signup", stdin=PASSWORD.encode())
    assert json.loads(await home.ff("whoami", "--json"))["user"]["email"] == email
    assert home.readable_by_others() == []

    url = await stack.git.create(f"terminal-{new_id().hex[-8:]}", {"README.md": "# here\n"})
    made = json.loads(await home.ff("new", "my work", "--cloud", "--repo", url, "--json"))
    assert made["status"] == "READY"
    assert "my work" in await home.ff("ls")
    assert await home.ff("exec", "my work", "--", "cat", "README.md") == "# here\n"
    await home.ff("exec", "my work", "--", "sh", "-c", "exit 9", code=9)

    await home.ff("say", "my work", "%bash touch asked.txt\n%say Done asking.", "--wait", code=7)
    assert "touch asked.txt" in await home.ff("status", "my work")
    watching = await home.start("watch", "my work", "--json")
    assert watching.stdout is not None
    await home.ff("answer", "my work", "--allow")
    async with asyncio.timeout(60):
        kinds = []
        while "turn.finished" not in kinds:
            kinds.append(json.loads(await watching.stdout.readline())["body"]["kind"])
    watching.send_signal(signal.SIGINT)
    assert await asyncio.wait_for(watching.wait(), 20) == 130
    assert {"session.started", "permission.requested", "permission.resolved", "tool.finished"} <= set(kinds)
    assert await home.ff("exec", "my work", "--", "ls", "asked.txt") == "asked.txt\n"

    await home.ff("say", "my work", "Please ask me a question", "--wait", code=7)
    await home.ff("answer", "my work", "--choose", "Blue")
    assert "Understood" in await home.ff("say", "my work", "%say Understood again.", "--wait")

    await home.ff("say", "my work", "%stream 6000 60")
    async with asyncio.timeout(60):
        while "WORKING" not in await home.ff("status", "my work"):
            pass
    assert "interrupted" in await home.ff("stop", "my work")

    assert json.loads(await home.ff("doctor", "--json"))
    await home.ff("rm", "my work", "--yes")
    await home.ff("status", "my work", code=4)
    await home.ff("logout")
    await home.ff("ls", code=3)
